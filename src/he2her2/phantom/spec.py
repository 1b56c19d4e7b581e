"""Settings of one phantom slide."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from annotated_types import Ge, Gt, Le
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from he2her2.errors import PhantomError, plainly
from he2her2.labels import Her2Status, IhcScore
from he2her2.manifest import Stain

_Ish: TypeAlias = Literal["positive", "negative"]
SiteName: TypeAlias = Literal["her2sc-like", "brca-like"]
Share: TypeAlias = Annotated[float, Ge(0), Le(1)]
_SideLength: TypeAlias = Annotated[int, Ge(512), Le(200_000)]

_Density: TypeAlias = Annotated[float, Ge(0.01), Le(10)]
_Strength: TypeAlias = Annotated[float, Gt(0), Le(5)]

STRICT = ConfigDict(extra="forbid")

_MPPS = (0.23, 0.25, 0.5)
"""Resolutions of a phantom's scanner, µm/px."""


def _known_mpp(mpp: float) -> float:
    if mpp not in _MPPS:
        raise ValueError(f"must be one of {', '.join(map(str, _MPPS))} µm/px")
    return mpp


@dataclass(frozen=True, config=STRICT)
class HeStain:
    """H&E stain of a laboratory.

    Attributes:
        haematoxylin: Optical density in red, green and blue; its length does not matter.
        eosin: The same.
        strengths: Strength of both, relative to the average laboratory.
        vector_spread: Standard deviation between slides of each channel of both dyes, as vectors of length 1.
        strength_spread: Standard deviation of the log strength between slides.
    """

    haematoxylin: tuple[_Density, _Density, _Density]
    eosin: tuple[_Density, _Density, _Density]
    strengths: tuple[_Strength, _Strength] = (1.0, 1.0)
    vector_spread: Annotated[float, Ge(0), Le(0.3)] = 0.0
    strength_spread: Annotated[float, Ge(0), Le(0.7)] = 0.0


@dataclass(frozen=True, config=STRICT)
class PhantomSpec:
    """Settings of one phantom slide; the same settings give the same bytes.

    Attributes:
        seed: Seed of the patient's tissue; an H&E slide and its IHC twin share it.
        size_px: Width and height of level 0.
        mpp: µm per px of level 0: 0.23, 0.25 or 0.5.
        stain: H&E, or HER2 immunohistochemistry.
        ihc_score: True IHC score of the tumour.
        ish: Result of in situ hybridisation; required for 2+, not allowed otherwise.
        signal: Effect of HER2 on H&E morphology: 0 none, 1 strong.
        site: Laboratory and its scanner: colour, sharpness, defaults.
        staining: H&E stain in place of the site's: haematoxylin, eosin, strengths, vector_spread, strength_spread;
            None takes the site's.
        tissue_extent: Share of the slide that tissue covers; None takes the site's default.
        tumour_share: Share of the tissue that invasive tumour covers.
        foci: Number of separate tumour foci.
        heterogeneity: 0 spreads HER2 evenly over the tumour, 1 clusters it in clones.
        pen: Number of strokes of marker ink.
        blur: Share of the tissue that is out of focus.
        folds: Number of tissue folds.
        jpeg_quality: JPEG quality of the tiles; None takes the site's default.
    """

    seed: Annotated[int, Ge(0), Le(2**63 - 1)] = 0
    size_px: tuple[_SideLength, _SideLength] = (12_000, 12_000)
    mpp: Annotated[float, AfterValidator(_known_mpp)] = 0.25
    stain: Stain = "HE"
    ihc_score: IhcScore = IhcScore.ZERO
    ish: _Ish | None = None
    signal: Share = 0.5
    site: SiteName = "her2sc-like"
    staining: HeStain | None = None
    tissue_extent: Annotated[float, Gt(0), Le(0.9)] | None = None
    tumour_share: Annotated[float, Ge(0), Le(0.9)] = 0.45
    foci: Annotated[int, Ge(1), Le(20)] = 2
    heterogeneity: Share = 0.3
    pen: Annotated[int, Ge(0), Le(20)] = 0
    blur: Annotated[float, Ge(0), Le(0.8)] = 0.0
    folds: Annotated[int, Ge(0), Le(20)] = 0
    jpeg_quality: Annotated[int, Ge(20), Le(100)] | None = None

    @model_validator(mode="after")
    def _ish_belongs_to_2(self) -> Self:
        if (self.ihc_score == IhcScore.TWO) != (self.ish is not None):
            raise ValueError(f"an IHC score of {self.ihc_score.value} {'needs' if self.ish is None else 'has no'} ish")
        return self

    @property
    def her2_status(self) -> Her2Status:
        """True HER2 status of the patient (ASCO/CAP 2018)."""
        positive = self.ihc_score == IhcScore.THREE or self.ish == "positive"
        return Her2Status.POSITIVE if positive else Her2Status.NEGATIVE

    @property
    def size_um(self) -> tuple[float, float]:
        """Width and height in µm."""
        return self.size_px[0] * self.mpp, self.size_px[1] * self.mpp

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {key: str(value) if isinstance(value, IhcScore) else value for key, value in asdict(self).items()}


def make_spec(**settings: Any) -> PhantomSpec:  # noqa: ANN401  (values from a file or the command line)
    """Make a `PhantomSpec` from unchecked values.

    Raises:
        PhantomError: One line that names every wrong setting.
    """
    spec: PhantomSpec = validated(TypeAdapter(PhantomSpec), settings)
    return spec


def validated(adapter: "TypeAdapter[Any]", values: dict[str, Any], source: Path | None = None) -> Any:  # noqa: ANN401
    """Validate `values`.

    Raises:
        PhantomError: One line that names every wrong setting.
    """
    try:
        return adapter.validate_python(values)
    except ValidationError as error:
        problems = "; ".join(_problem(e["loc"], e["type"], e["msg"]) for e in error.errors())
        raise PhantomError(f"{source}: {problems}" if source else f"phantom: {problems}") from None


def _problem(where: tuple[int | str, ...], kind: str, message: str) -> str:
    name = ".".join(str(part) for part in where)
    if kind == "unexpected_keyword_argument":
        return f"{name} is not a setting of phantoms"
    if kind == "tuple_type":
        return f"{name}: write it as a list, such as [8192, 8192]"
    text = plainly(message)
    text = text[0].lower() + text[1:]
    return f"{name}: {text}" if name else text
