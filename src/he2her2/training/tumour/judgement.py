"""Predictions of tumour networks on patches of patients that they were not trained on, and their figures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from he2her2.models import Metric
from he2her2.statistics import Estimate, auc_interval, balanced_accuracy, decision_interval
from he2her2.training.report import card_metrics
from he2her2.training.tumour.calibration import CALIBRATED_THRESHOLD, MapCalibration, calibrate
from he2her2.training.tumour.data import NEVER_TRAINED
from he2her2.training.tumour.patch_sets import INVASIVE, Patches


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class JudgedPatches:
    """Patches with the predictions of networks that were not trained on their patients.

    Attributes:
        patches: (n,) patches.
        fold: (n,) fold of each.
        probability: (n,) of invasive tumour.
        split: How the patients were kept apart, in words.
        threshold: Probability from which a patch is called invasive, as in prediction.
    """

    patches: Patches
    fold: NDArray[np.int64]
    probability: NDArray[np.float64]
    split: str
    threshold: float

    @property
    def groups(self) -> Iterator[tuple[str, "JudgedPatches"]]:
        """All patches; then each source that has both classes and each fold, where there are several."""
        yield "all", self
        sources, folds = np.unique(self.patches.sources), np.unique(self.fold[self.fold != NEVER_TRAINED])
        if len(sources) > 1:
            parts = ((str(source), self._part(self.patches.sources == source)) for source in sources)
            yield from ((name, part) for name, part in parts if len(np.unique(part.patches.labels)) > 1)
        if len(folds) > 1:
            yield from ((f"fold {fold + 1}", self._part(self.fold == fold)) for fold in folds)

    @property
    def figures(self) -> tuple[Estimate, Estimate]:
        """Balanced accuracy at the threshold, and AUC; both with intervals by patient."""
        truth, patients = self.patches.labels == INVASIVE, self.patches.patients
        accuracy = decision_interval(balanced_accuracy, truth, self.probability >= self.threshold, patients)
        return accuracy, auc_interval(truth, self.probability, patients)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Figures for the card: of all patches, and of each source that has both classes."""
        return tuple(
            metric
            for name, part in self.groups
            if not name.startswith("fold ")
            for metric in card_metrics(part.figures, f"patches ({name}), {part.split_in_words}")
        )

    @property
    def rows(self) -> Iterator[Sequence[object]]:
        """Rows of the report's table: name of a group, patches, patients, share of invasive ones, both figures."""
        for name, part in self.groups:
            patients = len(np.unique(part.patches.patients[part.patches.known]))
            share = (part.patches.labels == INVASIVE).mean()
            yield name, len(part.patches), patients or "unknown", f"{share:.0%}", *(f.text(3) for f in part.figures)

    @property
    def cells(self) -> Iterator[Sequence[object]]:
        """Patient, source, fold, label and probability of each patch, as `predictions.csv` has them."""
        patches = self.patches
        cases = zip(patches.patients, patches.sources, self.fold, patches.labels, self.probability, strict=True)
        return ((*case[:4], f"{case[4]:.6f}") for case in cases)

    @property
    def split_in_words(self) -> str:
        """Separation of the patches from training, in words."""
        if self.patches.known.any():
            return self.split
        return "which train no network, by the network that is kept; patients unknown, so intervals by patch"

    def _part(self, chosen: NDArray[np.bool_]) -> "JudgedPatches":
        return replace(
            self, patches=self.patches.take(chosen), fold=self.fold[chosen], probability=self.probability[chosen]
        )


def calibrated(judged: JudgedPatches, sources: Sequence[str]) -> tuple[JudgedPatches, MapCalibration | None]:
    """Calibrate predictions on some of their sources, and by what; they stay as they are where there are none."""
    if not sources:
        return judged, None
    found = calibrate(judged.patches, judged.probability, sources)
    split = f"{judged.split}; the threshold is the best on those of {', '.join(sources)}, so their accuracy flatters"
    judged = replace(judged, split=split, probability=found(judged.probability), threshold=CALIBRATED_THRESHOLD)
    return judged, found
