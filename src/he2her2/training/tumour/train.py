"""`he2her2 train tumour`: the CNN that tells invasive tumour from everything else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from he2her2.cohort import SlideTask, annotation_lines
from he2her2.config import Config
from he2her2.files import write_csv
from he2her2.manifest import write_patients
from he2her2.models import Metric
from he2her2.statistics import Estimate, auc_interval, balanced_accuracy, decision_interval
from he2her2.training.classifier import Batch, CnnClassifier, LabelledTiles
from he2her2.training.cross_validation import CnnTraining, TileSets, trainable_cnn
from he2her2.training.report import REPORT, Provenance, card_metrics, distinct_notices, export, write_report
from he2her2.training.run import Execution, begin_run, is_first_process
from he2her2.training.sampling import Draw
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.data import (
    TRAINING_ONLY,
    TumourData,
    assign_folds,
    assign_validation,
    check_folds,
    read_sources,
)
from he2her2.training.tumour.patches import INVASIVE, Patches, concatenate, draw_patches

__all__ = ["train_tumour"]

_PREDICTIONS = "predictions.csv"
_COLUMNS = ("patient", "source", "fold", "label", "probability")


def train_tumour(
    data: TumourData, out: Path, config: Config, settings: TumourTraining, execution: Execution, *, folds: int = 0
) -> Path:
    """Train a tumour CNN; weights go to `out/weights/tumour_cnn`, figures to `out/report.md`.

    With folds, K networks are each evaluated on patients that they never saw, and the network that is kept is trained
    on all patients for as many epochs. Without, validation patients pick the epoch, and the report says so.

    Args:
        data: Training data.
        out: Folder of the run.
        config: The method's settings; `networks.tumour_cnn` is trained.
        settings: Of the training.
        execution: Hardware, resuming, messages.
        folds: Number of folds of a cross-validation; 0 for none.

    Returns:
        The report.

    Raises:
        He2Her2Error: The data, the settings, the hardware or the folder cannot be used. Data and settings are checked
            before any training, and all problems of the data come in one message.
    """
    spec = trainable_cnn(config.networks.tumour_cnn, "tumour_cnn", settings.crop_px, folds)
    sources = read_sources(data, spec)
    begin_run(
        out,
        "tumour",
        execution,
        config=config,
        settings=settings,
        inputs=data.inputs(folds),
        patients=sources.patients,
    )
    for line in annotation_lines(map(SlideTask.of_row, sources.rows), data.annotation_classes):
        execution.say(line)
    drawn = (
        draw_patches(
            manifest,
            rows,
            spec.input,
            config,
            settings,
            execution.progress,
            annotation_classes=data.annotation_classes,
        )
        for manifest, rows in sources.cohorts
    )
    patches = concatenate([*sources.sets, *drawn])
    fold = (
        assign_folds(patches, folds, settings.seed) if folds else assign_validation(patches, sources.stated, settings)
    )
    check_folds(patches, fold)
    training = CnnTraining(spec, settings, execution, threshold=config.adaptive.threshold, average=settings.average)
    module, judged = (_cross_validated if folds else _validated)(training, patches, fold, out)
    if is_first_process():
        provenance = Provenance(
            data=patches.in_words(),
            licence=data.licence,
            recipe=_recipe(settings, folds),
            metrics=_metrics(judged),
            notices=distinct_notices(data.notice),
        )
        export(module.cnn, spec, out / "weights" / "tumour_cnn", provenance)
        write_patients(out / "weights", sources.patients)
        _write_predictions(out / _PREDICTIONS, judged)
        rows = [_row(name, part) for name, part in judged.groups]
        write_report(out, "tumour_training.md", provenance, rows=rows, split=judged.split, threshold=judged.threshold)
    return out / REPORT


class _PatchDataset(LabelledTiles):
    """Patches in memory.

    Attributes:
        patches: All of them.
    """

    def __init__(self, patches: Patches) -> None:
        self.patches = patches

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, draw: Draw) -> Batch:
        """Take a batch."""
        chosen = self.patches.take(draw.index)
        return Batch(torch.from_numpy(chosen.pixels), torch.from_numpy(chosen.labels), torch.from_numpy(draw.uniform))


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _JudgedPatches:
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
    def groups(self) -> Iterator[tuple[str, "_JudgedPatches"]]:
        """All patches; then each source and each fold, where there are several."""
        yield "all", self
        sources, folds = np.unique(self.patches.sources), np.unique(self.fold)
        if len(sources) > 1:
            yield from ((str(source), self._part(self.patches.sources == source)) for source in sources)
        if len(folds) > 1:
            yield from ((f"fold {fold + 1}", self._part(self.fold == fold)) for fold in folds)

    @property
    def figures(self) -> tuple[Estimate, Estimate]:
        """Balanced accuracy at the threshold, and AUC; both with intervals by patient."""
        truth, patients = self.patches.labels == INVASIVE, self.patches.patients
        accuracy = decision_interval(balanced_accuracy, truth, self.probability >= self.threshold, patients)
        return accuracy, auc_interval(truth, self.probability, patients)

    def _part(self, chosen: NDArray[np.bool_]) -> "_JudgedPatches":
        return replace(
            self, patches=self.patches.take(chosen), fold=self.fold[chosen], probability=self.probability[chosen]
        )


def _cross_validated(
    training: CnnTraining, patches: Patches, fold: NDArray[np.int64], out: Path
) -> tuple[CnnClassifier, _JudgedPatches]:
    """Train on all patients, and evaluate K networks on the patients that each never saw."""
    n_folds = int(fold.max()) + 1

    def tiles_of(k: int) -> TileSets:
        judged = _PatchDataset(patches.take(fold == k))
        return TileSets(_PatchDataset(patches.take(fold != k)), judged, judged)

    module, logits = training.cross_validate(
        [partial(tiles_of, k) for k in range(n_folds)], lambda: TileSets(_PatchDataset(patches)), out
    )
    probability = np.empty(len(patches))
    for k, of_fold in enumerate(logits):
        probability[fold == k] = _invasive_probability(of_fold)
    split = f"cross-validated by patient in {n_folds} folds, each network after its last epoch"
    assert training.threshold is not None
    return module, _JudgedPatches(patches, fold, probability, split, training.threshold)


def _validated(
    training: CnnTraining, patches: Patches, fold: NDArray[np.int64], out: Path
) -> tuple[CnnClassifier, _JudgedPatches]:
    """Train to the best epoch, and evaluate on the patients who picked it."""
    train, val = (_PatchDataset(patches.take(fold == part)) for part in (TRAINING_ONLY, 0))
    module = training.learn(TileSets(train, val), out)
    probability = _invasive_probability(training.logits(module, val))
    split = "on validation patients, who also picked the epoch: the figures flatter"
    assert training.threshold is not None
    return module, _JudgedPatches(val.patches, fold[fold == 0], probability, split, training.threshold)


def _invasive_probability(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probability of invasive tumour from (n, 2) logits: (n,)."""
    found: NDArray[np.float64] = torch.from_numpy(logits).double().softmax(dim=1)[:, INVASIVE].numpy()
    return found


