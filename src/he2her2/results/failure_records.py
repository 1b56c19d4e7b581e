"""Failures of a run on disk, `failures/<slide_id>.json`: the reason, and what the slide was then."""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter

from he2her2.files import read_json, url_of, write_json
from he2her2.results.made_of import MadeOf
from he2her2.results.slide_result import SlideResult
from he2her2.results.tables import Failure


@dataclass(frozen=True, slots=True)
class _Record:
    """A failure, and all that it depends on."""

    failure: Failure
    made_of: MadeOf


_RECORD = TypeAdapter(_Record)


@dataclass(frozen=True, slots=True)
class FailureRecords:
    """The failures of a run: a slide that failed is not tried again while its files stay what they were.

    Attributes:
        run: The run's folder.
    """

    run: Path

    @property
    def folder(self) -> Path:
        """Of the records."""
        return self.run / "failures"

    def read(self, slide_id: str, made_of: MadeOf) -> Failure | None:
        """The failure of a slide; None where there is none, or it is damaged or of something else."""
        record = self._record(slide_id)
        return record.failure if record is not None and record.made_of == made_of else None

    def write(self, failure: Failure, made_of: MadeOf) -> None:
        """Keep a failure.

        Raises:
            OutputError: It cannot be written.
        """
        write_json(self._file(failure.slide_id), _Record(failure, made_of), ascii_only=True)

    def remove(self, slide_id: str) -> None:
        """Forget the failure of a slide, if there is one."""
        self._file(slide_id).unlink(missing_ok=True)

    def has(self, slide_id: str) -> bool:
        """True if there is a failure of a slide, whatever it was made of."""
        return self._file(slide_id).is_file()

    def noted_ns(self, slide_id: str) -> int:
        """Time at which the failure of a slide was noted, by the clock of its disk; 0 where there is none."""
        try:
            return self._file(slide_id).stat().st_mtime_ns
        except OSError:
            return 0

    def outranks(self, result: SlideResult) -> bool:
        """True if the same file under the same configuration failed after a result was made of it."""
        record = self._record(result.slide_id)
        if record is None:
            return False
        of = record.made_of
        return (of.configuration, of.inputs.path) == (result.run_digest, result.inputs.path)

    def slide_ids(self) -> set[str]:
        """Slides with a failure on record, whatever it was made of."""
        return {file.stem for file in self.folder.glob("[!.]*.json")}

    def of(self, configuration: str, known: Container[str]) -> Iterator[Failure]:
        """The failures of a configuration that are not among the known slides."""
        for file in sorted(self.folder.glob("[!.]*.json")):
            if file.stem not in known:
                record = self._record(file.stem)
                if record is not None and record.made_of.configuration == configuration:
                    yield record.failure

    def located(self, failures: Mapping[str, Failure]) -> dict[str, Failure]:
        """The failures of a table, whose paths may hold in one working folder only, with those of their records."""
        return {name: self._located(failure) for name, failure in failures.items()}

    def _located(self, failure: Failure) -> Failure:
        if Path(failure.path).is_absolute() or url_of(failure.path) is not None:
            return failure
        record = self._record(failure.slide_id)
        known = record is not None and record.failure.path == failure.path and record.made_of.inputs.path
        return replace(failure, path=known) if known else failure

    def _record(self, slide_id: str) -> _Record | None:
        try:
            return _RECORD.validate_python(read_json(self._file(slide_id)))
        except (OSError, ValueError):  # pydantic's error is a ValueError
            return None

    def _file(self, slide_id: str) -> Path:
        return self.folder / f"{slide_id}.json"
