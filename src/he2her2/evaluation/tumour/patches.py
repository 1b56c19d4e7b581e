"""A tumour network on labelled pictures beside trivial rivals, as the pictures are and on the shift sheet."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from he2her2.config import Adaptive
from he2her2.datasets import PatchSet
from he2her2.errors import EvaluationError
from he2her2.evaluation.comparison import ALPHA
from he2her2.evaluation.tumour.networks import NO_NETWORK, TumourNetwork, assign_networks
from he2her2.evaluation.tumour.rivals import HISTOGRAM, Lesson, Looks, Rival, Scores, learn_rivals, lessons_of_folds
from he2her2.evaluation.tumour.windows import probabilities, window_corners
from he2her2.geometry import Rgb
from he2her2.method import as_seen, tumour_threshold
from he2her2.models import Engine
from he2her2.preprocessing import Shift
from he2her2.statistics import (
    BinaryCounts,
    Difference,
    Estimate,
    auc_interval,
    balanced_accuracy,
    decision_interval,
    delong_difference,
    f1,
    ppv,
    sensitivity,
)
from he2her2.timing import Progress, silent

NETWORK = "the network"
UNCHANGED = "as they are"

_CHUNK = 128
_FEWEST_PATIENTS = 10
"""With fewer a difference of AUCs is not tested: its variance between patients is a guess."""

_T = TypeVar("_T")

_Changed: TypeAlias = Callable[[Rgb, float], Rgb]

_DECISIONS: Mapping[str, Callable[[BinaryCounts], float]] = {
    "balanced accuracy": balanced_accuracy,
    "Dice": f1,
    "precision": ppv,
    "recall": sensitivity,
}


@dataclass(frozen=True, slots=True)
class ScorerFigures:
    """Figures of one scorer.

    Attributes:
        name: The network, or a rival.
        figures: AUC, balanced accuracy, Dice, precision and recall by name.
        below: The network's AUC less this one's; None of the network itself.
    """

    name: str
    figures: Mapping[str, Estimate]
    below: Difference | None = None


@dataclass(frozen=True, slots=True)
class SheetRow:
    """The pictures under one shift.

    Attributes:
        name: Of the shift.
        group: Kind of shift.
        auc: Of the network.
        accuracy: Its balanced accuracy.
        lost: Its AUC on the pictures as they are less this; None of those.
        rival: AUC of the colour histogram; None where it cannot learn.
        above: The network's AUC less the histogram's.
    """

    name: str
    group: str
    auc: Estimate
    accuracy: Estimate
    lost: Difference | None
    rival: Estimate | None
    above: Difference | None


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class PatchTrial:
    """Result of a test on labelled pictures.

    Attributes:
        cases: The pictures that were judged.
        network: Position of the network that judged each.
        fold: Fold of each, for rivals that learn from the other folds.
        scores: By scorer, on the pictures as they are.
        scorers: Their figures, the network's first.
        sheet: Rows of the shift sheet, the pictures as they are first; empty where it was not asked for.
        windows: Windows of the network that cover a picture.
        threshold: Called tumour from this probability on, by the first network.
        learned_from: Pictures from which the rivals learned, in words.
        notices: What a reader must know.
    """

    cases: PatchSet
    network: NDArray[np.intp]
    fold: NDArray[np.intp]
    scores: Mapping[str, Scores]
    scorers: tuple[ScorerFigures, ...]
    sheet: tuple[SheetRow, ...]
    windows: int
    threshold: float
    learned_from: str
    notices: tuple[str, ...]

    @property
    def is_tested(self) -> bool:
        """True where there are patients enough to test differences."""
        return self.n_patients is None or self.n_patients >= _FEWEST_PATIENTS

    @property
    def unbeaten(self) -> tuple[str, ...]:
        """Rivals that the network's AUC is not shown to be above, as where nothing is tested."""
        return tuple(one.name for one in self.scorers if one.below and not one.below.is_gain(ALPHA))

    @property
    def n_patients(self) -> int | None:
        """Patients of the pictures; None where nobody knows."""
        return None if self.cases.patients is None else len(np.unique(self.cases.patients))


def evaluate_patches(
    patches: PatchSet,
    networks: Sequence[TumourNetwork],
    settings: Adaptive,
    shifts: Sequence[Shift],
    *,
    to_learn: PatchSet | None = None,
    threads: int = 1,
    progress: Progress = silent,
) -> PatchTrial:
    """Judge labelled pictures by the network and its rivals, as they are and under every shift.

    Args:
        patches: The pictures.
        networks: Under test; each patient is judged by one that has not seen him.
        settings: Threshold, or else that of the card, and how often a picture is seen.
        shifts: Rows of the shift sheet.
        to_learn: Pictures of the same set that nobody is tested on: the rivals learn from them. None: each fold learns
            from the others.
        threads: That score pictures.
        progress: Called after every row.

    Raises:
        EvaluationError: Every patient was used in training all of the networks, or one class is absent.
        PatchError: The network sees much more than a patch.
    """
    assigned = assign_networks(networks, patches.patients, len(patches))
    kept = np.flatnonzero(assigned.network != NO_NETWORK)
    cases = patches.take(kept) if len(kept) < len(patches) else patches
    if not 0 < cases.tumour.sum() < len(cases):
        raise EvaluationError(f"{patches.name}: of the patches to judge none or all are tumour; both are needed")
    engines = [as_seen(network.engine, settings) for network in networks]
    thresholds = np.array([tumour_threshold(engine.card, settings) for engine in engines])
    called_from = thresholds[assigned.network[kept]]
    judge = _Judge(cases, engines, assigned.network[kept], threads)
    own, looks = judge(lambda pixels, _: pixels)
    lessons, learned_from = _lessons(cases, looks, assigned.fold[kept], to_learn, threads)
    rivals = learn_rivals(lessons)
    scores = _scores(own, looks, rivals, called_from)
    progress("shifts", 1, len(shifts) + 1)
    sheet = [_row(cases, UNCHANGED, "", scores, None)] if shifts else []
    for k, shift in enumerate(shifts, start=2):
        sheet.append(_row(cases, shift.name, shift.group, _scores(*judge(shift.change), rivals, called_from), own))
        progress("shifts", k, len(shifts) + 1)
    return PatchTrial(
        cases,
        assigned.network[kept],
        assigned.fold[kept],
        scores,
        tuple(_figures(cases, name, scored, own) for name, scored in scores.items()),
        tuple(sheet),
        len(judge.corners),
        float(thresholds[0]),
        learned_from,
        (*assigned.notices, *_unlike_thresholds(thresholds)),
    )


