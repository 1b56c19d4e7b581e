"""`he2her2 train tumour`: the CNN that tells invasive tumour from everything else."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from he2her2.cohort import SlideTask, annotation_lines
from he2her2.config import PAPER_THRESHOLD, Config
from he2her2.csv_files import write_csv
from he2her2.errors import ConfigError
from he2her2.manifest import hashed_patient, write_patients
from he2her2.models import CnnSpec, InputSpec, imagenet_weights
from he2her2.results import PREDICTIONS_FILE
from he2her2.timing import Progress
from he2her2.training.classifier import CnnClassifier
from he2her2.training.cross_validation import CnnTraining, TileSets, trainable_cnn
from he2her2.training.fit import load_checkpoint
from he2her2.training.report import REPORT, Provenance, distinct_notices, export, write_report
from he2her2.training.run import Execution, begin_run, fingerprint_slides, is_first_process, undone_if_refused
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.calibration import CALIBRATED_THRESHOLD, MapCalibration, check_calibration
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
from he2her2.training.tumour.dataset import (
    MIDDLE,
    PatchDataset,
    balanced_order,
    fold_tiles,
    probability_of,
    training_tiles,
)
from he2her2.training.tumour.judgement import JudgedPatches, calibrated
from he2her2.training.tumour.patch_sets import Patches, concatenate
from he2her2.training.tumour.patches import draw_patches
from he2her2.training.tumour.soup import learn_soup
from he2her2.training.tumour.teaching import FEWEST_FOLDS, TEACHERS_FOLDER, check_teachers, targets, teach

__all__ = ["start_weights", "train_tumour"]

_COLUMNS = ("patient", "source", "fold", "label", "probability")


def train_tumour(
    data: TumourData,
    out: Path,
    config: Config,
    settings: TumourTraining,
    execution: Execution,
    *,
    folds: int = 0,
    training_of: Callable[..., CnnTraining] = CnnTraining,
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
        training_of: Makes the training of a network from the arguments of `CnnTraining`; another one may train them
            elsewhere.

    Returns:
        The report.

    Raises:
        He2Her2Error: The data, the settings, the hardware or the folder cannot be used. Data and settings are checked
            before any training, and all problems of the data come in one message.
    """
    spec = trainable_cnn(config.networks.tumour_cnn, "tumour_cnn", settings.crop_px, folds)
    _check_settings(settings, folds)
    sources = read_sources(data, spec)
    tasks = [*map(SlideTask.of_row, sources.rows)]
    inputs, patients = data.inputs(folds) | {"slides": fingerprint_slides(tasks)}, sources.patients
    begin_run(out, "tumour", execution, config=config, settings=settings, inputs=inputs, patients=patients)
    for line in annotation_lines(tasks, data.annotation_classes):
        execution.say(line)
    with undone_if_refused(out):
        patches = _all_patches(sources, spec.input, config, settings, execution.progress, data.annotation_classes)
        fold = _assigned(patches, sources, settings, folds)
    study = _Study(sources, patches, fold, folds, config.adaptive.half_turn)
    training = training_of(
        spec,
        settings,
        execution,
        start_weights(spec, settings),
        threshold=config.adaptive.threshold or PAPER_THRESHOLD,
        average=settings.average,
        order=balanced_order if settings.balance else None,
    )
    trained = _train_networks(training, study, out, settings)
    if is_first_process():
        _write_training(data, out, settings, study, trained)
    return out / REPORT


def _check_settings(settings: TumourTraining, folds: int) -> None:
    """Check that teachers have folds, and a soup pre-trained weights.

    Raises:
        ConfigError: They have none.
    """
    if settings.distil and folds < FEWEST_FOLDS:
        raise ConfigError(
            f"training.distil: a teacher leaves out two folds; give --folds {FEWEST_FOLDS} or more, or set it to 0"
        )
    if settings.soup > 1 and settings.start == "random":
        raise ConfigError(
            "training.soup: networks that start at random weights have no good mean; set training.start to imagenet"
        )


