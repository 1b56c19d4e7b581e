"""Rows of a run's tables: `predictions.csv`, `segmentations.csv` and `failures.csv`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from he2her2.csv_files import read_filled, write_csv
from he2her2.errors import EvaluationError
from he2her2.labels import Her2Status, IhcScore
from he2her2.results.slide_result import SlideResult
from he2her2.rules import Arm

_NEEDED = ("slide_id", "status", "probability", "threshold")
_LINE_END = "\r\n"


@dataclass(frozen=True, slots=True)
class Failure:
    """A slide without a result, and the reason: a row of `failures.csv`.

    Attributes:
        slide_id: Its name.
        path: Its file.
        stage: The step that failed, see `SlideError`.
        reason: What was found.
        remedy: What the user can do.
        evidence: Folder in the run with what was found until then; empty where there is none.
    """

    slide_id: str
    path: str
    stage: str
    reason: str
    remedy: str
    evidence: str = ""

    def __str__(self) -> str:
        return f"{self.slide_id}: {self.reason}; {self.remedy}"

    def with_evidence(self, place: str) -> Self:
        """The same, with the place of what was found."""
        return replace(self, evidence=place)


@dataclass(frozen=True, slots=True)
class PredictedSlide:
    """A row of `predictions.csv`, as far as it is read again.

    Attributes:
        slide_id: Its name.
        status: HER2 status that was called.
        probability: Of HER2-positive.
        threshold: The probability from which it was called positive.
        calibrated_probability: As the stored calibration corrects it; NaN without one.
        tile_score: Predicted IHC score; None where the run has none.
        notices: Said with every output of its weights.
        path: Its file; "" where the table does not say.
        triage: Arm of the stored triage; "" without one.
        pen_share: Share of the tissue under pen ink; NaN where the table does not say.
        blur_share: Share of the tissue out of focus; NaN where the table does not say.
        warnings: Cautions for the reader.
        mpp: µm per level-0 px that the run took it to have; NaN where the table does not say.
    """

    slide_id: str
    status: Her2Status
    probability: float
    threshold: float
    calibrated_probability: float = math.nan
    tile_score: IhcScore | None = None
    notices: tuple[str, ...] = ()
    path: str = ""
    triage: str = ""
    pen_share: float = math.nan
    blur_share: float = math.nan
    warnings: tuple[str, ...] = ()
    mpp: float = math.nan

    @classmethod
    def of_row(cls, row: Mapping[str, str]) -> Self:
        """The slide of a row of text.

        Raises:
            ValueError: A cell is missing or makes no sense; the message says which, without the slide's name.
        """
        missing = [column for column in _NEEDED if not row.get(column)]
        if missing:
            raise ValueError(f"has no {', '.join(missing)}; predict it again")
        found = f"probability {row['probability']!r}, threshold {row['threshold']!r}"
        try:
            probability, threshold = float(row["probability"]), float(row["threshold"])
        except ValueError:
            probability = threshold = math.nan
        if not (0 <= probability <= 1 and math.isfinite(threshold)):
            raise ValueError(f"has {found}; give numbers, the probability from 0 to 1")
        score = row.get("tile_score")
        return cls(
            row["slide_id"],
            Her2Status(row["status"]),
            probability,
            threshold,
            float(row.get("calibrated_probability") or math.nan),
            IhcScore(score) if score else None,
            _texts(row.get("notices")),
            row.get("path") or "",
            row.get("triage") or "",
            _share(row.get("pen_share")),
            _share(row.get("blur_share")),
            _texts(row.get("warnings")),
            _positive(row.get("mpp")),
        )

    @property
    def call(self) -> str:
        """The status, or that the triage refers to IHC: then nothing else is called."""
        return self.triage if self.triage == Arm.REFER else str(self.status)

    def require_of(self, result: SlideResult) -> None:
        """Raise `ValueError` unless a result, which a seal guards, calls the slide as the row does."""
        if (her2 := result.her2) is None:
            return
        arm = her2.triage.arm if her2.triage else ""
        here, there = (
            ", ".join(filter(None, (one.status, f"probability {one.probability:g}, threshold {one.threshold:g}", said)))
            for one, said in ((self, self.triage), (her2, arm))
        )
        if here != there:
            raise ValueError(f"is {there}, and its row of predictions.csv, which was changed, says {here}")


def _texts(cell: str | None) -> tuple[str, ...]:
    return tuple(text for text in (cell or "").split("; ") if text)


def _share(cell: str | None) -> float:
    """A share of a cell; NaN where it is empty or no share, since nothing is decided by it."""
    try:
        share = float(cell or math.nan)
    except ValueError:
        return math.nan
    return share if 0 <= share <= 1 else math.nan


def _positive(cell: str | None) -> float:
    """A positive number of a cell; NaN where it is none."""
    try:
        number = float(cell or math.nan)
    except ValueError:
        return math.nan
    return number if 0 < number < math.inf else math.nan


@dataclass(frozen=True, slots=True)
class ResultRow:
    """A result as a table and a patient's rules need it: small, where thousands are held.

    Attributes:
        cells: Of `predictions.csv`, or of `segmentations.csv`.
        probability: Of HER2-positive; None where no tiles were scored.
        unlike: True of a slide that is unlike the training slides of the weights.
    """

    cells: tuple[Any, ...]
    probability: float | None
    unlike: bool = False

    @classmethod
    def of(cls, result: SlideResult) -> Self:
        """The row of a result."""
        if result.her2 is None:
            return cls(_segmentation_row(result), None)
        unlike = result.likeness is not None and result.likeness.unlike
        return cls(_prediction_row(result), result.her2.probability, unlike)

    @property
    def slide_id(self) -> str:
        """Of the slide."""
        return str(self.cells[0])


def write_results(file: Path, rows: Sequence[ResultRow], *, predictions: bool) -> None:
    """Write `predictions.csv` or `segmentations.csv`.

    Raises:
        OutputError: It cannot be written.
    """
    columns = _PREDICTION_COLUMNS if predictions else _SEGMENTATION_COLUMNS
    write_csv(file, columns, (row.cells for row in rows), line_end=_LINE_END)


def write_failures(file: Path, failures: Iterable[Failure]) -> None:
    """Write `failures.csv`.

    Raises:
        OutputError: It cannot be written.
    """
    write_csv(file, _FAILURE_COLUMNS, map(astuple, failures), line_end=_LINE_END)


def read_predictions(file: Path) -> dict[str, PredictedSlide]:
    """The slides of a `predictions.csv`, by name.

    Raises:
        EvaluationError: It cannot be read, names a slide twice, or a row is not whole.
    """
    found = {}
    for slide_id, row in _by_slide(file).items():
        try:
            found[slide_id] = PredictedSlide.of_row(row)
        except ValueError as error:
            raise EvaluationError(f"{file}: slide {slide_id} {error}") from None
    return found


def read_failures(file: Path) -> dict[str, Failure]:
    """The slides of a `failures.csv`, by name; none where there is no such file.

    Raises:
        EvaluationError: It cannot be read, or names a slide twice.
    """
    rows = _by_slide(file) if file.is_file() else {}
    return {name: Failure(*(row.get(column) or "" for column in _FAILURE_COLUMNS)) for name, row in rows.items()}


def _by_slide(file: Path) -> dict[str, dict[str, str]]:
    try:
        rows = read_filled(file)
        if rows and "slide_id" not in rows[0]:
            raise ValueError("no column slide_id")  # noqa: TRY301  as where it is no CSV at all
    except (OSError, ValueError) as error:
        remedy = "save it so, or move it away and give the same predict command, which writes it anew"
        raise EvaluationError(f"{file}: cannot be read as CSV with commas ({error}); {remedy}") from None
    found: dict[str, dict[str, str]] = {}
    for line, row in enumerate(rows, start=2):
        slide_id = row.get("slide_id") or ""
        if not slide_id or slide_id in found:
            problem = f"names slide {slide_id} twice" if slide_id else "has a row without slide_id"
            raise EvaluationError(f"{file}, line {line}: {problem}; predict again into a new folder")
        found[slide_id] = row
    return found


_FAILURE_COLUMNS = tuple(field.name for field in fields(Failure))
_SEGMENTATION_COLUMNS = ("slide_id", "path", "mpp", "tissue_mm2", "tumour_mm2", "pen_share", "blur_share", "notices")
_PREDICTION_COLUMNS = (
    "slide_id", "path", "status", "probability", "threshold", "calibrated_probability", "triage", "tile_score", "mpp",
    "tissue_mm2", "tumour_mm2", "pen_share", "blur_share", "tiles", "unreadable", "selected", "warnings", "notices",
)  # fmt: skip


def _segmentation_row(result: SlideResult) -> tuple[Any, ...]:
    return (result.slide_id, result.path, *_found(result), "; ".join(result.notices))


def _prediction_row(result: SlideResult) -> tuple[Any, ...]:
    her2, counts = result.her2, result.counts
    assert her2 is not None, "segmentations have a table of their own"
    return (
        result.slide_id,
        result.path,
        her2.status.value,
        her2.probability,
        her2.threshold,
        "" if her2.calibrated_probability is None else her2.calibrated_probability,
        her2.triage.arm if her2.triage else "",
        her2.tile_score,
        *_found(result),
        counts.tiles,
        counts.unreadable,
        counts.selected,
        "; ".join(her2.warnings),
        "; ".join(result.notices),
    )


def _found(result: SlideResult) -> tuple[float, ...]:
    """µm per px, areas and spoilt shares, as both tables have them."""
    area, quality = result.area_mm2, result.quality
    return (result.slide.mpp, area.tissue, area.tumour, quality.pen_share, quality.blur_share)