def _lessons(
    cases: PatchSet, looks: Looks, fold: NDArray[np.intp], to_learn: PatchSet | None, threads: int
) -> tuple[list[Lesson], str]:
    """Pictures that the rivals learn from, and the same in words."""
    if to_learn is not None and 0 < to_learn.tumour.sum() < len(to_learn):
        seen = _over(to_learn, lambda part: Looks.of(to_learn.pixels(part)), threads)
        lesson = Lesson(Looks.joined(seen), to_learn.tumour, np.ones(len(cases), np.bool_))
        return [lesson], f"the set's {len(to_learn)} other patches, which are there to learn from"
    others = "which may show the same patients" if cases.patients is None else "of other patients"
    return lessons_of_folds(looks, cases.tumour, fold), f"the other folds, {others}"


def _over(cases: PatchSet, work: Callable[[slice], _T], threads: int) -> list[_T]:
    """Do some work on all pictures, a few at a time."""
    parts = [slice(start, start + _CHUNK) for start in range(0, len(cases), _CHUNK)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, parts))


class _Judge:
    """Scores all pictures after a change of theirs, and looks at them."""

    def __init__(self, cases: PatchSet, engines: Sequence[Engine], network: NDArray[np.intp], threads: int) -> None:
        self._cases, self._engines, self._network, self._threads = cases, engines, network, threads
        self.corners = window_corners(cases.side_px, cases.labelled_px, cases.mpp, engines[0].card.input)

    def __call__(self, change: _Changed) -> tuple[NDArray[np.float64], Looks]:
        """Probabilities (n,) by each picture's network, and looks."""
        found = _over(self._cases, lambda part: self._part(part, change), self._threads)
        return np.concatenate([one for one, _ in found]), Looks.joined([looks for _, looks in found])

    def _part(self, part: slice, change: _Changed) -> tuple[NDArray[np.float64], Looks]:
        pixels = change(self._cases.pixels(part), self._cases.mpp)
        network, found = self._network[part], np.empty(len(pixels))
        for k in np.unique(network).tolist():
            chosen = network == k
            found[chosen] = probabilities(self._engines[k], pixels[chosen], self.corners, self._cases.mpp)
        return found, Looks.of(pixels)


def _unlike_thresholds(thresholds: NDArray[np.float64]) -> tuple[str, ...]:
    """A notice where networks call from different probabilities on."""
    found = [f"{threshold:.6g}" for threshold in np.unique(thresholds).tolist()]
    said = f"the networks call tumour from {' and '.join(found)} on, each patient by the threshold of his network"
    return (said,) if len(found) > 1 else ()


def _scores(
    probability: NDArray[np.float64], looks: Looks, rivals: Mapping[str, Rival], called_from: NDArray[np.float64]
) -> dict[str, Scores]:
    own = Scores(probability, probability >= called_from)
    return {NETWORK: own, **{name: rival(looks) for name, rival in rivals.items()}}


def _figures(cases: PatchSet, name: str, scored: Scores, own: NDArray[np.float64]) -> ScorerFigures:
    """Figures of a scorer, with intervals by patient, or by picture where nobody knows the patients."""
    truth, patients = cases.tumour, cases.patients
    figures = {"AUC": auc_interval(truth, scored.score, patients)} | {
        figure: decision_interval(metric, truth, scored.called, patients, name=figure)
        for figure, metric in _DECISIONS.items()
    }
    below = None if name == NETWORK else _difference(cases, own, scored.score)
    return ScorerFigures(name, figures, below)


def _difference(cases: PatchSet, one: NDArray[np.float64], other: NDArray[np.float64]) -> Difference:
    """Difference of two AUCs by patient; of few patients without a test."""
    found = delong_difference(cases.tumour, one, other, cases.patients)
    few = cases.patients is not None and len(np.unique(cases.patients)) < _FEWEST_PATIENTS
    return replace(found, p_value=float("nan")) if few else found


def _row(
    cases: PatchSet, name: str, group: str, scores: Mapping[str, Scores], unchanged: NDArray[np.float64] | None
) -> SheetRow:
    truth, patients, own = cases.tumour, cases.patients, scores[NETWORK]
    rival = scores[HISTOGRAM].score if HISTOGRAM in scores else None
    return SheetRow(
        name,
        group,
        auc_interval(truth, own.score, patients),
        decision_interval(balanced_accuracy, truth, own.called, patients),
        None if unchanged is None else _difference(cases, unchanged, own.score),
        None if rival is None else auc_interval(truth, rival, patients),
        None if rival is None else _difference(cases, own.score, rival),
    )
