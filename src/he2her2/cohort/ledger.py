"""The ledger of slides that are done: with what configuration, of which bytes."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from he2her2.results import MadeOf, SlideInputs

_P = TypeVar("_P")
_R = TypeVar("_R")
_P_contra = TypeVar("_P_contra", contravariant=True)
_R_co = TypeVar("_R_co", covariant=True)


class ResultStore(Protocol[_P_contra, _R_co]):
    """One kind of result on disk: each appears whole, with what it was made of, or not at all."""

    def read(self, slide_id: str, made_of: MadeOf) -> _R_co | None:
        """The result of a slide; None where there is none, it is damaged or was made of something else."""

    def write(self, slide_id: str, made_of: MadeOf, product: _P_contra) -> _R_co:
        """Write what a worker made of a slide, in place of an earlier result of it.

        Raises:
            OutputError: It cannot be written.
        """

    def discard(self, slide_id: str) -> None:
        """Remove an earlier result of a slide: after a failure nothing may pass for its result."""


@dataclass(frozen=True, slots=True)
class Ledger(Generic[_P, _R]):
    """The results of one configuration.

    Attributes:
        store: Where they lie.
        configuration: SHA-256 of all that can change a result, but for the slide's own files.
    """

    store: ResultStore[_P, _R]
    configuration: str

    def made_of(self, inputs: SlideInputs) -> MadeOf:
        """All that a result of these files depends on under this configuration."""
        return MadeOf(self.configuration, inputs)

    def find(self, slide_id: str, made_of: MadeOf) -> _R | None:
        """The result that is there already; None where the slide has to be worked on."""
        return self.store.read(slide_id, made_of)

    def keep(self, slide_id: str, made_of: MadeOf, product: _P) -> _R:
        """Write what a worker made of a slide; gives the result as it will be found."""
        return self.store.write(slide_id, made_of, product)

    def discard(self, slide_id: str) -> None:
        """Forget a slide."""
        self.store.discard(slide_id)
