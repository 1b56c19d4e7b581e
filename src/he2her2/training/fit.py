"""One training run on Lightning: checkpoints, logs, exact resuming after any stop.

A training that was killed and resumed ends with the same weights, bit for bit, as one that was not (on CPU): its state
is saved after every epoch, and order and augmentation derive from seed, epoch and position (`sampling`).
"""

import logging
import math
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from time import time
from typing import Any
from zipfile import is_zipfile

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from he2her2.csv_files import write_csv
from he2her2.errors import ConfigError, OutputError
from he2her2.files import atomic
from he2her2.timing import Progress
from he2her2.training.run import Execution
from he2her2.training.settings import LARGEST_SEED, Hardware, Keep

_OVERFITTING_EPOCHS = 3
_OTHER_WEIGHTS = ("64-true", "64", "16-true", "bf16-true")  # precisions that would convert the weights

_HARMLESS = (
    r".*does not have many workers.*",  # a slide's tiles are read by threads of our own
    r".*smaller than the logging interval.*",
    r".*You defined a `validation_step` but have no `val_dataloader`.*",
    r".*recommended to use `self.log\(.*sync_dist=True.*",  # every process validates everything
    r".*tensorboardX.*",
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*You are using `torch.load` with `weights_only=False`.*",
    r"Found \d+ module\(s\) in eval mode.*",  # slide training keeps its batch norms still
    r".*Found keys that are not in the model state dict.*",
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Checkpoints and history of a finished training.

    Attributes:
        best: Checkpoint of the best epoch; the last one's where nothing was validated.
        last: Checkpoint of the last epoch.
        history: Figures of each epoch, as in `logs/metrics.csv`.
        keep: Rule that picks the epoch.
    """

    best: Path
    last: Path
    history: list[dict[str, float]]
    keep: Keep = "lowest-loss"

    @property
    def kept(self) -> dict[str, float]:
        """Figures of the best epoch."""
        best = max(n for n in range(len(self.history)) if _is_best(self.history[: n + 1], self.keep))
        return self.history[best]


def fit(
    module: LightningModule,
    train: Iterable[Any],
    val: Iterable[Any] | None,
    folder: Path,
    execution: Execution,
    *,
    epochs: int,
    seed: int,
    keep: Keep = "lowest-loss",
) -> Fitted:
    """Train a module; it logs `train_loss`, `val_loss` and `val_accuracy` by epoch.

    Args:
        module: Module to train; on return it holds the last epoch's weights.
        train: Loader of training batches; with an `EpochSampler` resuming is exact.
        val: Loader of validation batches; none keeps the last epoch alone.
        folder: Of the run: `checkpoints/` and `logs/` go there.
        execution: `resume` goes on from `checkpoints/last.ckpt`, if there is one; `say` is called with a line about
            overfitting, by the first of several processes only.
        epochs: Number of epochs in all, those before a stop counted.
        seed: Of the random numbers that the module itself draws.
        keep: Rule that picks the epoch.

    Raises:
        ConfigError: The hardware asked for is not there or cannot do it, or the training diverged.
        OutputError: The checkpoint to go on from is damaged.
        KeyboardInterrupt: By Ctrl-C or SIGTERM; resuming goes on with the epoch that was stopped.
    """
    keeper = Keeper(folder, keep if val is not None else None, execution.say)
    last = keeper.last if execution.resume and keeper.last.exists() else None
    if last is not None and not is_zipfile(last):
        raise OutputError(f"{last}: is damaged, so the training cannot go on from it; begin anew with --overwrite")
    with _quiet(), _same_switches():
        callbacks: list[Callback] = [keeper, _Seeding(seed)]
        callbacks += [] if _on_terminal() else [_Steps(execution.progress)]
        callbacks += [] if execution.until is None else [_TimeLimit(execution.until)]
        trainer = _trainer(folder, epochs, execution.hardware, callbacks)
        try:
            trainer.fit(module, train, val, ckpt_path=last, weights_only=True)
        except SystemExit:  # how Lightning answers Ctrl-C and SIGTERM
            raise KeyboardInterrupt from None
    return Fitted(keeper.best if keeper.best.exists() else keeper.last, keeper.last, keeper.history, keep)


def load_checkpoint(module: LightningModule, checkpoint: Path) -> None:
    """Load a checkpoint's weights into a module of the same architecture."""
    module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])


