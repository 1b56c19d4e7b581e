"""Calibration of a tumour CNN: the probability is 0.5 where, over several sources, both errors are fewest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from he2her2.errors import ConfigError
from he2her2.training.tumour.patch_sets import INVASIVE, Patches

CALIBRATED_THRESHOLD = 0.5
_EDGE = 1e-6  # probabilities are kept so far from 0 and 1
_STEPS = 401
_SLOPES = (0.05, 20.0)


@dataclass(frozen=True, slots=True)
class MapCalibration:
    """Change of a network's log odds x to slope * (x - middle).

    Attributes:
        slope: Above 0.
        middle: Log odds that become probability 0.5.
        sources: Sources that it was chosen on.
    """

    slope: float
    middle: float
    sources: tuple[str, ...]

    def __call__(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated probabilities."""
        calibrated: NDArray[np.float64] = expit(self.slope * (_log_odds(probability) - self.middle))
        return calibrated

    def put_into(self, cnn: Any) -> None:  # noqa: ANN401  a module of layers
        """Change the last layer of a network of two classes, so that it gives calibrated probabilities itself."""
        import torch  # noqa: PLC0415  takes seconds to load

        last = cnn.fc_layers[-1]
        with torch.no_grad():
            last.weight.mul_(self.slope)
            last.bias.mul_(self.slope)
            last.bias[INVASIVE] -= self.slope * self.middle


def calibrate(patches: Patches, probability: NDArray[np.float64], sources: Sequence[str]) -> MapCalibration:
    """Choose middle and slope on patches that the networks were not trained on; every source counts alike.

    The middle has the highest mean balanced accuracy; of several such, the one in the middle. The slope has the least
    log loss, both classes of each source weighing alike.

    Args:
        patches: With both classes in each of the sources.
        probability: (n,) of invasive tumour.
        sources: Names of sources.

    Raises:
        ConfigError: A source is not among the patches that were evaluated, or has one class only.
    """
    check_calibration(patches.sources, patches.labels, sources)
    odds = _log_odds(probability)
    weights = np.zeros(len(patches))
    for source in sources:
        for label in (0, 1):
            chosen = (patches.sources == source) & (patches.labels == label)
            weights[chosen] = 1 / np.count_nonzero(chosen)
    used = weights > 0
    odds, truth, weights = odds[used], patches.labels[used] == INVASIVE, weights[used] / weights.sum()
    candidates = np.quantile(odds, np.linspace(0, 1, _STEPS))
    right = np.array([weights[(odds >= middle) == truth].sum() for middle in candidates])
    best = candidates[right == right.max()]
    middle = float(best[len(best) // 2])

    def loss(slope: float) -> float:
        x = slope * (odds - middle)
        return float((weights * np.logaddexp(0, np.where(truth, -x, x))).sum())

    slope = float(minimize_scalar(loss, bounds=_SLOPES, method="bounded").x)
    return MapCalibration(slope, middle, tuple(sources))


def check_calibration(found: NDArray[np.str_], labels: NDArray[np.int64], sources: Sequence[str]) -> None:
    """Check that every source has evaluated patches of both classes.

    Args:
        found: (n,) source of each patch that a network is evaluated on.
        labels: (n,) its class.
        sources: Names of the sources to calibrate on.

    Raises:
        ConfigError: One is not among them, or has one class only.
    """
    for source in sources:
        if len(np.unique(labels[found == source])) < 2:
            known = ", ".join(np.unique(found).tolist())
            raise ConfigError(f"training.calibrate_on: {source} has no evaluated patches of both kinds; known: {known}")


def _log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = logit(np.clip(probability, _EDGE, 1 - _EDGE))
    return odds
