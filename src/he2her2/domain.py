"""The domain of weights: colour, tile scores and texture of their training slides, and a slide's distance from them.

A slide far from all training slides is called unlike them before any status is read: nothing is known of the weights
there. Colour and scores have a Mahalanobis distance. Texture is what the tumour network's last features make of the
tissue; its distance is what is left of a slide beyond the directions in which training slides differ from each other.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import numpy as np
import scipy
from annotated_types import Ge, Gt, Le, Len, Lt
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from he2her2.files import problems_in_words

DOMAIN_FILE = "domain.json"
DOMAIN_FEATURES = (
    "red", "green", "blue", "red_spread", "green_spread", "blue_spread", "score_mean", "score_spread",
)  # fmt: skip
"""Mean and standard deviation of each channel over the usable tissue, and of the tiles' IHC scores."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
LEAST_SLIDES = 3 * len(DOMAIN_FEATURES)
"""Fewest slides that say what is like them."""
_SPREAD_FLOOR = 0.01  # of a feature's range: training slides that are all alike must not make every other slide unlike
_RANGES = np.array([255.0] * 6 + [3.0] * 2)
_SHOWN = 2
_MOST_AXES = 8
_SLIDES_AN_AXIS = 4
_TEXTURE_MARGIN = 1.5
_TEXTURE_WORDS = "tissue that looks otherwise to the tumour network"


@dataclass(frozen=True, config=_STRICT)
class Likeness:
    """Distance of a slide from the training slides.

    Attributes:
        distance: Mahalanobis distance.
        limit: Distance from which a slide counts as unlike them.
        words: Features that differ most, such as "blue 154 where they have 183 ± 8"; empty within the limit.
    """

    distance: float
    limit: float
    words: str

    @property
    def warning(self) -> str:
        """Sentence for a slide beyond the limit."""
        return (
            f"unlike the training slides of these weights ({self.words}; distance {self.distance:.1f}, limit "
            f"{self.limit:.1f}): nothing is known of how they do on such slides"
        )

    @property
    def unlike(self) -> bool:
        """True beyond the limit."""
        return self.distance > self.limit


@dataclass(frozen=True, config=_STRICT)
class Texture:
    """Texture of training slides.

    Attributes:
        mean: (d,) of the slides.
        axes: (k, d) directions in which they differ most from each other, of length 1.
        limit: Distance beyond which a slide is unlike them: half as far again as the farthest of them lies from the
            others.
    """

    mean: Annotated[tuple[float, ...], Len(1, 4096)]
    axes: Annotated[tuple[tuple[float, ...], ...], Len(1, _MOST_AXES)]
    limit: Annotated[float, Gt(0)]

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        if {len(axis) for axis in self.axes} != {len(self.mean)}:
            raise ValueError(f"texture: axes must be of {len(self.mean)} features")

    def likeness(self, texture: Sequence[float]) -> "Likeness | None":
        """Distance of a slide's texture; None where it is of another network."""
        if len(texture) != len(self.mean):
            return None
        distance = _beyond(np.asarray(self.mean), np.asarray(self.axes), np.asarray(texture))
        return Likeness(distance, self.limit, _TEXTURE_WORDS if distance > self.limit else "")


