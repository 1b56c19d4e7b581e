"""The domain of weights: colour and tile scores of their training slides, and the distance of a slide from them.

A slide far from all training slides is called unlike them before any status is read: nothing is known of the weights
there. The check sees scanner, stain and score statistics, not the tissue's meaning.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from scipy.special import fdtri

from he2her2.files import problems_in_words

DOMAIN_FILE = "domain.json"
DOMAIN_FEATURES = (
    "red", "green", "blue", "red_spread", "green_spread", "blue_spread", "score_mean", "score_spread",
)  # fmt: skip
"""Mean and standard deviation of each channel over the usable tissue, and of the tiles' IHC scores."""

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_LEAST_SLIDES = 3 * len(DOMAIN_FEATURES)
_SPREAD_FLOOR = 0.01  # of a feature's range: training slides that are all alike must not make every other slide unlike
_RANGES = np.array([255.0] * 6 + [3.0] * 2)
_SHOWN = 2


@dataclass(frozen=True, config=_STRICT)
class Likeness:
    """Distance of a slide from the training slides.

    Attributes:
        distance: Mahalanobis distance.
        limit: Distance that one in 1 / (1 - level) slides like the training slides exceeds.
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
    """

    slides: Annotated[int, Ge(_LEAST_SLIDES), Le(10**9)]
    features: tuple[str, ...]
    mean: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    level: Annotated[float, Gt(0), Lt(1)]
    described: str
    weights: Mapping[str, str]

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

    def likeness(self, values: Mapping[str, float]) -> Likeness | None:
        """Distance of a slide by those of the features that are known of it; None where none is.

        The limit is that of a new observation of a normal population whose mean and covariance were estimated from
        `slides` of them (Hotelling's T squared).

        Args:
            values: Feature to its value.
        """
        known = [k for k, name in enumerate(self.features) if np.isfinite(values.get(name, np.nan))]
        if not known:
            return None
        mean, covariance = np.asarray(self.mean)[known], np.asarray(self.covariance)[np.ix_(known, known)]
        off = np.array([values[self.features[k]] for k in known]) - mean
        distance = float(np.sqrt(off @ np.linalg.solve(covariance, off)))
        n, p = self.slides, len(known)
        limit = float(np.sqrt(p * (n**2 - 1) / (n * (n - p)) * fdtri(p, n - p, self.level)))
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
    rows: Sequence[Mapping[str, float]], described: str, weights: Mapping[str, str], *, level: float = 0.999
) -> Domain:
    """The domain of training slides.

    Args:
        rows: Feature to its value, of each slide.
        described: The slides, in words.
        weights: By role, the SHA-256 of the networks.
        level: Share of such slides that shall be within the limit.

    Raises:
        ValueError: Too few slides, or a feature is not known of all.
    """
    if len(rows) < _LEAST_SLIDES:
        raise ValueError(f"{len(rows)} slides are too few to say what is like them; {_LEAST_SLIDES} are needed")
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
    )


def domain_to_record(domain: Domain) -> dict[str, Any]:
    """Plain values of a domain, for `domain.json`."""
    return asdict(domain)


def domain_of_record(values: object) -> Domain:
    """The domain of plain values.

    Raises:
        ValueError: It is none; the message says why in one line.
    """
    try:
        return TypeAdapter(Domain).validate_python(values)
    except ValidationError as error:
        raise ValueError(problems_in_words(error)) from None
