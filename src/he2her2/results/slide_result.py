"""A slide's result in numbers and words, and its JSON form: `prediction.json` or `segmentation.json`.

Prediction writes these values; evaluation, reports, tables and the command line read them. Nobody else knows the keys.
"""

from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from annotated_types import Len
from pydantic import (
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)
from pydantic.dataclasses import dataclass

from he2her2.config import Config
from he2her2.domain import Likeness, slide_features
from he2her2.files import digest
from he2her2.geometry import Point
from he2her2.labels import Her2Status
from he2her2.models import Card
from he2her2.results.rasters import RasterFrame
from he2her2.rules import OperatingPoint, PatientRule, Triage
from he2her2.timing import StreamTimes, Watch

RESEARCH_USE_NOTICE = "research use only: not validated for diagnosis"

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, config=_STRICT)
class FileStamp:
    """Size and time of change of a file, to notice that it is no longer the same.

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


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))  # a task has its inputs before its mpp is checked
class SlideInputs:
    """The files that a result was made of.

    Attributes:
        path: Of the slide, absolute.
        slide: Stamp of the slide; None where it is no ordinary file.
        annotations: Stamp of its annotation file; None without one.
        mpp: µm per level-0 px that were given for it.
    """

    path: str
    slide: FileStamp | None = None
    annotations: FileStamp | None = None
    mpp: float | None = None


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MadeOf:
    """All that a result depends on.

    Attributes:
        configuration: SHA-256 of settings, weights and what the user overrode.
        inputs: The files.
    """

    configuration: str
    inputs: SlideInputs


@dataclass(frozen=True, config=_STRICT)
class SlideFacts:
    """The slide as it was opened.

    Attributes:
        vendor: Scanner family, as OpenSlide names it.
        backend: The reader.
        mpp: µm per level-0 px.
        width: In level-0 px.
        height: In level-0 px.
        levels: Of the pyramid.
        bounds_origin: Top left corner (x, y) of the scanned part in level-0 px, which QuPath calls (0, 0).
    """

    vendor: str
    backend: str
    mpp: PositiveFloat
    width: PositiveInt
    height: PositiveInt
    levels: PositiveInt
    bounds_origin: tuple[int, int] = (0, 0)


@dataclass(frozen=True, config=_STRICT)
class QualityFindings:
    """Shares of the tissue that are spoilt.

    Attributes:
        pen_share: Under pen ink.
        blur_share: Out of focus.
        left_out: Whether they were left out of the usable tissue.
    """

    pen_share: NonNegativeFloat
    blur_share: NonNegativeFloat
    left_out: bool


@dataclass(frozen=True, config=_STRICT)
class ColourStatistics:
    """Red, green and blue over the usable tissue, in [0, 255]: scanner and stain, not the tumour.

    Attributes:
        mean: Of each channel.
        spread: Standard deviation of each channel.
    """

    mean: tuple[float, float, float]
    spread: tuple[float, float, float]


@dataclass(frozen=True, config=_STRICT)
class Areas:
    """Areas in mm².

    Attributes:
        tissue: All tissue.
        usable: Tissue without what quality leaves out.
        tumour: Usable tissue in invasive tumour.
    """

    tissue: NonNegativeFloat
    usable: NonNegativeFloat
    tumour: NonNegativeFloat


@dataclass(frozen=True, config=_STRICT)
class MaskScale:
    """Scale of the masks: level-0 px and µm per mask px."""

    px_l0: PositiveFloat
    px_mpp: PositiveFloat


@dataclass(frozen=True, config=_STRICT)
class Counts:
    """Points and tiles at each step; the tiles' are 0 where none were cut.

    Attributes:
        points: Samples of the tumour map.
        tiles_without_overlap: Tiles that the tumour holds side by side.
        tiles: Tiles that were cut.
        unreadable: Of these, those that cannot be decoded.
        scored: The others.
        selected: Of these, those that decided.
    """

    points: NonNegativeInt
    tiles_without_overlap: NonNegativeInt = 0
    tiles: NonNegativeInt = 0
    unreadable: NonNegativeInt = 0
    scored: NonNegativeInt = 0
    selected: NonNegativeInt = 0


@dataclass(frozen=True, config=_STRICT)
class TileFacts:
    """The tiles.

    Attributes:
        side_px: Side in px of the network.
        mpp: µm per px of the network.
        stride_px: Distance of neighbours in px of the network.
        per_score: Tiles of each predicted IHC score.
    """

    side_px: PositiveInt
    mpp: PositiveFloat
    stride_px: PositiveInt
    per_score: dict[str, NonNegativeInt]


@dataclass(frozen=True, config=_STRICT)
class NetworkNote:
    """A network that took part.

    Attributes:
        name: Its name.
        trained: False for weights drawn from a seed.
        seed: Of untrained weights.
        sha256: Of each of its files.
    """

    name: str
    trained: bool
    seed: NonNegativeInt | None
    sha256: dict[str, str]

    @classmethod
    def of(cls, card: Card) -> Self:
        """The note of a card's network."""
        return cls(**card.summary)


