"""Associated pictures: named at once, decoded when asked for."""

from collections.abc import Callable, Iterator, Mapping

from he2her2.geometry import Rgb


class LazyImages(Mapping[str, Rgb]):
    """A mapping whose pictures are decoded at each access."""

    def __init__(self, decoders: Mapping[str, Callable[[], Rgb]]) -> None:
        self._decoders = decoders

    def __getitem__(self, name: str) -> Rgb:
        """The (h, w, 3) picture of that name."""
        return self._decoders[name]()

    def __iter__(self) -> Iterator[str]:
        """The pictures' names."""
        return iter(self._decoders)

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self._decoders)
