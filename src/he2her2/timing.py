"""Progress and timing of the work on a slide: by stage, and by kind of work in a stream of tiles."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from operator import add
from time import perf_counter
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done and how much there is."""


def silent(stage: str, done: int, total: int) -> None:
    """Report to nobody."""


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """Time of the threads of a stream of tiles, in seconds of all of them together.

    Attributes:
        tiles: Tiles that were read.
        wall: Seconds on the clock.
        available: Seconds that the threads had: their number times `wall`.
        reading: Decoding tiles, in processor time.
        waiting: The rest of reading: waiting for the disk, or for a core that other programs hold.
        applying: In the function that the tiles were read for, a network as a rule.
    """

    tiles: int = 0
    wall: float = 0.0
    available: float = 0.0
    reading: float = 0.0
    waiting: float = 0.0
    applying: float = 0.0

    @property
    def rate(self) -> float:
        """Tiles a second."""
        return self.tiles / self.wall if self.wall else 0.0

    @property
    def shares(self) -> dict[str, float]:
        """Share of the threads' time by kind of work; they sum up to 1.

        Example:
            >>> StreamTimes(10, wall=4, available=8, reading=2, waiting=1, applying=4).shares
            {'CNN': 0.5, 'reading': 0.25, 'disk': 0.125, 'other': 0.125}
        """
        if not self.available:
            return {}
        known = {"CNN": self.applying, "reading": self.reading, "disk": self.waiting}
        shares = {name: seconds / self.available for name, seconds in known.items()}
        return shares | {"other": max(0.0, 1 - sum(shares.values()))}

    @property
    def limit(self) -> str:
        """Kind of work that took most of the time; empty where none was spent."""
        shares = self.shares
        return max(shares, key=lambda name: shares[name]) if shares else ""

    def in_words(self) -> str:
        """One line for a person.

        Example:
            >>> StreamTimes(10, wall=5, available=10, reading=2, waiting=1, applying=6).in_words()
            '2 tiles/s on 2 threads, limited by the CNN (60 % of their time; reading 20 %, disk 10 %, other 10 %)'
        """
        shares = dict(self.shares)
        if not shares:
            return "no tiles"
        limit = self.limit
        most = shares.pop(limit)
        rest = ", ".join(f"{name} {share:.0%}".replace("%", " %") for name, share in shares.items())
        n_threads = round(self.available / self.wall)
        return (
            f"{_rounded(self.rate)} tiles/s on {n_threads} thread{'s' * (n_threads > 1)}, "
            f"limited by {_IN_WORDS[limit]} ({100 * most:.0f} % of their time; {rest})"
        )

    def __add__(self, other: "StreamTimes") -> "StreamTimes":
        """Both streams, one after the other."""
        return StreamTimes(*map(add, astuple(self), astuple(other)))


def _rounded(rate: float) -> str:
    """Three digits of a small rate, all whole ones of a large rate.

    Example:
        >>> _rounded(4463.2), _rounded(999.9), _rounded(31.26)
        ('4 463', '1 000', '31.3')
    """
    return f"{rate:.3g}" if rate < 100 else f"{rate:,.0f}".replace(",", " ")


_IN_WORDS = {
    "CNN": "the CNN",
    "reading": "reading",
    "disk": "the disk, or other programs",
    "other": "what takes the results",
}


class Watch:
    """Observes the work on a slide: progress while it goes on, and where its time went.

    Attributes:
        progress: Called with the name of a stage, how much of it is done and how much there is.
        stages: Seconds on the clock of each stage, in the order of their beginning.
        streams: What the threads did in those stages that stream tiles.
    """

    def __init__(self, progress: Progress = silent) -> None:
        self.progress = progress
        self.stages: dict[str, float] = {}
        self.streams: dict[str, StreamTimes] = {}
        self._begin = perf_counter()

    @property
    def seconds(self) -> float:
        """Since it was made."""
        return perf_counter() - self._begin

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of the block to a stage, which is reported as begun with nothing done of nothing."""
        self.progress(name, 0, 0)
        start = perf_counter()
        self.stages.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.stages[name] += perf_counter() - start

    def streamed(self, stage: str, times: StreamTimes) -> None:
        """Add a stream's times to a stage."""
        self.streams[stage] = self.streams.get(stage, StreamTimes()) + times
