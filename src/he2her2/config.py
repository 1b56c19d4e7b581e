"""Every setting of the method, once; presets are such values under a name.

`paper` follows the text of Oliveira et al. (2020), `released-code` follows the authors' code where it differs, and
`default` is what we recommend. A TOML file or `--set key=value` overrides single values.
"""

import hashlib
import json
import math
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from annotated_types import Ge, Gt, Le, Lt
from pydantic import (
    ConfigDict,
    PositiveFloat,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass

from he2her2.errors import ConfigError, quoted

T = TypeVar("T")

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_Share = Annotated[float, Gt(0), Le(1)]
_Seed = Annotated[int, Ge(0), Lt(1 << 63)]
_Tiles = Annotated[int, Gt(0), Le(10_000_000)]

PAPER_THRESHOLD = 0.24
"""Probability from which the paper's tumour map is tumour (section 3.1.2)."""

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
            states, or 0.24, the paper's, where it states none.
        coarse: The map is interpolated on a grid this many times coarser than the mask, and enlarged at the end. At 1,
            as in `paper` and `released-code`, every pixel is interpolated: some seconds more on a large slide; at 8,
            3 % of the tumour's pixels differ from that.
        surface: Interpolation between samples: the released code's cubic one, or linear, which does not overshoot where
            scores are noisy.
        corners: Begin with the mask's four corners, so that the map reaches its border, and score what lies there by a
            window moved into the slide. In the released code the map ends with the outermost samples, which cuts tumour
            off at the border of a tight scan, and windows reach beyond it, where all is white.
        stop_change: Stop when a round changes the map by less than this on average; 0 always runs every round.
        anchor: A patch is centred on the centre of the mask pixel that it is scored for, or on its top left corner, as
            in the released code: half a mask pixel apart.
        seed: Of the Halton sequence's scrambling.
    """

    iterations: Annotated[int, Gt(0), Le(1000)] = 20
    points: Annotated[int, Ge(4), Le(100_000)] = 100
    candidates: Annotated[int, Ge(4), Le(1_000_000)] = 300
    threshold: _Share | None = None
    coarse: Annotated[int, Gt(0), Le(64)] = 8
    surface: Literal["linear", "cubic"] = "linear"
    corners: bool = True
    stop_change: Annotated[float, Ge(0), Lt(1)] = 0.0
    anchor: Literal["centre", "corner"] = "centre"
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
    min_tiles: _Tiles | None = None


@dataclass(frozen=True, config=_STRICT)
class Scoring:
    """Score of a tile from its four logits (paper, eq. 1).

    Attributes:
        beta: Sharpness of soft-argmax. At 1 a score is the mean IHC score under the tile CNN's probabilities: no two
            tiles tie, and every tile's gradient reaches the CNN. At the paper's 1000 it is the most probable class:
            tiles tie and the first in raster order are selected; a random CNN gets no gradient, a pre-trained one gets
            it from few tiles, and it is not small (experiments/results/gradient_at_beta.md).
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
    """Resources of a run; they never change a result, but for mixed precision.

    Attributes:
        backend: Reader of slides.
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
        threshold: A slide is called positive from this probability on.
        stored_rules: What was chosen on validation patients and kept beside the weights (operating point, triage,
            calibration) decides, where there is any, in place of `threshold`.
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
    threshold: _Share = 0.5
    stored_rules: bool = True
    runtime: Runtime = field(default_factory=Runtime)

    @property
    def min_tiles(self) -> int:
        """Tiles to cut at least."""
        return max(self.tiling.min_tiles or self.selection.min_tiles, self.selection.n_tiles)

    def method(self) -> dict[str, Any]:
        """Every setting that can change a result, as plain data; later ones only where they differ from the usual."""
        settings = asdict(self)
        del settings["runtime"]
        for group, key, usual in _LATER_SETTINGS:
            if settings[group][key] == usual:
                del settings[group][key]
        if self.normalisation == "none":
            del settings["normalisation"]
        return settings

    def digest(self) -> str:
        """SHA-256 of every setting that can change a result."""
        settings = self.method()
        if self.runtime.precision != "full":
            settings["precision"] = self.runtime.precision
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


_LATER_SETTINGS = (("adaptive", "anchor", "centre"), ("selection", "spacing", "even"))
"""Settings that came after the first runs were kept, which are no other runs where these have their usual value."""

_PAPER = Config(
    preset="paper",
    networks=Networks("paper-tumour-cnn", "paper-tile-cnn", "mlp"),
    tissue=Tissue(blur_px=1, weak_margin=0, min_saturation=0, max_saturation=255),
    quality=Quality(apply=False),
    adaptive=Adaptive(threshold=PAPER_THRESHOLD, surface="cubic", corners=False, coarse=1),
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


def load_config(preset: str = "default", file: Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """The settings of a preset, overridden by a TOML file, overridden by `key=value` strings.

    Args:
        preset: A name of `PRESETS`; a file's `preset` key outranks it.
        file: TOML with any part of `Config`; its table `training`, if any, is what `he2her2 train` reads.
        overrides: Such as "selection.n_tiles=100"; the value is read as TOML, or as text where it is none.

    Raises:
        ConfigError: An unknown preset or key, or a value of the wrong type or range; all problems in one line.
    """
    wanted = gather(file, ())
    wanted.pop("training", None)
    for override in overrides:
        _put(wanted, override)
    name = take_preset(wanted, preset, PRESETS, file)
    return settle(PRESETS[name], wanted, file)


def gather(file: Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """Settings in a TOML file and in `key=value` strings, nested and not checked yet.

    Raises:
        ConfigError: The file cannot be read, or a string is no `key=value`.
    """
    wanted = _read_toml(file) if file else {}
    for override in overrides:
        _put(wanted, override)
    return wanted


def chosen_keys(file: Path | None, overrides: Sequence[str]) -> frozenset[str]:
    """Keys that a TOML file or `key=value` strings set, such as "selection.n_tiles".

    Raises:
        ConfigError: As `gather`.

    Example:
        >>> sorted(chosen_keys(None, ["selection.n_tiles=30", "threshold=0.4"]))
        ['selection.n_tiles', 'threshold']
    """
    return frozenset(_leaves(gather(file, overrides)))


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def take_preset(wanted: dict[str, Any], preset: str, presets: Collection[str], file: Path | None = None) -> str:
    """Take the preset's name out of what is wanted, or else the one given.

    Raises:
        ConfigError: It is not one of `presets`.
    """
    name = wanted.pop("preset", preset)
    if not isinstance(name, str) or name not in presets:
        raise ConfigError(f"{_source(file)}unknown preset {quoted(str(name))}; choose one of {', '.join(presets)}")
    return name


def settle(base: T, wanted: Mapping[str, Any], file: Path | None = None, prefix: str = "") -> T:
    """Settings (a pydantic dataclass) with every value that `wanted` has replaced, and all of them checked.

    Args:
        base: What is not wanted otherwise.
        wanted: Nested values by key.
        file: Where they come from, for messages.
        prefix: Of the keys in messages, such as "training.".

    Raises:
        ConfigError: An unknown key, or a value of the wrong type or range; all problems in one line.
    """
    settings = asdict(base)  # type: ignore[call-overload]  # every T here is a dataclass
    if no_numbers := list(_truth_for_number(settings, wanted)):
        problems = "; ".join(f"{prefix}{key}: is a number, not true or false" for key in no_numbers)
        raise ConfigError(f"{_source(file)}{problems}")
    merged = _merge(settings, wanted)
    try:
        return TypeAdapter(type(base)).validate_python(merged)
    except ValidationError as error:
        problems = "; ".join(
            f"{prefix}{'.'.join(map(str, e['loc']))}: {_in_words(e['type'], e['msg'])}" for e in error.errors()
        )
        raise ConfigError(f"{_source(file)}{problems}") from None


def _truth_for_number(base: Mapping[str, Any], over: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Keys of numbers for which true or false is wanted, which Python would take for 1 or 0."""
    for key, value in over.items():
        below = base.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            yield from _truth_for_number(below, value, f"{prefix}{key}.")
        elif isinstance(value, bool) and key in base and not isinstance(below, bool | str):
            yield f"{prefix}{key}"


def _source(file: Path | None) -> str:
    return f"{file}: " if file else ""


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give a TOML file") from None
    except ValueError as error:  # of TOML, of UTF-8, or of a number with too many digits
        raise ConfigError(f"{file}: is not TOML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{file}: is not TOML of ours: it is nested too deeply") from None


def _put(settings: dict[str, Any], override: str) -> None:
    """Put "a.b=value" into nested `settings`."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{override}': write it as key=value, such as selection.n_tiles=300")
    if "\n" in override or "\r" in override:
        raise ConfigError(f"{override!r}: holds several lines; give --set once for each setting")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    *path, last = key.strip().split(".")
    for part in path:
        settings = settings.setdefault(part, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"{key}: '{part}' is a value, not a group of settings")
    settings[last] = value


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with every leaf that `over` has replaced."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _in_words(kind: str, message: str) -> str:
    return "is no setting; `he2her2 config` lists them all" if kind == "unexpected_keyword_argument" else message


def to_toml(config: Config) -> str:
    """Every setting as TOML that `load_config` reads back; those without a value are comments.

    Example:
        >>> print(to_toml(Config()).splitlines()[0])
        preset = "default"
    """
    settings = asdict(config)
    groups = {key: value for key, value in settings.items() if isinstance(value, dict)}
    lines = [_toml_line(key, value) for key, value in settings.items() if key not in groups]
    for name, group in groups.items():
        lines += ["", f"[{name}]", *(_toml_line(key, value) for key, value in group.items())]
    return "\n".join(lines) + "\n"


def _toml_line(key: str, value: object) -> str:
    return f"# {key} is not set" if value is None else f"{key} = {json.dumps(value)}"
