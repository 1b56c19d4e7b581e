"""Every setting of the method, once; presets are such values under a name.

`paper` follows the text of Oliveira et al. (2020), `released-code` follows the authors' code where it differs, and
`default` is what we recommend.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, field, replace
from typing import Annotated, Any, Literal, Self, TypeAlias

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BeforeValidator, ConfigDict, PositiveFloat, model_validator
from pydantic.dataclasses import dataclass

from he2her2.rules import Threshold

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_Share = Annotated[float, Gt(0), Le(1)]
_Seed = Annotated[int, Ge(0), Lt(1 << 63)]
_Tiles = Annotated[int, Gt(0), Le(10_000_000)]

OR_NONE = BeforeValidator(lambda value: None if value == "none" else value)
"""Of a setting that may have no value: TOML, which has no word for it, says "none"."""

PAPER_THRESHOLD = 0.24
"""Probability from which the tumour map is tumour: the released code's, as the paper states none."""

Spacing: TypeAlias = Literal["even", "released"]
"""Rule by which M tiles are chosen among the best."""


@dataclass(frozen=True, config=_STRICT)
class Tissue:
    """Tissue against glass (paper, 3.1).

    Attributes:
        blur_px: Side of the Gaussian window that smooths the channel first; 1 is none.
        weak_margin: For weak IHC (0/1+): keep V < max(V) - this, of 255.
        min_saturation: Otsu's threshold never falls below this, of 255; 0 is Otsu alone. It keeps blank glass blank.
        max_saturation: Nor does it rise above this; 255 is Otsu alone. It keeps pale tissue where there is no glass.
    """

    blur_px: Annotated[int, Ge(1), Le(63)] = 15
    weak_margin: Annotated[int, Ge(0), Lt(255)] = 5
    min_saturation: Annotated[int, Ge(0), Lt(255)] = 12
    max_saturation: Annotated[int, Gt(0), Le(255)] = 30

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_saturation > self.max_saturation:
            raise ValueError(f"min_saturation {self.min_saturation} is above max_saturation {self.max_saturation}")
        return self


@dataclass(frozen=True, config=_STRICT)
class Quality:
    """Pen ink and blur: always measured and reported, left out of the tissue when `apply` is on.

    Attributes:
        apply: Leave them out.
        blur_mpp: µm per pixel at which blur is measured.
        min_sharpness: Tissue is blurred below this: 0.25 is perfectly smooth, 0.36 and more is sharp tissue, and a
            Gaussian blur with a sigma of 1.5 µm falls below 0.30.
    """

    apply: bool = True
    blur_mpp: Annotated[float, Ge(0.25), Le(2)] = 1.0
    min_sharpness: Annotated[float, Gt(0), Lt(1)] = 0.30


@dataclass(frozen=True, config=_STRICT)
class Adaptive:
    """HASHI's adaptive sampling of the tumour map (paper, 3.1.2; Cruz-Roa et al., 2018).

    Attributes:
        iterations: Rounds of sampling.
        points: Points scored in each round.
        candidates: Halton points drawn from the second round on, of which the steepest `points` are kept.
        threshold: The tumour mask is where the map is at least this; none is the threshold that the network's card
            states, or 0.24, the released code's, where it states none.
        coarse: The map is interpolated on a grid this many times coarser than the mask, and enlarged at the end; on a
            small slide, where samples lie closer than that, on a grid as fine as they lie on average. At 1, as in
            `paper` and `released-code`, every pixel is interpolated: some seconds more on a large slide; at 8, 3 % of
            the tumour's pixels differ from that.
        surface: Interpolation between samples: the released code's cubic one, or linear, which does not overshoot where
            scores are noisy.
        corners: Begin with the mask's four corners, so that the map reaches its border, and score what lies there by a
            window moved into the slide. In the released code the map ends with the outermost samples, which cuts tumour
            off at the border of a tight scan, and windows reach beyond it, where all is white.
        stop_change: Stop when a round changes the map by less than this on average; 0 always runs every round.
        anchor: A patch is centred on the centre of the mask pixel that it is scored for, or on its top left corner, as
            in the released code: half a mask pixel apart.
        least_tissue: On a scan of which tissue covers a smaller share (biopsies, cores, arrays), rounds have up to ten
            times as many points and candidates, so that as many lie in tissue as on a scan with this share of it;
            windows that show none are 0 then, unseen. Neither the paper nor the released code does so; 0 never does.
        half_turn: Each patch is also seen turned by 180°, and its logits are the mean of both (test-time augmentation):
            a steadier answer, for a third more of the stage's time. Neither the paper nor the released code does so.
        seed: Of the Halton sequence's scrambling.
    """

    iterations: Annotated[int, Gt(0), Le(1000)] = 20
    points: Annotated[int, Ge(4), Le(100_000)] = 100
    candidates: Annotated[int, Ge(4), Le(1_000_000)] = 300
    threshold: Annotated[Threshold | None, OR_NONE] = None
    coarse: Annotated[int, Gt(0), Le(64)] = 8
    surface: Literal["linear", "cubic"] = "linear"
    corners: bool = True
    stop_change: Annotated[float, Ge(0), Lt(1)] = 0.0
    anchor: Literal["centre", "corner"] = "centre"
    least_tissue: Annotated[float, Ge(0), Lt(1)] = 0.2
    half_turn: bool = True
    seed: _Seed = 0

    @model_validator(mode="after")
    def _enough_candidates(self) -> Self:
        if self.candidates < self.points:
            raise ValueError(f"candidates {self.candidates} are fewer than points {self.points}")
        return self


