"""A slide's result in numbers and words, and its JSON form: `prediction.json` or `segmentation.json`.

Prediction writes these values; evaluation, reports, tables and the command line read them. Nobody else knows the keys.
"""

from dataclasses import asdict, field, fields
from typing import Annotated, Any, Literal

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
from he2her2.files import digest, problems_in_words
from he2her2.geometry import Point
from he2her2.labels import Her2Status
from he2her2.results.made_of import MadeOf, SlideInputs
from he2her2.results.notes import NetworkNote, OperatingPointNote, ProvenanceNote, TimingNote, TriageNote
from he2her2.results.rasters import RasterFrame
from he2her2.rules import Arm
from he2her2.units import probability_text

RESEARCH_USE_NOTICE = "research use only: not validated for diagnosis"

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


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

    @property
    def limits(self) -> tuple[float, ...]:
        """The threshold, and the limits of the triage: a reader must see on which side of each the probability lies."""
        return (self.threshold, *((self.triage.rule_out_below, self.triage.rule_in_from) if self.triage else ()))

    @property
    def call(self) -> str:
        """The status, or that the triage refers to IHC: then nothing else is called."""
        return Arm.REFER if self.triage and self.triage.arm == Arm.REFER else self.status

    @property
    def headline(self) -> str:
        """Call, probability and threshold; where the triage refers to IHC, nothing else is called."""
        arm = self.triage.arm if self.triage else ""
        call = arm if self.call == arm else f"HER2 {self.status}{', ' * bool(arm)}{arm}"
        return f"{call}, probability {probability_text(self.probability, *self.limits)} (threshold {self.threshold:g})"


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
        provenance: When it was made, by what and where; None in results of before it was noted.
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
    provenance: ProvenanceNote | None = None
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
            return f"tumour {self.area_mm2.tumour:.2f} mm² in {self.area_mm2.usable:.2f} mm² of usable tissue"
        return self.her2.headline


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
        raise ValueError(f"is no result that this version reads ({problems_in_words(error)})") from None


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