@dataclass(frozen=True, config=_STRICT)
class OperatingPointNote:
    """The operating point that decided, see `rules.OperatingPoint`."""

    budget: float
    confidence: float
    n_positive: NonNegativeInt
    chosen_on: str
    patient_rule: PatientRule | None = None

    @classmethod
    def of(cls, point: OperatingPoint) -> Self:
        """The note of an operating point."""
        return cls(point.budget, point.confidence, point.n_positive, point.chosen_on, point.patient_rule)


@dataclass(frozen=True, config=_STRICT)
class TriageNote:
    """The triage arm of the slide and the triage that put it there, see `rules.Triage`."""

    arm: str
    rule_out_below: float
    rule_in_from: float
    miss_budget: float
    false_budget: float
    chosen_on: str
    patient_rule: PatientRule | None = None

    @classmethod
    def of(cls, triage: Triage, probability: float) -> Self:
        """The note of a triage and of the arm that it puts a probability in."""
        return cls(
            str(triage.arm(probability)),
            triage.rule_out_below,
            triage.rule_in_from,
            triage.miss_budget,
            triage.false_budget,
            triage.chosen_on,
            triage.patient_rule,
        )


@dataclass(frozen=True, config=_STRICT)
class StreamNote:
    """The threads of a stream of tiles, see `timing.StreamTimes`; seconds of all threads together.

    Attributes:
        tiles: Tiles that were read.
        wall: Seconds on the clock.
        available: Seconds that the threads had.
        reading: Decoding.
        waiting: For the disk, or for a core.
        applying: In the network.
        tiles_per_s: Tiles a second on the clock.
        limited_by: Kind of work that took most of the time.
    """

    tiles: NonNegativeInt
    wall: NonNegativeFloat
    available: NonNegativeFloat
    reading: NonNegativeFloat
    waiting: NonNegativeFloat
    applying: NonNegativeFloat
    tiles_per_s: NonNegativeFloat
    limited_by: str

    @classmethod
    def of(cls, times: StreamTimes) -> Self:
        """The note of a stream."""
        seconds = {name: round(value, 3) for name, value in asdict(times).items()}
        return cls(**seconds, tiles_per_s=round(times.rate, 1), limited_by=times.limit)

    @property
    def times(self) -> StreamTimes:
        """The times of the stream."""
        return StreamTimes(self.tiles, self.wall, self.available, self.reading, self.waiting, self.applying)


@dataclass(frozen=True, config=_STRICT)
class TimingNote:
    """Time of a slide by stage, and of the threads in each stream of tiles.

    Attributes:
        stages_s: Seconds of each stage.
        streams: The streams of tiles, by stage.
    """

    stages_s: dict[str, NonNegativeFloat] = field(default_factory=dict)
    streams: dict[str, StreamNote] = field(default_factory=dict)

    @classmethod
    def of(cls, watch: Watch) -> Self:
        """The note of a watch."""
        return cls(
            {name: round(seconds, 3) for name, seconds in watch.stages.items()},
            {name: StreamNote.of(times) for name, times in watch.streams.items()},
        )


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class Her2Finding:
    """HER2 status of a slide with all that it rests on.

    Attributes:
        status: Positive where the probability reaches the threshold.
        probability: Of HER2-positive.
        threshold: Of the settings, or the one that is kept with the weights.
        calibrated_probability: The probability corrected by the stored calibration; None without one.
        calibrated_threshold: The threshold on the same scale; None without one.
        operating_point: The stored operating point; None without one.
        triage: By the stored triage; None without one.
        tile_score: IHC score in the middle of the selected tiles (their lower median).
        warnings: Cautions for the reader.
        tiles: Their geometry and scores.
        weights: The networks.
    """

    status: Her2Status
    probability: float
    threshold: float
    calibrated_probability: float | None = None
    calibrated_threshold: float | None = None
    operating_point: OperatingPointNote | None = None
    triage: TriageNote | None = None
    tile_score: str
    warnings: tuple[str, ...]
    tiles: TileFacts
    weights: tuple[NetworkNote, ...]