@dataclass(frozen=True, config=_STRICT)
class Tiling:
    """Cutting of the tumour into tiles (paper, 3.1 and 3.3).

    Attributes:
        mask_downsample: Tile pixels per mask pixel.
        raw_pixels: Take level-0 pixels whatever the scanner, as the released code does.
        min_tiles: Overlap tiles until there are so many; none means as many as selection needs (M / 0.15).
    """

    mask_downsample: Annotated[int, Gt(0), Le(1024)] = 32
    raw_pixels: bool = False
    min_tiles: Annotated[_Tiles | None, OR_NONE] = None

    def least_tiles(self, selection: "Selection | None") -> int:
        """Tiles to cut at least: without selection a tumour of any size will do."""
        if selection is None:
            return self.min_tiles or 1
        return max(self.min_tiles or selection.min_tiles, selection.n_tiles)


@dataclass(frozen=True, config=_STRICT)
class Scoring:
    """Score of a tile from its four logits (paper, eq. 1).

    Attributes:
        beta: Sharpness of soft-argmax. At 1 a score is the mean IHC score under the tile CNN's probabilities: no two
            tiles tie, and every tile's gradient reaches the CNN. At the paper's 1000 it is the most probable class:
            tiles tie and the first in raster order are selected; the CNN gets a gradient from all tiles, few or none,
            by the size of its logits (experiments/results/gradient_at_beta.md and paper_sized_small.md).
    """

    beta: PositiveFloat = 1.0


@dataclass(frozen=True, config=_STRICT)
class Selection:
    """Selection of the tiles that decide (paper, 3.3).

    Attributes:
        top_fraction: Share of a slide's tiles, highest scores first, that is kept.
        n_tiles: Tiles that the aggregator sees, spaced evenly among these (M in the paper).
        spacing: Even ranks, rounded to the nearest; or the released code's, which between the first and the last rounds
            down and ends one step early.
    """

    top_fraction: _Share = 0.15
    n_tiles: _Tiles = 300
    spacing: Spacing = "even"

    @property
    def min_tiles(self) -> int:
        """The least number of tiles of which the top fraction holds `n_tiles`: M / 0.15 = 2 000."""
        return math.ceil(self.n_tiles / self.top_fraction - 1e-9)


@dataclass(frozen=True, config=_STRICT)
class Networks:
    """Networks by name.

    Attributes:
        tumour_cnn: Finds invasive tumour.
        tile_cnn: Scores tiles.
        aggregator: Decides on the slide.
    """

    tumour_cnn: str = "lite0-tumour-cnn"
    tile_cnn: str = "strided-tile-cnn"
    aggregator: str = "mlp"


@dataclass(frozen=True, config=_STRICT)
class Runtime:
    """Resources of a run; they never change a result, but for mixed precision and some slides' reader.

    Attributes:
        backend: Reader of slides. Where a level is no whole share of level 0, OpenSlide blends its pixels.
        threads: Workers that read tiles and score them; 0 is one for every core.
        batch_size: Tiles that a worker reads and scores at a time.
        device: Where the CNNs run; `auto` is a GPU where there is one and torch is installed, else the CPU.
        precision: `mixed` lets a GPU compute in 16 bits where that is safe: faster, logits differ in the third digit.
        encoder: Feature encoder of an aggregator on features: folder or name, where it does not lie with the weights.
    """

    backend: Literal["auto", "tiff", "openslide"] = "auto"
    threads: Annotated[int, Ge(0), Le(1024)] = 0
    batch_size: Annotated[int, Gt(0), Le(4096)] = 32
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["full", "mixed"] = "full"
    encoder: str = ""