def save_checkpoint(module: LightningModule, checkpoint: Path) -> None:
    """Save a module's weights where `load_checkpoint` finds them."""
    with atomic(checkpoint) as draft:
        torch.save({"state_dict": module.state_dict()}, draft)


def _trainer(folder: Path, epochs: int, hardware: Hardware, callbacks: list[Callback]) -> Trainer:
    if any(word in hardware.strategy for word in ("spawn", "fork", "notebook")):
        raise ConfigError(f"--strategy {hardware.strategy}: its processes hand no figures back; use ddp")
    if hardware.precision in _OTHER_WEIGHTS:
        found = f"--precision {hardware.precision}: weights and input stay in 32 bits"
        raise ConfigError(f"{found}; use 32-true, 16-mixed or bf16-mixed")
    bar: list[Callback] = [RichProgressBar(console_kwargs={"stderr": True})] if _on_terminal() else []
    try:
        return Trainer(
            accelerator=hardware.accelerator,
            devices=int(hardware.devices) if hardware.devices.lstrip("-").isdigit() else hardware.devices,
            strategy=hardware.strategy,
            precision=hardware.precision,  # type: ignore[arg-type]  # Lightning checks it
            max_epochs=epochs,
            callbacks=[*callbacks, *bar],
            logger=TensorBoardLogger(folder, name="logs", version=""),
            enable_progress_bar=_on_terminal(),
            enable_model_summary=False,
            use_distributed_sampler=False,  # EpochSampler divides batches by itself
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            deterministic="warn",
            default_root_dir=folder,
        )
    except (MisconfigurationException, ValueError, RuntimeError, TypeError) as error:  # Lightning raises any of them
        found = " ".join(str(error).split())
        raise ConfigError(f"{found}; change --accelerator, --devices, --strategy or --precision") from error


def _on_terminal() -> bool:
    return sys.stderr.isatty()


class _Steps(Callback):
    """Reports the steps of each epoch where no bar is shown: to a log."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_batch_end(  # Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,
    ) -> None:
        """Report a step."""
        stage = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self._progress(stage, batch_idx + 1, int(trainer.num_training_batches))

    def on_validation_batch_end(  # Lightning's signature
        self,
        trainer: Trainer,
        pl_module: LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ANN401, ARG002
        batch: Any,  # noqa: ANN401, ARG002
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Report a step of the validation after an epoch."""
        stage = f"validation after epoch {trainer.current_epoch + 1}"
        self._progress(stage, batch_idx + 1, int(trainer.num_val_batches[dataloader_idx]))


class _Seeding(Callback):
    """Seeds the random numbers of a module in every epoch, so that they depend on seed and epoch alone."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Seed torch for the epoch."""
        torch.manual_seed((self._seed * 1_000_003 + trainer.current_epoch) % LARGEST_SEED)


class _TimeLimit(Callback):
    """Stops before an epoch that, as long as the last one, would end too late."""

    def __init__(self, until: float) -> None:
        self._until = until
        self._begin = time()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Note when the epoch begins."""
        self._begin = time()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Stop where one of the devices has no time for another epoch: all of them stop, or none."""
        now = time()
        late = now + (now - self._begin) > self._until
        trainer.should_stop = trainer.should_stop or trainer.strategy.reduce_boolean_decision(late, all=False)


