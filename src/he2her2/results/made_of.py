"""All that a result depends on, so that one of other settings, weights or files is never taken for it."""

from pathlib import Path
from typing import Self

from pydantic import ConfigDict, NonNegativeInt
from pydantic.dataclasses import dataclass

from he2her2.slides import all_files_of


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class FileStamp:
    """Size and time of change of a file, or of all of a slide, to notice that it is no longer the same.

    Attributes:
        bytes: Its size.
        modified_ns: When it was changed last.
    """

    bytes: NonNegativeInt
    modified_ns: int

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """The stamp of a file; None where there is none."""
        if not path.is_file():
            return None
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns)

    @classmethod
    def of_slide(cls, path: Path) -> Self | None:
        """The stamp of all files of a slide: their size, and their last change; None where there is none."""
        stamps = [stamp for file in all_files_of(path) if (stamp := cls.of(file)) is not None]
        if not stamps:
            return None
        return cls(sum(stamp.bytes for stamp in stamps), max(stamp.modified_ns for stamp in stamps))


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))  # a task has its inputs before its mpp is checked
class SlideInputs:
    """The files that a result was made of.

    Attributes:
        path: Of the slide, absolute.
        slide: Stamp of the slide's files; None where it is no ordinary file.
        annotations: Stamp of its annotation file; None without one.
        mpp: µm per level-0 px that were given for it.
    """

    path: str
    slide: FileStamp | None = None
    annotations: FileStamp | None = None
    mpp: float | None = None

    def is_moved(self, other: Self) -> bool:
        """True if the slide's file is that of other inputs, at another place.

        Size and time of change show it; where a server tells no time, only the query of the address may be another.
        """
        if self.slide != other.slide or self.path == other.path:
            return False
        is_known = self.slide is not None and self.slide.modified_ns != 0
        return is_known or self.path.partition("?")[0] == other.path.partition("?")[0]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MadeOf:
    """All that a result depends on.

    Attributes:
        configuration: SHA-256 of settings, weights and what the user overrode.
        inputs: The files.
    """

    configuration: str
    inputs: SlideInputs
