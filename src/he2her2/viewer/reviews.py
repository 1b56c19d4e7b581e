"""Review of a run by a person: regions as a slide's GeoJSON, verdicts and their history, and how two stains lie.

All files appear whole or not at all, and a save that did not see the last one is refused; so is a verdict on a result
that is another by now. Several viewers may keep to one folder.
"""

import fcntl
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import MaxLen
from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from he2her2.csv_files import read_filled, write_csv
from he2her2.errors import AnnotationError, He2Her2Error, OutputError
from he2her2.files import check_writable, problems_in_words, read_record, sweep_drafts, write_text
from he2her2.geometry import Point
from he2her2.viewer.alignments import SectionPair, kept_pair
from he2her2.viewer.region_geojson import moved, read_regions

PAIRS_FILE = "stain_pairs.csv"
_PAIR_COLUMNS = ("slide_id", "beside", "turn_deg", "scale", "mirrored", "dx_um", "dy_um", "time")
VERDICTS_FILE = "verdicts.csv"
HISTORY_FILE = "verdict_history.csv"
REGION_CLASSES = ("Tumor", "In situ", "Necrosis", "Ignore*", "Stroma", "Other")
"""Classes to draw in; what each is used for follows from its words, see `preprocessing.annotations`."""

_READ_ONLY = "nothing can be saved: start the viewer with --annotations FOLDER"
_NOTHING = "none"
"""Version of a file that is not there."""


class _Said(TypedDict):
    verdict: Literal["", "agree", "disagree", "unsure"]
    comment: NotRequired[Annotated[str, MaxLen(2000)]]
    reviewer: NotRequired[Annotated[str, MaxLen(100)]]
    call: NotRequired[str]
    probability: NotRequired[FiniteFloat | None]
    seen: NotRequired[str]


_SAID = TypeAdapter(_Said)
VERDICTS = ("agree", "disagree", "unsure")


class StaleError(He2Her2Error):
    """Something that a save rests on has changed in between."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Verdict of a reviewer on a slide's result.

    Attributes:
        slide_id: The slide.
        verdict: One of `VERDICTS`, or "".
        comment: In the reviewer's words.
        time: When it was given, UTC.
        call: What the result said that was judged; "" where there was none, or the table is of an earlier version.
        probability: Of that result.
        reviewer: Who gave it, as he calls himself; "" where he did not say.
    """

    slide_id: str
    verdict: str
    comment: str = ""
    time: str = ""
    call: str = ""
    probability: float | None = None
    reviewer: str = ""

    def is_of(self, judged: tuple[str, float | None]) -> bool:
        """False where another result than this was judged."""
        return not self.call or (self.call, self.probability) == judged

    @property
    def is_empty(self) -> bool:
        """True without word and comment."""
        return not (self.verdict or self.comment)

    @property
    def version(self) -> str:
        """Changes with every save."""
        return _NOTHING if self.is_empty else _version(_json(asdict(self)))