def _metrics(judged: _JudgedPatches) -> tuple[Metric, ...]:
    """Figures for the card: of all patches, and of each source that has both classes."""
    return tuple(
        metric
        for name, part in judged.groups
        if not name.startswith("fold ")
        for metric in card_metrics(part.figures, f"patches ({name}), {judged.split}")
    )


def _row(name: str, part: _JudgedPatches) -> Sequence[object]:
    """Row of the report's table."""
    patients = len(np.unique(part.patches.patients))
    share = (part.patches.labels == INVASIVE).mean()
    return (
        name,
        len(part.patches),
        patients,
        f"{share:.0%}",
        *(f"{f.value:.3f} ({f.low:.3f} to {f.high:.3f})" for f in part.figures),
    )


def _write_predictions(path: Path, judged: _JudgedPatches) -> None:
    patches = judged.patches
    rows = zip(patches.patients, patches.sources, judged.fold, patches.labels, judged.probability, strict=True)
    write_csv(path, _COLUMNS, ((*row[:4], f"{row[4]:.6f}") for row in rows), line_end="\r\n")


def _recipe(settings: TumourTraining, folds: int) -> str:
    """The training in words."""
    augmentation = [name for name in ("dihedral", "brightness", "contrast", "stain") if getattr(settings.augment, name)]
    kept = "last epoch kept" if folds else "best epoch kept"
    return (
        f"AdamW, {settings.schedule} learning rate up to {settings.learning_rate:g}, {settings.epochs} epochs of "
        f"batches of {settings.batch_size}, "
        f"{f'averaged weights ({settings.average:g}), ' if settings.average else ''}"
        f"augmentation: {', '.join(augmentation) or 'none'}; {kept}; seed {settings.seed}"
    )
