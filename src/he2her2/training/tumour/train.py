"""`he2her2 train tumour`: the network that tells invasive tumour from everything else, by patches of patients."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from he2her2.config import Config
from he2her2.errors import ConfigError
from he2her2.manifest.provenance import write_patients
from he2her2.models.zoo import CnnSpec, network
from he2her2.training.classifier import Batch, CnnClassifier
from he2her2.training.execution import Execution
from he2her2.training.export import Provenance, export
from he2her2.training.fit import fit, load_checkpoint
from he2her2.training.run import begin_run, is_first_process
from he2her2.training.sampling import Draw, EpochSampler, Order, balanced, in_sequence, shuffled
from he2her2.training.settings import TumourTraining
from he2her2.training.tumour.data import (
    TRAINS_ONLY,
    TumourData,
    as_inputs,
    check_folds,
    deal,
    describe,
    read_sources,
    validation,
)
from he2her2.training.tumour.patches import Patches, draw_patches, joined
from he2her2.training.tumour.report import REPORT, Judged, card_metrics, write_report

_LIMITS = ("research use only: not validated for diagnosis",)


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """What is trained, and how."""

    spec: CnnSpec
    settings: TumourTraining
    execution: Execution
    threshold: float


def train_tumour(
    data: TumourData, out: Path, config: Config, settings: TumourTraining, execution: Execution, *, folds: int = 0
) -> Path:
    """Train a tumour CNN; `out/weights/tumour_cnn` holds it and `out/report.md` tells how good it is.

    With folds, K networks each judge the patients that they never saw, and the network that is kept learns from all
    patients for as many epochs. Without, validation patients choose the epoch, and the report says so.

    Args:
        data: What it is trained on.
        out: Run folder.
        config: The method's settings; `networks.tumour_cnn` is trained.
        settings: Of the training.
        execution: How it is carried out.
        folds: Cross-validation in so many; 0 for none.

    Returns:
        The report.

    Raises:
        He2Her2Error: The data, the settings, the hardware or the folder cannot be used. Data and settings are looked
            at before any training starts, and all that is wrong with the data is told at once.
    """
    spec = _spec(config, settings, folds)
    sources = read_sources(data, spec)
    begin_run(
        out,
        "tumour",
        execution,
        config=config,
        settings=settings,
        inputs=as_inputs(data, folds),
        patients=sources.patients,
    )
    drawn = (
        draw_patches(manifest, rows, spec.input, config, settings, execution.progress)
        for manifest, rows in sources.cohorts
    )
    patches = joined([*sources.sets, *drawn])
    fold = deal(patches, folds, settings.seed) if folds else validation(patches, sources.stated, settings)
    check_folds(patches, fold)
    plan = _Plan(spec, settings, execution, config.adaptive.threshold)
    module, judged = (_cross_validated if folds else _validated)(plan, patches, fold, out)
    if is_first_process():
        recipe = _recipe(settings, folds)
        provenance = Provenance(describe(patches), data.licence, recipe, card_metrics(judged), _LIMITS, data.notice)
        export(module.cnn, spec, out / "weights" / "tumour_cnn", provenance)
        write_patients(out / "weights", sources.patients)
        write_report(out, judged, provenance)
    return out / REPORT


def probabilities(module: CnnClassifier, patches: Patches) -> NDArray[np.float64]:
    """Probability of invasive tumour in each patch: (n,)."""
    module.eval().to("cpu")
    size = module.settings.batch_size
    with torch.inference_mode():
        parts = [module(torch.from_numpy(patches.pixels[i : i + size])) for i in range(0, len(patches), size)]
        found: NDArray[np.float64] = torch.cat(parts).double().softmax(dim=1)[:, 1].numpy()
    return found


class PatchDataset(Dataset[Batch]):
    """Patches in memory, a batch at a time.

    Attributes:
        patches: All of them.
    """

    def __init__(self, patches: Patches) -> None:
        self.patches = patches

    def __getitem__(self, draw: Draw) -> Batch:
        """Take a batch."""
        chosen = self.patches.take(draw.index)
        return Batch(torch.from_numpy(chosen.pixels), torch.from_numpy(chosen.labels), torch.from_numpy(draw.chance))


def _cross_validated(plan: _Plan, patches: Patches, fold: NDArray[np.int64], out: Path) -> tuple[CnnClassifier, Judged]:
    """A network that learned from all patients, and what K others say of patients that they never saw."""
    n_folds = int(fold.max()) + 1
    probability = np.empty(len(patches))
    for k in range(n_folds):
        plan.execution.say(f"fold {k + 1} of {n_folds}")
        module = _learn(plan, patches, fold != k, fold == k, out / "folds" / str(k + 1))
        probability[fold == k] = probabilities(module, patches.take(fold == k))
    plan.execution.say("all patients")
    module = _learn(plan, patches, np.ones(len(patches), bool), None, out)
    how = f"cross-validated by patient in {n_folds} folds, each network after its last epoch"
    return module, Judged(patches, fold, probability, how, plan.threshold)


def _validated(plan: _Plan, patches: Patches, fold: NDArray[np.int64], out: Path) -> tuple[CnnClassifier, Judged]:
    """The network of the best epoch, and what it says of the patients who chose that epoch."""
    module = _learn(plan, patches, fold == TRAINS_ONLY, fold == 0, out)
    load_checkpoint(module, out / "checkpoints" / "best.ckpt")
    judged = patches.take(fold == 0)
    how = "on validation patients, who also chose the epoch: the figures flatter"
    return module, Judged(judged, fold[fold == 0], probabilities(module, judged), how, plan.threshold)


def _learn(
    plan: _Plan, patches: Patches, trains: NDArray[np.bool_], validates: NDArray[np.bool_] | None, folder: Path
) -> CnnClassifier:
    """Train one network to its last epoch."""
    settings = plan.settings
    learned = patches.take(trains)
    order = balanced(learned.labels) if settings.balanced else shuffled(len(learned))
    module = CnnClassifier(plan.spec, settings, threshold=plan.threshold, average=settings.average)
    train = _loader(learned, order, settings)
    val = None
    if validates is not None:
        judged = patches.take(validates)
        val = _loader(judged, in_sequence(len(judged)), settings, share=False)
    fit(module, train, val, folder, plan.execution, epochs=settings.epochs, seed=settings.seed)
    return module


def _loader(patches: Patches, order: Order, settings: TumourTraining, *, share: bool = True) -> DataLoader[Batch]:
    sampler = EpochSampler(order, settings.batch_size, settings.seed, share=share)
    return DataLoader(PatchDataset(patches), batch_size=None, sampler=sampler)


def _spec(config: Config, settings: TumourTraining, folds: int) -> CnnSpec:
    """The network to train.

    Raises:
        ConfigError: There is none of that name, or it cannot be trained so.
    """
    spec = network(config.networks.tumour_cnn, "tumour_cnn")
    assert isinstance(spec, CnnSpec)
    side, crop = spec.input.network_px, settings.crop_px
    if crop is not None and (crop > side or not (spec.global_pool or crop == side)):
        raise ConfigError(f"training.crop_px: {crop} does not suit a {spec.name}, which eats {side} px; leave it out")
    if folds == 1:
        raise ConfigError("--folds 1: one fold leaves nobody to train on; use 2 or more, or 0 for none")
    return spec


def _recipe(settings: TumourTraining, folds: int) -> str:
    """The training in words."""
    vary = [name for name in ("dihedral", "brightness", "contrast", "stain") if getattr(settings.augment, name)]
    kept = "last epoch kept" if folds else "best epoch kept"
    return (
        f"AdamW, {settings.schedule} learning rate up to {settings.learning_rate:g}, {settings.epochs} epochs of "
        f"batches of {settings.batch_size}, {'balanced classes, ' if settings.balanced else ''}"
        f"{f'averaged weights ({settings.average:g}), ' if settings.average else ''}"
        f"augmentation: {', '.join(vary) or 'none'}; {kept}; seed {settings.seed}"
    )