def _assigned(patches: Patches, sources: Sources, settings: TumourTraining, folds: int) -> NDArray[np.int64]:
    """Fold of each patch, or its part of a single split: (n,); errors are those of the checks."""
    if not folds:
        fold = assign_validation(patches, sources.stated, settings)
    else:
        fold = assign_folds(patches, folds, settings.seed)
    check_folds(patches, fold)
    judged = fold != TRAINING_ONLY
    check_calibration(patches.sources[judged], patches.labels[judged], settings.calibrate_on)
    if settings.distil:
        check_teachers(patches, fold, settings.seed)
    return fold


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


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _Study:
    """Patches of a training, and their use.

    Attributes:
        sources: Training data that they are from.
        patches: (n,) patches.
        fold: (n,) fold of each, or its part of a single split.
        n_folds: Folds of the cross-validation; 0 for a single split.
        half_turn: Patches are judged as prediction sees them: from both sides.
    """

    sources: Sources
    patches: Patches
    fold: NDArray[np.int64]
    n_folds: int
    half_turn: bool

    @property
    def seen(self) -> str:
        """The way patches are judged, in words after those of their split."""
        return ", seen from both sides" if self.half_turn else ""

    def data_in_words(self, k: int = NEVER_TRAINED) -> str:
        """Patches that the network of fold `k`, or the one that is kept, learned from, and those that it did not."""
        unseen = np.isin(self.fold, (NEVER_TRAINED, k if self.n_folds else 0))  # 0 of a single split: validation
        learned = self.patches.take(~unseen).in_words()
        return f"{learned}; not trained on: {self.patches.take(unseen).in_words()}" if unseen.any() else learned


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: it holds arrays
class _Trained:
    """A trained network, and the predictions that it is judged by.

    Attributes:
        module: The network that is kept.
        judged: Patches with predictions, calibrated where asked for.
        calibration: Calibration of the predictions; None without.
    """

    module: CnnClassifier
    judged: JudgedPatches
    calibration: MapCalibration | None


def _train_networks(training: CnnTraining, study: _Study, out: Path, settings: TumourTraining) -> _Trained:
    """Train the network that is kept, and those of the folds; calibrate their predictions."""
    if study.n_folds:
        module, judged = _cross_validated(training, study, out, settings.distil)
    else:
        module, judged = _validated(training, study, out)
    return _Trained(module, *calibrated(judged, settings.calibrate_on))


def _cross_validated(
    training: CnnTraining, study: _Study, out: Path, distil: float
) -> tuple[CnnClassifier, JudgedPatches]:
    """Train on all patients, and evaluate K networks on the patients that each never saw; `distil` as in settings."""
    patches, fold, n_folds = study.patches, study.fold, study.n_folds
    side = training.spec.input.network_px
    to_learn: list[NDArray[np.float32] | None] = [None] * (n_folds + 1)
    if distil:
        taught = teach(training, patches, fold, out / TEACHERS_FOLDER)
        to_learn = [targets(patches.labels, probability, distil) for probability in taught]
    probability = np.empty(len(patches))
    for k in range(n_folds):
        training.execution.say(f"fold {k + 1} of {n_folds}")
        module = learn_soup(training, fold_tiles(patches, fold, k, side, to_learn[k]), out / "folds" / str(k + 1))
        judged = fold == k
        probability[judged] = probability_of(training, module, patches.take(judged), half_turn=study.half_turn)
    training.execution.say("all patients")
    module = learn_soup(training, TileSets(training_tiles(patches, fold != NEVER_TRAINED, side, to_learn[-1])), out)
    new = fold == NEVER_TRAINED
    if new.any():
        probability[new] = probability_of(training, module, patches.take(new), half_turn=study.half_turn)
    there = fold != TRAINING_ONLY
    patches, fold, probability = patches.take(there), fold[there], probability[there]
    split = f"cross-validated by patient in {n_folds} folds, each network after its last epoch{study.seen}"
    assert training.threshold is not None
    return module, JudgedPatches(patches, fold, probability, split, training.threshold)