class Reviews:
    """The reviewers' files of a viewer.

    Attributes:
        folder: Where they lie; `predict --annotations` takes it. None keeps nothing.
        writable: Something can be kept there; what lies there is shown all the same.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.writable = folder is not None and _is_writable(folder)
        self._lock = Lock()
        if folder is not None and folder.is_dir():
            sweep_drafts(folder)

    def regions(self, slide_id: str, bounds_l0: Point) -> tuple[dict[str, Any], str]:
        """A slide's regions in level-0 px, and the version of their file.

        Args:
            slide_id: The slide.
            bounds_l0: Corner of its scanned part, from which the file counts as QuPath does.

        Raises:
            AnnotationError: The file holds something else; it will not be written to.
        """
        file = self._file(slide_id)
        if file is None or not os.path.exists(file):  # noqa: PTH110  (`Path.exists` raises for a name that is too long)
            return {"type": "FeatureCollection", "features": []}, _NOTHING
        try:
            text = read_record(file)
            collection = read_regions(text, of_a_file=True)
        except ValidationError as error:
            said = problems_in_words(error)
            raise AnnotationError(f"{file}: is no FeatureCollection that can be shown ({said}); move it away") from None
        except (OSError, ValueError) as error:
            raise AnnotationError(f"{file}: cannot be read ({error}); move it away") from None
        return moved(collection, bounds_l0.x, bounds_l0.y), _version(text)

    def save_regions(self, slide_id: str, body: bytes, bounds_l0: Point, seen: str) -> str:
        """Write a slide's regions; none remove the file. Returns its new version.

        Args:
            slide_id: The slide.
            body: A FeatureCollection in level-0 px.
            bounds_l0: Corner of its scanned part.
            seen: Version that the reviewer's changes started from.

        Raises:
            AnnotationError: They are no regions.
            StaleError: The file is of another version.
            OutputError: It cannot be written.
        """
        file = self._file(slide_id)
        if file is None:
            raise AnnotationError(_READ_ONLY)
        try:
            collection = read_regions(body)
        except ValidationError as error:
            raise AnnotationError(f"these are no regions ({problems_in_words(error)})") from None
        with self._alone():
            _, now = self.regions(slide_id, bounds_l0)
            if seen != now:
                raise StaleError(f"{slide_id}: its regions were saved by somebody else; load the page again")
            if not collection["features"]:
                file.unlink(missing_ok=True)
                return _NOTHING
            text = _json(moved(collection, -bounds_l0.x, -bounds_l0.y))
            write_text(file, text)
        return _version(text)

    def verdicts(self) -> dict[str, Verdict]:
        """Verdicts by slide.

        Raises:
            AnnotationError: Their table cannot be read.
        """
        file = None if self.folder is None else self.folder / VERDICTS_FILE
        if file is None or not file.is_file():
            return {}
        try:
            rows = [_verdict_of(row) for row in _rows_of(file, "slide_id")]
        except (OSError, ValueError, KeyError) as error:
            raise _unreadable(file, error) from None
        return {row.slide_id: row for row in rows}

    def save_verdict(self, slide_id: str, body: bytes, judged: tuple[str, float | None] = ("", None)) -> Verdict:
        """Keep a verdict in place of an earlier one of the slide; one without word and comment takes it back.

        The history keeps both.

        Args:
            slide_id: The slide.
            body: JSON with `verdict`, `comment` and `reviewer`, and with what he saw: the `call` and `probability`,
                and the version of the earlier verdict as `seen`.
            judged: The call and the probability of the slide's result now.

        Raises:
            AnnotationError: It is no verdict, or nothing can be kept.
            StaleError: The reviewer saw another result or another verdict.
            OutputError: The table cannot be written.
        """
        if self.folder is None:
            raise AnnotationError(_READ_ONLY)
        try:
            said = _SAID.validate_json(body)
        except ValidationError as error:
            raise AnnotationError(f"this is no verdict ({problems_in_words(error)})") from None
        if "call" in said and (said["call"], said.get("probability")) != judged:
            raise StaleError(f"{slide_id}: its result is another by now; load the page again")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        given = Verdict(slide_id, said["verdict"], said.get("comment", ""), now, *judged, said.get("reviewer", ""))
        with self._alone():
            earlier = self.verdicts().get(slide_id, Verdict(slide_id, ""))
            if said.get("seen", earlier.version) != earlier.version:
                done = f"given the verdict {earlier.verdict!r}" if earlier.verdict else "changed its verdict or comment"
                raise StaleError(f"{slide_id}: somebody else has {done} meanwhile; load the page again")
            file = self.folder / VERDICTS_FILE
            rows: dict[str, dict[str, Any]] = {
                row["slide_id"]: {**row} for row in (read_filled(file) if file.is_file() else ())
            }
            rows[slide_id] = rows.get(slide_id, {}) | asdict(given)  # columns that others added stay
            own = [field.name for field in fields(Verdict)]
            if given.is_empty and not any(cell for column, cell in rows[slide_id].items() if column not in own):
                del rows[slide_id]
            columns = dict.fromkeys((*own, *chain(*rows.values())))
            history = self._history(self.folder / HISTORY_FILE)
            before = [] if earlier.is_empty or earlier in history else [earlier]  # not given here
            write_csv(self.folder / HISTORY_FILE, own, map(asdict, (*history, *before, given)))  # the earlier one first
            write_csv(file, [*columns], [row for _, row in sorted(rows.items())])
        return given

    def pair(self, slide_id: str, beside: str) -> SectionPair | None:
        """Two slides of a patient as a reviewer laid them, in whichever direction; None where nobody did.

        Raises:
            AnnotationError: The table cannot be read.
        """
        pairs = self._pairs()
        if (slide_id, beside) in pairs:
            return pairs[slide_id, beside]
        return pairs[beside, slide_id].back if (beside, slide_id) in pairs else None

    def save_pair(self, slide_id: str, beside: str, pair: SectionPair | None) -> None:
        """Keep how two slides lie, in place of what was kept; None forgets it.

        Raises:
            AnnotationError: Nothing can be kept.
            OutputError: The table cannot be written.
        """
        if self.folder is None:
            raise AnnotationError(_READ_ONLY)
        with self._alone():
            pairs = self._pairs()
            for names in ((slide_id, beside), (beside, slide_id)):
                pairs.pop(names, None)
            if pair is not None:
                pairs[slide_id, beside] = pair
            now = datetime.now(UTC).isoformat(timespec="seconds")
            rows = [
                {"slide_id": one, "beside": other, "turn_deg": way.turn, "scale": way.scale,
                 "mirrored": int(way.mirrored), "dx_um": way.dx, "dy_um": way.dy, "time": now}
                for (one, other), way in sorted(pairs.items())
            ]  # fmt: skip
            write_csv(self.folder / PAIRS_FILE, _PAIR_COLUMNS, rows)

    @staticmethod
    def _history(file: Path) -> list[Verdict]:
        """All verdicts, in the order in which they were given."""
        try:
            return [_verdict_of(row) for row in read_filled(file)] if file.is_file() else []
        except (OSError, ValueError, KeyError) as error:
            raise _unreadable(file, error) from None

    def _pairs(self) -> dict[tuple[str, str], SectionPair]:
        file = None if self.folder is None else self.folder / PAIRS_FILE
        if file is None or not file.is_file():
            return {}
        try:
            return {
                (row["slide_id"], row["beside"]): kept_pair(
                    turn=row["turn_deg"], scale=row["scale"], mirrored=row["mirrored"], dx=row["dx_um"], dy=row["dy_um"]
                )
                for row in _rows_of(file, "slide_id", "beside")
            }
        except (OSError, ValueError, KeyError) as error:
            raise _unreadable(file, error) from None

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other thread save to the folder meanwhile, nor another viewer, but where files cannot be locked."""
        assert self.folder is not None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            why = error.strerror or error
            raise OutputError(f"{self.folder}: cannot be written to ({why}); choose another place") from error
        try:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
            with self._lock:
                yield
        finally:
            os.close(handle)

    def _file(self, slide_id: str) -> Path | None:
        if self.folder is None:
            return None
        if slide_id.startswith(".") or Path(slide_id).name != slide_id:
            raise AnnotationError(f"{slide_id!r} cannot name a file of regions")
        return self.folder / f"{slide_id}.geojson"


