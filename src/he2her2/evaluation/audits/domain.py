"""Domain: slides unlike the reference slides in colour or tile scores.

The distance of a slide is Mahalanobis's, to the reference slides' centre, in units of median and MAD, with centre and
covariance estimated from values cut off at 3 MAD (so that a few odd reference slides do not widen the domain) and a
small ridge. Its p-value is empirical: the share of reference slides, each measured against the others, that lie at
least as far away (conformal anomaly detection: Laxhammar & Falkman, Ann Math Artif Intell 2015;74:67-94; a jackknife,
so right on average rather than guaranteed).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom

from he2her2.evaluation.audits.audit import Audit, not_done
from he2her2.evaluation.slide_properties import COLOUR, SlideProperties
from he2her2.pages import p_value_in_words
from he2her2.statistics import rate

_NAME = "domain"
_MEASURED = (*COLOUR, *(f"{channel}_spread" for channel in COLOUR), "score_mean", "score_spread")
_MIN_REFERENCE = 20
_OUTSIDE = 0.05
_CUT = 3.0
_MAD_OF_NORMAL = 0.6745
_RIDGE = 0.05
_METHOD = (
    "Robust Mahalanobis distance of mean and spread of tissue colour and of tile scores to the reference run's slides; "
    "empirical p-value against the reference slides, each left out in turn (conformal anomaly detection, Laxhammar & "
    "Falkman 2015). Outside: p at most 0.05, so 5 % of like slides would be outside too."
)


def domain_audit(
    slides: SlideProperties, patients: NDArray[np.str_], reference: SlideProperties | None, reference_name: str
) -> Audit:
    """Flag the slides that are unlike the reference's.

    Args:
        slides: Of the evaluated run.
        patients: (n,) their patients.
        reference: Of the run over training or validation slides; None where none was given.
        reference_name: Its name.
    """
    if reference is None:
        return not_done(_NAME, "give a run over the training or validation slides (--reference, --validation)", _METHOD)
    names = [name for name in _MEASURED if not any(np.isnan(side.values[name]).all() for side in (slides, reference))]
    known = ~np.isnan(reference.matrix(names)).any(axis=1) & bool(names)
    if known.sum() < _MIN_REFERENCE:
        why = f"{reference_name} has {int(known.sum())} slides with colour and scores, {_MIN_REFERENCE} are needed"
        return not_done(_NAME, why, _METHOD)
    measured = slides.matrix(names)
    whole = ~np.isnan(measured).any(axis=1)
    if not whole.any():
        return not_done(_NAME, "no slide has all that is known of those of " + reference_name, _METHOD)
    p = np.full(len(measured), np.nan)
    p[whole] = _domain_p(reference.matrix(names)[known], measured[whole])
    outside = p <= _OUTSIDE
    share = rate(outside[whole], patients[whole], name="slides outside")
    n_patients = len(np.unique(patients[whole]))
    outside_p = _outside_p(share.value, n_patients, int(known.sum()))
    alarm = outside_p < 0.05
    verdict = "more than chance explains" if alarm else "no more than chance explains"
    sentence = (
        f"{int(outside.sum())} of {int(whole.sum())} slides, {share.percent()}, look unlike those of {reference_name} "
        f"(n = {int(known.sum())}) in colour or scores, "
        f"{verdict} (5 % are expected; {p_value_in_words(outside_p)})."
    )
    rows = tuple(
        {
            "slide_id": slide_id,
            "p": None if np.isnan(value) else round(float(value), 4),
            "outside": bool(value <= _OUTSIDE),
        }
        for slide_id, value in zip(slides.ids.tolist(), p, strict=True)
    )
    return Audit(_NAME, sentence, alarm, rows, _METHOD)


def _domain_p(reference: NDArray[np.float64], slides: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) empirical p-value of each slide's distance to the reference.

    Args:
        reference: (m, k) properties of the reference slides.
        slides: (n, k) the same properties of other slides.
    """
    centre = np.median(reference, axis=0)
    scale = _scale(reference - centre)
    inside = (reference - centre) / scale
    cut = np.clip(inside, -_CUT, _CUT)
    m = len(cut)
    total, products = cut.sum(axis=0), cut.T @ cut
    without = (total - cut) / (m - 1)  # (m, k) centre without each slide
    covariance = (products - cut[:, :, None] * cut[:, None, :]) / (m - 1) - without[:, :, None] * without[:, None, :]
    own = _distances(inside - without, covariance)
    mean = total / m
    new = _distances((slides - centre) / scale - mean, (products / m - np.outer(mean, mean))[None])
    at_least_as_far = m - np.searchsorted(np.sort(own), new, side="left")
    p: NDArray[np.float64] = (1 + at_least_as_far) / (m + 1)
    return p


def _outside_p(share: float, n: int, m: int) -> float:
    """P-value of a share outside among n patients like the m reference slides.

    The number of n exchangeable values above the r-th greatest of m others is beta-binomial with r and m + 1 - r.

    Example:
        >>> round(_outside_p(share=0.05, n=100, m=1000), 2), _outside_p(share=0.5, n=100, m=1000) < 1e-6
        (0.56, True)
    """
    r = int(_OUTSIDE * (m + 1))
    return float(betabinom.sf(np.floor(share * n + 1e-9) - 1, n, r, m + 1 - r))


def _scale(centred: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k,) MAD in standard deviations of a normal; the standard deviation, then 1, where most values are equal."""
    mad = np.median(np.abs(centred), axis=0) / _MAD_OF_NORMAL
    spread = np.sqrt((centred**2).mean(axis=0))
    return np.where(mad > 0, mad, np.where(spread > 0, spread, 1.0))


def _distances(offsets: NDArray[np.float64], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) squared Mahalanobis distances of (n, k) offsets under (n or 1, k, k) covariances."""
    ridged = covariance + _RIDGE * np.eye(offsets.shape[1])
    solved = np.linalg.solve(np.broadcast_to(ridged, (len(offsets), *ridged.shape[1:])), offsets[:, :, None])[:, :, 0]
    distances: NDArray[np.float64] = np.einsum("nk,nk->n", offsets, solved)
    return distances
