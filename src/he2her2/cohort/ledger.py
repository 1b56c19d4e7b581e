"""The ledger of slides that are done: with what configuration, of which bytes, or why they failed."""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from he2her2.cohort.tasks import SlideTask
from he2her2.errors import SlideError
from he2her2.results import Failure, FailureRecords, MadeOf, SlideInputs

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


@runtime_checkable
class EvidenceStore(ResultStore[_P_contra, _R_co], Protocol[_P_contra, _R_co]):
    """A store that also takes what was found on a slide until it failed."""

    def write_unfinished(self, failure: Failure, findings: object) -> str:
        """Write evidence in place of earlier results of the slide; gives its place in the run, empty for none.

        Raises:
            OutputError: It cannot be written.
        """

    def unfinished(self, slide_id: str) -> str:
        """Place in the run of such evidence; empty where there is none."""

    def sweep(self, slide_id: str) -> None:
        """Remove drafts that a dead worker left of a slide."""


@dataclass(frozen=True, slots=True)
class Ledger(Generic[_P, _R]):
    """The results of one configuration.

    Attributes:
        store: Where they lie.
        configuration: SHA-256 of all that can change a result, but for the slide's own files.
        failures: Where failures are kept; None forgets them, so that such slides are always tried again.
    """

    store: ResultStore[_P, _R]
    configuration: str
    failures: FailureRecords | None = None

    def made_of(self, inputs: SlideInputs) -> MadeOf:
        """All that a result of these files depends on under this configuration."""
        return MadeOf(self.configuration, inputs)

    def find(self, slide_id: str, made_of: MadeOf) -> _R | None:
        """The result that is there already; None where the slide has to be worked on.

        A failure since then, of a file that was not there or another one for a while, is forgotten.
        """
        found = self.store.read(slide_id, made_of)
        if found is not None and self.failures is not None:
            self.failures.remove(slide_id)
        return found

    def find_of(self, task: SlideTask) -> _R | None:
        """The same, of the files of a task as they are now."""
        return self.find(task.slide_id, self.made_of(task.inputs))

    def failure_of(self, task: SlideTask) -> Failure | None:
        """The failure of the files of a task as they are now; None where none is known."""
        return None if self.failures is None else self.failures.read(task.slide_id, self.made_of(task.inputs))

    def failed_ns(self, slide_id: str) -> int:
        """Time at which a slide failed last, by the clock of its disk; 0 where no failure is known."""
        return 0 if self.failures is None else self.failures.noted_ns(slide_id)

    def keep(self, slide_id: str, made_of: MadeOf, product: _P) -> _R:
        """Write what a worker made of a slide; gives the result as it will be found."""
        result = self.store.write(slide_id, made_of, product)
        if self.failures is not None:
            self.failures.remove(slide_id)
        return result

    def fail(self, failure: Failure, made_of: MadeOf, findings: object | None = None) -> Failure:
        """Note a failure, with the evidence that there is; gives it as it will be found.

        Without evidence what an earlier command left of the slide is removed, but for a file that cannot be opened: it
        may be that of another slide, or there again later.
        """
        place = ""
        if findings is not None and isinstance(self.store, EvidenceStore):
            place = self.store.write_unfinished(failure, findings)
        if not place and failure.stage != SlideError.stage:
            self.store.discard(failure.slide_id)
        return self._note(failure.with_evidence(place), made_of)

    def fail_dead(self, failure: Failure, made_of: MadeOf) -> Failure:
        """Note the failure of a slide whose worker died, with the evidence that it wrote until then."""
        if isinstance(self.store, EvidenceStore) and (place := self.store.unfinished(failure.slide_id)):
            return self._note(failure.with_evidence(place), made_of)
        return self.fail(failure, made_of)

    def _note(self, failure: Failure, made_of: MadeOf) -> Failure:
        if self.failures is not None:
            self.failures.write(failure, made_of)
        return failure

    def sweep(self, slide_id: str) -> None:
        """Remove drafts that a dead worker left of a slide."""
        if isinstance(self.store, EvidenceStore):
            self.store.sweep(slide_id)
