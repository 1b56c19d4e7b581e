"""A slide to be worked on, the workers that do so, and what becomes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeAlias, TypeVar

from he2her2.files import url_of
from he2her2.manifest import SlideRow, folder_name_problem
from he2her2.preprocessing import Annotation, read_annotation
from he2her2.results import Failure, FileStamp, SlideInputs

_P = TypeVar("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A slide that lies on another machine.

    Attributes:
        url: Its address.
        stamp: Size and time of change there; None where it could not be asked.
    """

    url: str
    stamp: FileStamp | None


@dataclass(frozen=True, slots=True)
class SlideTask:
    """One slide to be worked on.

    Attributes:
        slide_id: Its name.
        path: Its file; of a remote one its address (`files.url_of`) until it has been fetched.
        mpp: µm per level-0 px, over what the file says.
        annotations: File of its annotated regions.
        remote: Where it comes from; None for a file of this machine.
        again: Its worker died at it, and may die again: what is found is written at each stage.
    """

    slide_id: str
    path: Path
    mpp: float | None = None
    annotations: Path | None = None
    remote: RemoteFile | None = None
    again: bool = False

    @classmethod
    def of_row(cls, row: SlideRow) -> Self:
        """The task of a manifest's row."""
        return cls(row.slide_id, row.path, row.mpp, row.annotations)

    def read_annotation(self, chosen: Sequence[str] = ()) -> Annotation | None:
        """Its annotated regions; None where it has no file of them.

        Args:
            chosen: Classes that are tumour; by their names if empty.

        Raises:
            AnnotationError: They cannot be used.
        """
        return None if self.annotations is None else read_annotation(self.annotations, chosen, self.path)

    @property
    def inputs(self) -> SlideInputs:
        """The files as they are now, to notice when they change."""
        annotations = None if self.annotations is None else FileStamp.of(self.annotations)
        if self.remote is not None:
            return SlideInputs(self.remote.url, self.remote.stamp, annotations, self.mpp)
        return SlideInputs(str(self.path.absolute()), FileStamp.of_slide(self.path), annotations, self.mpp)

    @property
    def source(self) -> str:
        """Path or address of its file, for tables and messages."""
        return url_of(self.path) or str(self.path) if self.remote is None else self.remote.url

    @property
    def name_problem(self) -> str | None:
        """Reason why its name cannot name its folder of results; None where it can."""
        problem = folder_name_problem(self.slide_id)
        return f"its name {problem}" if problem else None


Worker: TypeAlias = Callable[[SlideTask], _P]
"""From a task to what it makes of the slide; raises `SlideError` or `AnnotationError` where it can make nothing."""

TaskOutcome: TypeAlias = tuple[SlideTask, _R | Failure]
"""A task and what became of it."""