def _validated(training: CnnTraining, study: _Study, out: Path) -> tuple[CnnClassifier, JudgedPatches]:
    """Train to the best epoch, and evaluate on the patients who picked it."""
    patches, fold = study.patches, study.fold
    side = training.spec.input.network_px
    val = patches.take(fold == 0)
    train = PatchDataset(patches.take(fold == TRAINING_ONLY), side)
    module = learn_soup(training, TileSets(train, PatchDataset(val, side, MIDDLE)), out)
    probability = probability_of(training, module, val, half_turn=study.half_turn)
    split = f"on validation patients, who also picked the epoch{study.seen}: the figures flatter"
    assert training.threshold is not None
    return module, JudgedPatches(val, fold[fold == 0], probability, split, training.threshold)


def _write_training(data: TumourData, out: Path, settings: TumourTraining, study: _Study, trained: _Trained) -> None:
    """Write the weights of the network that is kept and of those of the folds, the predictions and the report."""
    module, calibration = trained.module, trained.calibration
    provenance = Provenance(
        data=study.data_in_words(),
        licence=data.licence,
        recipe=_recipe(settings, study.n_folds, calibration),
        metrics=trained.judged.metrics,
        notices=distinct_notices(data.notice),
    )
    _export(module, out, study.sources.patients, provenance, calibration)
    for k in range(study.n_folds):
        folder = out / "folds" / str(k + 1)
        load_checkpoint(module, folder / "checkpoints" / "last.ckpt")
        of_fold = replace(provenance, data=study.data_in_words(k))
        _export(module, folder, _patients_of(study.patches.take(study.fold != k)), of_fold, calibration)
    _write_figures(out, trained.judged, provenance)


def _export(
    module: CnnClassifier,
    folder: Path,
    patients: Mapping[str, list[str]],
    provenance: Provenance,
    calibration: MapCalibration | None,
) -> None:
    """Calibrate a network and write its weights to `folder/weights`, with the patients that it learned from."""
    if calibration is not None:
        calibration.put_into(module.cnn)
    threshold = None if calibration is None else CALIBRATED_THRESHOLD
    export(module.cnn, module.spec, folder / "weights" / "tumour_cnn", provenance, threshold=threshold)
    write_patients(folder / "weights", patients)


def _write_figures(out: Path, judged: JudgedPatches, provenance: Provenance) -> None:
    """Write each patch's prediction, and the report."""
    write_csv(out / PREDICTIONS_FILE, _COLUMNS, judged.cells, line_end="\r\n")
    rows = list(judged.rows)
    write_report(out, "tumour_training.md", provenance, rows=rows, split=judged.split, threshold=judged.threshold)


def _patients_of(patches: Patches) -> dict[str, list[str]]:
    """Hashed ids of patches' patients, as `write_patients` takes them."""
    return {"training_patients": sorted(map(hashed_patient, np.unique(patches.patients[patches.known]).tolist()))}


def _recipe(settings: TumourTraining, folds: int, calibration: MapCalibration | None) -> str:
    """The training in words."""
    strengths = {name: value for name, value in asdict(settings.augment).items() if value}
    augmentation = [name if value is True else f"{name} {value:g}" for name, value in strengths.items()]
    kept = "last epoch kept" if folds else "best epoch kept"
    soup = ""
    if settings.soup > 1:
        soup = f"; mean of the weights of {settings.soup} trainings (model soup), batch norms measured anew"
    start = "from EfficientNet-Lite0's weights of ImageNet, " if settings.start == "imagenet" else ""
    balance = "sources by the square root of their size and both classes alike, " if settings.balance else ""
    taught = (
        f"{settings.distil:.0%} of each label by teachers that have not seen the patient"
        f"{f' ({settings.teacher_epochs} epochs)' if settings.teacher_epochs else ''}, "
        if settings.distil
        else ""
    )
    calibrated = ""
    if calibration is not None:
        sources = ", ".join(calibration.sources)
        calibrated = f"; probability 0.5 where both errors are fewest out of fold on {sources}"
    return (
        f"{start}{taught}AdamW, {settings.schedule} learning rate up to {settings.learning_rate:g}, "
        f"{settings.epochs} epochs of batches of {settings.batch_size}, {balance}"
        f"{f'averaged weights ({settings.average:g}), ' if settings.average else ''}"
        f"augmentation: {', '.join(augmentation) or 'none'}; {kept}; seed {settings.seed}{soup}{calibrated}"
    )
