"""`he2her2 train tumour`: the CNN that tells invasive tumour from everything else."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from he2her2.cohort import SlideTask, annotation_lines
from he2her2.config import PAPER_THRESHOLD, Config
from he2her2.files import write_csv
from he2her2.manifest import hashed_patient, write_patients
from he2her2.models import CnnSpec, InputSpec, Metric, imagenet_weights
from he2her2.statistics import Estimate, auc_interval, balanced_accuracy, decision_interval
from he2her2.timing import Progress
from he2her2.training.classifier import Batch, CnnClassifier, LabelledTiles
from he2her2.training.cross_validation import CnnTraining, TileSets, trainable_cnn
from he2her2.training.fit import load_checkpoint
from he2her2.training.report import REPORT, Provenance, card_metrics, distinct_notices, export, write_report
from he2her2.training.run import Execution, begin_run, is_first_process
from he2her2.training.sampling import Draw, Order, balanced
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.calibration import CALIBRATED_THRESHOLD, MapCalibration, calibrate
from he2her2.training.tumour.data import (
    NEVER_TRAINED,
    TRAINING_ONLY,
    Sources,
    TumourData,
    assign_folds,
    assign_validation,
    check_folds,
    read_sources,
)
from he2her2.training.tumour.patch_sets import INVASIVE, Patches, concatenate
from he2her2.training.tumour.patches import draw_patches

__all__ = ["PatchDataset", "fold_tiles", "start_weights", "train_tumour"]

_PREDICTIONS = "predictions.csv"
_X_Y = slice(1, 3)  # the random numbers of a crop, as in `augmentation`
_MIDDLE = (0.0, 0.0)
_COVERED = 1 / 16  # of the window's side: a patch with less slack is seen in one window
_COLUMNS = ("patient", "source", "fold", "label", "probability")


def train_tumour(
    data: TumourData, out: Path, config: Config, settings: TumourTraining, execution: Execution, *, folds: int = 0
) -> Path:
    """Train a tumour CNN; weights go to `out/weights/tumour_cnn`, figures to `out/report.md`.

    With folds, K networks are each evaluated on patients that they never saw, and the network that is kept is trained
    on all patients for as many epochs; theirs are kept in `folds/k/weights`, for `he2her2 test tumour`. Without,
    validation patients pick the epoch, and the report says so.

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
    patches = _all_patches(sources, spec.input, config, settings, execution.progress, data.annotation_classes)
    fold = (
        assign_folds(patches, folds, settings.seed) if folds else assign_validation(patches, sources.stated, settings)
    )
    check_folds(patches, fold)
    training = CnnTraining(
        spec,
        settings,
        execution,
        start_weights(spec, settings),
        threshold=config.adaptive.threshold or PAPER_THRESHOLD,
        average=settings.average,
        order=_balanced if settings.balance else None,
    )
    module, judged = (_cross_validated if folds else _validated)(training, patches, fold, out)
    calibration = (
        calibrate(judged.patches, judged.probability, settings.calibrate_on) if settings.calibrate_on else None
    )
    if calibration is not None:
        judged = replace(judged, probability=calibration(judged.probability), threshold=CALIBRATED_THRESHOLD)
        calibration.put_into(module.cnn)
    if is_first_process():
        provenance = Provenance(
            data=patches.in_words(),
            licence=data.licence,
            recipe=_recipe(settings, folds, calibration),
            metrics=_metrics(judged),
            notices=distinct_notices(data.notice),
        )
        threshold = None if calibration is None else CALIBRATED_THRESHOLD
        export(module.cnn, spec, out / "weights" / "tumour_cnn", provenance, threshold=threshold)
        write_patients(out / "weights", sources.patients)
        for k in range(folds):
            folder = out / "folds" / str(k + 1)
            load_checkpoint(module, folder / "checkpoints" / "last.ckpt")
            if calibration is not None:
                calibration.put_into(module.cnn)
            export(module.cnn, spec, folder / "weights" / "tumour_cnn", provenance, threshold=threshold)
            write_patients(folder / "weights", _patients_of(patches.take(fold != k)))
        _write_predictions(out / _PREDICTIONS, judged)
        rows = [_row(name, part) for name, part in judged.groups]
        write_report(out, "tumour_training.md", provenance, rows=rows, split=judged.split, threshold=judged.threshold)
    return out / REPORT