@dataclass(frozen=True, config=_STRICT)
class Config:
    """All settings of one run.

    Attributes:
        normalisation: Colours that tumour CNN and tile CNN see: the slide's own, or its tissue's brought to a reference
            laboratory's by mean and spread (Reinhard) or by its two dyes (Macenko). Of predictions; networks that were
            trained under strong colour augmentation do not need it.
        threshold: A slide is called positive from this probability on; none is what is kept with the weights, or 0.5.
        stored_rules: What was chosen on patients and kept with the weights (operating point, triage, calibration, the
            card's threshold) decides, where there is any, in place of `threshold`.
    """

    preset: str = "default"
    networks: Networks = field(default_factory=Networks)
    tissue: Tissue = field(default_factory=Tissue)
    quality: Quality = field(default_factory=Quality)
    adaptive: Adaptive = field(default_factory=Adaptive)
    tiling: Tiling = field(default_factory=Tiling)
    scoring: Scoring = field(default_factory=Scoring)
    selection: Selection = field(default_factory=Selection)
    normalisation: Literal["none", "reinhard", "macenko"] = "none"
    threshold: Annotated[Threshold | None, OR_NONE] = None
    stored_rules: bool = True
    runtime: Runtime = field(default_factory=Runtime)

    @property
    def min_tiles(self) -> int:
        """Tiles to cut at least."""
        return self.tiling.least_tiles(self.selection)

    @property
    def positive_from(self) -> float:
        """Probability from which a slide is positive where nothing that is kept with weights decides."""
        return 0.5 if self.threshold is None else self.threshold

    def method(self) -> dict[str, Any]:
        """Every setting that can change a result, as plain data; later ones only where they differ from what was."""
        settings = asdict(self)
        del settings["runtime"]
        for group, key, before in _LATER_SETTINGS:
            if settings[group][key] == before:
                del settings[group][key]
        if self.normalisation == "none":
            del settings["normalisation"]
        settings["threshold"] = self.positive_from
        return settings

    def digest(self) -> str:
        """SHA-256 of every setting that can change a result."""
        settings = self.method()
        of_pixels = {"precision": (self.runtime.precision, "full"), "backend": (self.runtime.backend, "auto")}
        settings |= {name: chosen for name, (chosen, usual) in of_pixels.items() if chosen != usual}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


_LATER_SETTINGS = (
    ("adaptive", "anchor", "centre"),
    ("adaptive", "least_tissue", 0.0),
    ("adaptive", "half_turn", False),
    ("selection", "spacing", "even"),
)
"""Settings that came after the first runs were kept, which are no other runs where these are as they were then."""


def with_later_settings(kept: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a run has kept, and those that came later as they were then.

    Example:
        >>> with_later_settings({"preset": "default", "adaptive": {"anchor": "corner"}})["adaptive"]
        {'anchor': 'corner', 'least_tissue': 0.0, 'half_turn': False}
    """
    settings = dict(kept)
    for group, key, before in _LATER_SETTINGS:
        if isinstance(settings.get(group), Mapping):
            settings[group] = {**settings[group]}
            settings[group].setdefault(key, before)
    return settings


_PAPER = Config(
    preset="paper",
    networks=Networks("paper-tumour-cnn", "paper-tile-cnn", "mlp"),
    tissue=Tissue(blur_px=1, weak_margin=0, min_saturation=0, max_saturation=255),
    quality=Quality(apply=False),
    adaptive=Adaptive(
        threshold=PAPER_THRESHOLD, surface="cubic", corners=False, coarse=1, least_tissue=0.0, half_turn=False
    ),
    scoring=Scoring(beta=1000.0),
)
_RELEASED_CODE = replace(
    _PAPER,
    preset="released-code",
    networks=Networks("released-tumour-cnn", "released-tile-cnn", "mlp"),
    tissue=Tissue(blur_px=15, weak_margin=5, min_saturation=0, max_saturation=255),
    adaptive=replace(_PAPER.adaptive, anchor="corner"),
    tiling=Tiling(raw_pixels=True, min_tiles=4500),
    selection=Selection(spacing="released"),
)
PRESETS = {config.preset: config for config in (Config(), _PAPER, _RELEASED_CODE)}