@dataclass(eq=False)
class Keeper(Checkpoint):  # checkpoints hold its state under this name
    """Writer of the log as CSV, of the best epoch's checkpoint and of the last one, after every epoch.

    Each file appears whole or not at all. The best is written before the last: a kill between the two costs the
    epoch, which is then done again, the same.

    Attributes:
        folder: Of the run.
        keep: Rule that picks the epoch; none keeps the last alone.
        say: Called with a line about overfitting, once.
        history: Figures of each epoch.
    """

    folder: Path
    keep: Keep | None
    say: Callable[[str], None]
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> Path:
        """Checkpoint of the best epoch."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint of the last epoch."""
        return self.folder / "checkpoints" / "last.ckpt"

    def state_dict(self) -> dict[str, Any]:
        """State to store in a checkpoint."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state of a checkpoint."""
        self.history = list(state_dict["history"])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Write the log and the checkpoints; validation is over by now."""
        figures = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
        # All processes must agree on what is best: each has running statistics of its own.
        figures = trainer.strategy.broadcast(figures)
        _require_finite(figures, trainer.current_epoch)
        self.history.append({"epoch": trainer.current_epoch, **figures})
        if trainer.is_global_zero:
            _write_history(self.folder / "logs" / "metrics.csv", self.history)
        if self.keep is not None and _is_best(self.history, self.keep):
            self._save(trainer, self.best)
        self._save(trainer, self.last)
        if (warning := _overfitting(self.history)) and trainer.is_global_zero:
            self.say(warning)

    def _save(self, trainer: Trainer, path: Path) -> None:
        """Every process takes part; the first one writes, and gives the file its name when it is whole."""
        draft = path.with_name(f".{path.name}.draft")
        trainer.save_checkpoint(draft)
        if trainer.is_global_zero:
            draft.replace(path)


def _require_finite(figures: Mapping[str, float], epoch: int) -> None:
    """Raise unless both losses of an epoch are finite: weights of such a training give no numbers any more.

    Raises:
        ConfigError: One is not.
    """
    if not all(math.isfinite(figures.get(name, 0.0)) for name in ("train_loss", "val_loss")):
        raise ConfigError(f"the training diverged in epoch {epoch}; lower training.learning_rate")


def _is_best(history: Sequence[Mapping[str, float]], keep: Keep) -> bool:
    """True where the last epoch is the one to keep: it has the best validation accuracy of all and wins the ties.

    On few slides an early epoch may be as accurate as later ones, at a loss that shows little confidence: that the
    lowest loss wins is our choice.

    Example:
        >>> epochs = [{"val_accuracy": 0.7, "val_loss": 0.6}, {"val_accuracy": 0.7, "val_loss": 0.4}]
        >>> [_is_best(epochs, keep) for keep in ("first", "last", "lowest-loss", "last-epoch")]
        [False, True, True, True]
    """
    if keep == "last-epoch":
        return True
    *earlier, now = ((row["val_accuracy"], -row["val_loss"] if keep == "lowest-loss" else 0.0) for row in history)
    return all(now >= value if keep == "last" else now > value for value in earlier)


def _overfitting(history: list[dict[str, float]]) -> str | None:
    """Warning when validation loss has risen for three epochs while training loss went on falling; else none.

    Given once, in the first such epoch.
    """
    here = _overfits(history)
    if here is None or any(_overfits(history[:n]) for n in range(1, len(history))):
        return None
    best, now = here
    return (
        f"overfitting: validation loss rose from {best['val_loss']:.4f} (epoch {best['epoch']:.0f}) to "
        f"{now['val_loss']:.4f} (epoch {now['epoch']:.0f}) while training loss fell from {best['train_loss']:.4f} to "
        f"{now['train_loss']:.4f}"
    )


def _overfits(history: list[dict[str, float]]) -> tuple[dict[str, float], dict[str, float]] | None:
    """The epoch of the lowest validation loss and the last one, where only training loss fell since."""
    rows = [row for row in history if {"val_loss", "train_loss"} <= row.keys()]
    if len(rows) <= _OVERFITTING_EPOCHS:
        return None
    best, now = min(rows, key=lambda row: row["val_loss"]), rows[-1]
    recent = rows[-_OVERFITTING_EPOCHS - 1 :]
    rising = all(later["val_loss"] > earlier["val_loss"] for earlier, later in pairwise(recent))
    return (best, now) if rising and now["train_loss"] < best["train_loss"] else None


def _write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write the figures of each epoch as CSV."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    write_csv(path, columns, history, line_end="\r\n")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Lightning's messages and the warnings that do not matter here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in _HARMLESS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _same_switches() -> Iterator[None]:
    """Restore torch's determinism and the handlers of Ctrl-C and SIGTERM, which Lightning replaces."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    on_main_thread = threading.current_thread() is threading.main_thread()
    answers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        for number, answer in answers.items() if on_main_thread else ():
            signal.signal(number, answer)