def _all_patches(
    sources: Sources,
    tile: InputSpec,
    config: Config,
    settings: TumourTraining,
    progress: Progress,
    annotation_classes: Sequence[str],
) -> Patches:
    """Patches of all sets, and those that are drawn from the slides of all manifests."""
    drawn = (
        draw_patches(manifest, rows, tile, config, settings, progress, annotation_classes=annotation_classes)
        for manifest, rows in sources.cohorts
    )
    return concatenate([*sources.sets, *drawn])


def start_weights(spec: CnnSpec, settings: TumourTraining) -> Mapping[str, NDArray[np.float32]] | None:
    """Weights that a training starts from; none is drawn from its seed.

    Raises:
        ConfigError: They are not those of this network, or their package is missing.
    """
    if settings.start == "random":
        return None
    return imagenet_weights(spec, settings.seed)


class PatchDataset(LabelledTiles):
    """Patches in memory, each seen through a window of the network's side.

    Attributes:
        patches: All of them.
        side: The network's side in px.
        shift: (2,) of all windows, in parts of the slack; none draws each anew, for training.
    """

    def __init__(self, patches: Patches, side: int, shift: tuple[float, float] | None = None) -> None:
        self.patches = patches
        self.side = side
        self.shift = shift

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, draw: Draw) -> Batch:
        """Take a batch."""
        chosen = self.patches.take(draw.index)
        shift = 2 * draw.uniform[:, _X_Y].astype(np.float64) - 1 if self.shift is None else np.array(self.shift)
        pixels = chosen.windows(self.side, shift)
        return Batch(torch.from_numpy(pixels), torch.from_numpy(chosen.labels), torch.from_numpy(draw.uniform))


def _balanced(tiles: LabelledTiles) -> Order:
    assert isinstance(tiles, PatchDataset)
    return balanced(tiles.patches.sources, tiles.patches.labels)


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

    def _part(self, chosen: NDArray[np.bool_]) -> "_JudgedPatches":
        return replace(
            self, patches=self.patches.take(chosen), fold=self.fold[chosen], probability=self.probability[chosen]
        )


def _cross_validated(
    training: CnnTraining, patches: Patches, fold: NDArray[np.int64], out: Path
) -> tuple[CnnClassifier, _JudgedPatches]:
    """Train on all patients, and evaluate K networks on the patients that each never saw."""
    n_folds = int(fold.max()) + 1

    side = training.spec.input.network_px
    probability = np.empty(len(patches))
    for k in range(n_folds):
        training.execution.say(f"fold {k + 1} of {n_folds}")
        module = training.learn(fold_tiles(patches, fold, k, side), out / "folds" / str(k + 1))
        judged = judged_by(fold, k)
        probability[judged] = _probability(training, module, patches.take(judged))
    training.execution.say("all patients")
    module = training.learn(TileSets(PatchDataset(patches.take(fold != NEVER_TRAINED), side)), out)
    there = fold != TRAINING_ONLY
    patches, fold, probability = patches.take(there), fold[there], probability[there]
    split = f"cross-validated by patient in {n_folds} folds, each network after its last epoch"
    assert training.threshold is not None
    return module, _JudgedPatches(patches, fold, probability, split, training.threshold)


def _validated(
    training: CnnTraining, patches: Patches, fold: NDArray[np.int64], out: Path
) -> tuple[CnnClassifier, _JudgedPatches]:
    """Train to the best epoch, and evaluate on the patients who picked it."""
    side = training.spec.input.network_px
    val = patches.take(fold == 0)
    train = PatchDataset(patches.take(fold == TRAINING_ONLY), side)
    module = training.learn(TileSets(train, PatchDataset(val, side, _MIDDLE)), out)
    probability = _probability(training, module, val)
    split = "on validation patients, who also picked the epoch: the figures flatter"
    assert training.threshold is not None
    return module, _JudgedPatches(val, fold[fold == 0], probability, split, training.threshold)