@dataclass(frozen=True, config=_STRICT, kw_only=True)
class SlideResult:
    """A slide's result, of `predict` or of `segment`.

    Attributes:
        slide_id: Its name.
        path: Its file.
        her2: Its HER2 status; None where no tiles were scored.
        likeness: To the training slides of the weights; None where these do not say.
        notices: Said with every output of these weights.
        slide: The slide as it was opened.
        quality: Shares of spoilt tissue.
        colour: Of the usable tissue.
        texture: Of the usable tissue, as the tumour network's last features see it; empty where it gives none.
        area_mm2: Of tissue and tumour.
        counts: Of points and tiles.
        mask: Scale of the masks.
        annotations: Use of each class of its annotation file: "tumour", "cut out" or "not used"; empty without one.
        annotation_warnings: Shapes of that file that were skipped, and other cautions.
        preset: Of the settings.
        config: The settings.
        run_digest: SHA-256 of the run's configuration.
        inputs: The files it was made of.
        seconds: Time it took, without writing.
        timing: The same by stage.
        files: Name and size in bytes of each file of its evidence; none in results of before they were noted.
        version: Of he2her2.
        use: Intended use.
        format: Of this form.
    """

    slide_id: str
    path: str
    her2: Her2Finding | None
    likeness: Likeness | None = None
    notices: tuple[str, ...] = ()
    slide: SlideFacts
    quality: QualityFindings
    colour: ColourStatistics
    texture: Annotated[tuple[float, ...], Len(0, 4096)] = ()
    area_mm2: Areas
    counts: Counts
    mask: MaskScale
    annotations: dict[str, str] = field(default_factory=dict)
    annotation_warnings: tuple[str, ...] = ()
    preset: str
    config: Config
    run_digest: str = ""
    inputs: SlideInputs = SlideInputs("")
    seconds: NonNegativeFloat = 0.0
    timing: TimingNote = TimingNote()
    files: dict[str, NonNegativeInt] = field(default_factory=dict)
    version: str
    use: str
    format: Literal[1] = 1

    @property
    def made_of(self) -> MadeOf:
        """All that it depends on."""
        return MadeOf(self.run_digest, self.inputs)

    @property
    def frame(self) -> RasterFrame:
        """Scale and place of its masks and maps."""
        return RasterFrame(self.mask.px_l0, self.mask.px_mpp, Point(*self.slide.bounds_origin))

    @property
    def domain_features(self) -> dict[str, float]:
        """Colour and tile scores, to be compared with those of training slides."""
        n_tiles = None if self.her2 is None else [*self.her2.tiles.per_score.values()]
        return slide_features(self.colour.mean, self.colour.spread, n_tiles)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Cautions for the reader."""
        return self.her2.warnings if self.her2 else self.annotation_warnings

    @property
    def headline(self) -> str:
        """The result in one line."""
        if self.her2 is None:
            return f"tumour {self.area_mm2.tumour:.2f} mm² in {self.area_mm2.usable:.2f} mm² of tissue"
        her2 = self.her2
        return f"HER2 {her2.status}, probability {her2.probability:.3f} (threshold {her2.threshold:g})"


_SEAL = "sha256"  # of all other keys
_RESULT, _HER2 = TypeAdapter(SlideResult), tuple(field.name for field in fields(Her2Finding))


def result_to_record(result: SlideResult) -> dict[str, Any]:
    """Plain values of a result for JSON: the HER2 finding's beside the slide's, and nothing that is None."""
    values = asdict(result)
    her2 = values.pop("her2") or {}
    values["inputs"] = _present(values["inputs"])
    first = {key: values.pop(key) for key in ("slide_id", "path")}
    record = first | _present(her2) | values
    return record | {_SEAL: digest(record)}


def result_of_record(values: object) -> SlideResult:
    """The result of plain values.

    Raises:
        ValueError: It is no result that this version reads; the message says why in one line.
    """
    if not isinstance(values, dict):
        raise ValueError("is no result: it has no keys")  # noqa: TRY004  whatever is wrong is one kind of error
    values = dict(values)
    if (seal := values.pop(_SEAL, None)) is not None and seal != digest(values):
        raise ValueError("was changed after it was written")
    her2 = {key: value for key, value in values.items() if key in _HER2}
    rest = {key: value for key, value in values.items() if key not in _HER2}
    try:
        return _RESULT.validate_python(rest | {"her2": her2 or None})
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()[:3])
        raise ValueError(f"is no result that this version reads ({'; '.join(problems)})") from None


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