@dataclass(frozen=True, config=_STRICT)
class Domain:
    """Training slides of weights in numbers.

    Attributes:
        slides: Number of slides.
        features: Names, of `DOMAIN_FEATURES`.
        mean: Of each feature.
        covariance: Of the features.
        level: Share of slides like the training slides that are within the limit.
        described: The slides, in words.
        weights: By role, the SHA-256 of the networks whose tile scores these are.
        texture: Of the slides; None where it was not measured.
    """

    slides: Annotated[int, Ge(LEAST_SLIDES), Le(10**9)]
    features: tuple[str, ...]
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    level: Annotated[float, Gt(0), Lt(1)]
    described: str
    weights: Mapping[str, str]
    texture: Texture | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together."""
        p = len(self.features)
        if not set(self.features) <= set(DOMAIN_FEATURES) or len(set(self.features)) != p or not p:
            raise ValueError(f"features must be different ones of {', '.join(DOMAIN_FEATURES)}")
        if len(self.mean) != p or {len(row) for row in self.covariance} != {p} or len(self.covariance) != p:
            raise ValueError(f"mean and covariance must be of {p} features")
        covariance = np.asarray(self.covariance)
        if not (covariance == covariance.T).all() or not np.linalg.eigvalsh(covariance).min() > 0:
            raise ValueError("covariance must be symmetric and positive definite")

    def likeness(self, values: Mapping[str, float], texture: Sequence[float] | None = None) -> Likeness | None:
        """Distance of a slide by what is known of it, of the kind that is farthest beyond its limit; None for nothing.

        Args:
            values: Feature to its value.
            texture: (d,) as the tumour network sees its tissue.
        """
        by_texture = None if self.texture is None or texture is None else self.texture.likeness(texture)
        found = [likeness for likeness in (self._by_colour(values), by_texture) if likeness is not None]
        return max(found, key=lambda likeness: likeness.distance / likeness.limit, default=None)

    def _by_colour(self, values: Mapping[str, float]) -> Likeness | None:
        """Distance by those of the features that are known; None where none is.

        The limit is that of a new observation of a normal population whose mean and covariance were estimated from
        `slides` of them (Hotelling's T squared).
        """
        known = [k for k, name in enumerate(self.features) if np.isfinite(values.get(name, np.nan))]
        if not known:
            return None
        mean, covariance = np.asarray(self.mean)[known], np.asarray(self.covariance)[np.ix_(known, known)]
        off = np.array([values[self.features[k]] for k in known]) - mean
        distance = float(np.sqrt(off @ np.linalg.solve(covariance, off)))
        n, p = self.slides, len(known)
        limit = float(np.sqrt(p * (n**2 - 1) / (n * (n - p)) * scipy.special.fdtri(p, n - p, self.level)))
        words = self._in_words(values, known) if distance > limit else ""
        return Likeness(distance, limit, words)

    def _in_words(self, values: Mapping[str, float], known: Sequence[int]) -> str:
        """The features that are most standard deviations away."""
        spread = np.sqrt(np.diag(np.asarray(self.covariance)))
        off = {k: abs(values[self.features[k]] - self.mean[k]) / spread[k] for k in known}
        furthest = sorted(known, key=lambda k: -off[k])[:_SHOWN]
        parts = (
            f"{self.features[k].replace('_', ' ')} {values[self.features[k]]:.3g} where they have "
            f"{self.mean[k]:.3g} ± {spread[k]:.2g}"
            for k in furthest
        )
        return ", ".join(parts)


def slide_features(
    mean: Iterable[float], spread: Iterable[float], n_tiles: Sequence[int] | None = None
) -> dict[str, float]:
    """Features of a slide.

    Args:
        mean: Of red, green and blue over the usable tissue.
        spread: Standard deviation of each channel.
        n_tiles: Number of tiles of each predicted IHC score; None where they were not scored.

    Example:
        >>> slide_features((200, 150, 190), (20, 25, 22), (5, 0, 0, 5))["score_spread"]
        1.5
    """
    features = dict(zip(DOMAIN_FEATURES, map(float, (*mean, *spread)), strict=False))
    if n_tiles is not None and any(n_tiles):
        weights, scores = np.asarray(n_tiles, float), np.arange(len(n_tiles))
        score = float(np.average(scores, weights=weights))
        features |= {
            "score_mean": score,
            "score_spread": float(np.sqrt(np.average((scores - score) ** 2, weights=weights))),
        }
    return features


def fit_domain(
    rows: Sequence[Mapping[str, float]],
    described: str,
    weights: Mapping[str, str],
    *,
    level: float = 0.999,
    textures: Sequence[Sequence[float]] = (),
) -> Domain:
    """The domain of training slides.

    Args:
        rows: Feature to its value, of each slide.
        described: The slides, in words.
        weights: By role, the SHA-256 of the networks.
        level: Share of such slides that shall be within the limit.
        textures: (d,) of each slide; texture is left out unless all have it.

    Raises:
        ValueError: Too few slides, or a feature is not known of all.
    """
    if len(rows) < LEAST_SLIDES:
        raise ValueError(f"{len(rows)} slides are too few to say what is like them; {LEAST_SLIDES} are needed")
    values = np.array([[row.get(name, np.nan) for name in DOMAIN_FEATURES] for row in rows])
    if not np.isfinite(values).all():
        raise ValueError("some slides lack colour or scores; predict them again")
    covariance = np.cov(values, rowvar=False) + np.diag((_SPREAD_FLOOR * _RANGES) ** 2)
    return Domain(
        len(rows),
        DOMAIN_FEATURES,
        tuple(values.mean(axis=0).tolist()),
        tuple(map(tuple, covariance.tolist())),
        level,
        described,
        dict(weights),
        _fit_texture(textures),
    )


def _fit_texture(textures: Sequence[Sequence[float]]) -> Texture | None:
    """Texture of (n, d) slides; the limit comes from each slide's distance from all others."""
    if len({len(texture) for texture in textures}) != 1 or not len(textures[0]):
        return None
    values = np.asarray(textures, float)
    alone = [_beyond(*_axes_of(np.delete(values, k, axis=0)), values[k]) for k in range(len(values))]
    mean, axes = _axes_of(values)
    limit = max(_TEXTURE_MARGIN * max(alone), float(np.finfo(np.float32).tiny))
    return Texture(tuple(mean.tolist()), tuple(map(tuple, axes.tolist())), limit)


def _axes_of(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (d,) of (n, d) slides, and the (k, d) directions in which they differ most."""
    mean = values.mean(axis=0)
    axes = np.linalg.svd(values - mean, full_matrices=False)[2]
    return mean, axes[: max(1, min(_MOST_AXES, len(values) // _SLIDES_AN_AXIS))]


def _beyond(mean: NDArray[np.float64], axes: NDArray[np.float64], texture: NDArray[np.float64]) -> float:
    """Length of what is left of a texture beyond its mean and axes."""
    off = texture - mean
    return float(np.linalg.norm(off - (axes @ off) @ axes))


def domain_of_record(values: object) -> Domain:
    """The domain of plain values.

    Raises:
        ValueError: It is none; the message says why in one line.
    """
    try:
        return TypeAdapter(Domain).validate_python(values)
    except ValidationError as error:
        raise ValueError(problems_in_words(error)) from None