def fold_tiles(patches: Patches, fold: NDArray[np.int64], k: int, side: int) -> TileSets:
    """Tiles of the k-th network of a cross-validation."""
    val = PatchDataset(patches.take(fold == k), side, _MIDDLE)
    return TileSets(PatchDataset(patches.take((fold != k) & (fold != NEVER_TRAINED)), side), val, val)


def judged_by(fold: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Patches that the k-th network evaluates: its fold; the first one also those that train no network: (n,)."""
    return np.asarray((fold == k) | ((fold == NEVER_TRAINED) & (k == 0)))


def _probability(training: CnnTraining, module: CnnClassifier, patches: Patches) -> NDArray[np.float64]:
    """Probability of invasive tumour of each patch, the mean over windows that cover it: (n,)."""
    side = training.spec.input.network_px
    middle = _invasive_probability(training.logits(module, PatchDataset(patches, side, _MIDDLE)))
    wide = patches.slack >= side * _COVERED
    if not wide.any():
        return middle
    found = [
        _invasive_probability(training.logits(module, PatchDataset(patches.take(wide), side, shift)))
        for shift in product((-1.0, 0.0, 1.0), (-1.0, 0.0, 1.0))
    ]
    middle[wide] = np.mean(found, axis=0)
    return middle


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
        for metric in card_metrics(part.figures, f"patches ({name}), {_split_of(part)}")
    )


def _split_of(part: _JudgedPatches) -> str:
    """Separation of patches from training, in words."""
    if part.patches.known.any():
        return part.split
    return "which train no network, by one network of the cross-validation; patients unknown, so intervals by patch"


def _row(name: str, part: _JudgedPatches) -> Sequence[object]:
    """Row of the report's table."""
    patients = len(np.unique(part.patches.patients[part.patches.known]))
    share = (part.patches.labels == INVASIVE).mean()
    return (
        name,
        len(part.patches),
        patients or "unknown",
        f"{share:.0%}",
        *(f"{f.value:.3f} ({f.low:.3f} to {f.high:.3f})" for f in part.figures),
    )


def _write_predictions(path: Path, judged: _JudgedPatches) -> None:
    patches = judged.patches
    rows = zip(patches.patients, patches.sources, judged.fold, patches.labels, judged.probability, strict=True)
    write_csv(path, _COLUMNS, ((*row[:4], f"{row[4]:.6f}") for row in rows), line_end="\r\n")


def _patients_of(patches: Patches) -> dict[str, list[str]]:
    """Hashed ids of patches' patients, as `write_patients` takes them."""
    return {"training_patients": sorted(map(hashed_patient, np.unique(patches.patients[patches.known]).tolist()))}


def _recipe(settings: TumourTraining, folds: int, calibration: MapCalibration | None) -> str:
    """The training in words."""
    strengths = {name: value for name, value in asdict(settings.augment).items() if value}
    augmentation = [name if value is True else f"{name} {value:g}" for name, value in strengths.items()]
    kept = "last epoch kept" if folds else "best epoch kept"
    start = "from EfficientNet-Lite0's weights of ImageNet, " if settings.start == "imagenet" else ""
    balance = "sources by the square root of their size and both classes alike, " if settings.balance else ""
    calibrated = ""
    if calibration is not None:
        sources = ", ".join(calibration.sources)
        calibrated = f"; probability 0.5 where both errors are fewest out of fold on {sources}"
    return (
        f"{start}AdamW, {settings.schedule} learning rate up to {settings.learning_rate:g}, {settings.epochs} epochs "
        f"of batches of {settings.batch_size}, {balance}"
        f"{f'averaged weights ({settings.average:g}), ' if settings.average else ''}"
        f"augmentation: {', '.join(augmentation) or 'none'}; {kept}; seed {settings.seed}{calibrated}"
    )