def _is_writable(folder: Path) -> bool:
    try:
        check_writable(folder)
    except OutputError:
        return False
    return True


def _rows_of(file: Path, *names: str) -> list[dict[str, str]]:
    """Rows of a table, each under its own name; of two tables that somebody put together the next save would lose one.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no CSV, or has two rows of one name.
        KeyError: It lacks a column of the names.
    """
    rows = read_filled(file)
    for name, n in Counter(" beside ".join(row[one] for one in names) for row in rows).items():
        if n > 1:
            raise ValueError(f"{n} rows of {name}, leave the one that holds")
    return rows


def _verdict_of(row: Mapping[str, str]) -> Verdict:
    texts = {name: row.get(name) or "" for name in ("verdict", "comment", "time", "call", "reviewer")}
    probability = float(row.get("probability") or math.nan)
    return Verdict(row["slide_id"], **texts, probability=probability if math.isfinite(probability) else None)


def _unreadable(file: Path, error: Exception) -> AnnotationError:
    """The error of a table that somebody else wrote, or saved with other separators."""
    if isinstance(error, ValidationError):
        why = problems_in_words(error)
    else:
        why = f"no column {error}" if isinstance(error, KeyError) else str(error)
    return AnnotationError(f"{file}: cannot be read ({why}); save it as CSV with commas, or move it away")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"


def _version(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
