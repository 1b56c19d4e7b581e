"""One training on Lightning: killed at any moment and resumed it ends as if nothing had happened."""

import csv
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only

from he2her2.cli.option_groups import TrainingHardware
from he2her2.errors import ConfigError, OutputError, UnreadableRegionError
from he2her2.models.torch_modules import tensors_of
from he2her2.training.classifier import CnnClassifier, LabelledTiles, rate_of
from he2her2.training.cross_validation import CnnTraining, TileSets
from he2her2.training.fit import Fitted, _is_best, _overfitting, load_checkpoint
from he2her2.training.run import Execution
from he2her2.training.settings import Hardware
from tests.conftest import REPOSITORY
from tests.tiny_training import ON_CPU, SETTINGS, TINY, Tiles, fit_tiny, train_tiny

BATCHES_AN_EPOCH = 3


class KilledError(BaseException):
    """Stands for a kill: nothing below catches it as an error."""


def same_weights(one, other):
    ours, theirs = tensors_of(one.cnn), tensors_of(other.cnn)
    return all((ours[name] == theirs[name]).all() for name in theirs)


def epoch_of(checkpoint):
    return torch.load(checkpoint, weights_only=True)["epoch"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A training that nothing stops."""
    folder = tmp_path_factory.mktemp("undisturbed")
    return (*train_tiny(folder), folder)


def test_it_learns(undisturbed):
    """Bright from dark, in a few steps."""
    _, fitted, _ = undisturbed

    assert max(row["val_accuracy"] for row in fitted.history) == 1
    assert fitted.history[-1]["train_loss"] < fitted.history[0]["train_loss"]


def test_it_is_the_same_every_time(undisturbed, tmp_path):
    """The same seed gives the same weights, bit for bit; another seed does not."""
    assert same_weights(train_tiny(tmp_path / "again")[0], undisturbed[0])
    assert not same_weights(train_tiny(tmp_path / "other", settings=replace(SETTINGS, seed=1))[0], undisturbed[0])


def test_the_average_follows_the_weights_that_learn(tmp_path):
    """With a decay of d it is d of what it was and 1 - d of what was learned, step by step; without, the weights."""
    steps: list[dict[str, torch.Tensor]] = []

    def remember(number):
        steps.append({name: tensor.clone() for name, tensor in module.learner.state_dict().items()})

    module = CnnClassifier(TINY, replace(SETTINGS, epochs=2), average=0.5)
    fit_tiny(module, tmp_path, before=remember)
    remember(-1)

    for name, found in module.cnn.state_dict().items():
        expected = steps[0][name]
        for n, step in enumerate(steps[1:], start=1):
            decay = min(0.5, (1 + n) / (10 + n)) if step[name].is_floating_point() else 0
            expected = decay * expected + (1 - decay) * step[name]
        torch.testing.assert_close(found, expected.to(found.dtype))
    plain = CnnClassifier(TINY, SETTINGS)
    assert plain.learner is plain.cnn


@pytest.mark.parametrize("stop", [1, BATCHES_AN_EPOCH, 2 * BATCHES_AN_EPOCH + 1])
def test_stopped_between_two_batches_it_goes_on_as_if_nothing_had_happened(undisturbed, tmp_path, stop):
    """In the first epoch, at the border of two, and in the middle."""

    def kill(number):
        if number == stop:
            raise KilledError

    with pytest.raises(KilledError):
        train_tiny(tmp_path, before=kill)
    module, fitted = train_tiny(tmp_path, resume=True)

    assert same_weights(module, undisturbed[0])
    assert fitted.history == undisturbed[1].history


@pytest.mark.parametrize(("name", "nth"), [("best.ckpt", 1), ("last.ckpt", 2)])
def test_stopped_while_a_checkpoint_is_written(undisturbed, tmp_path, monkeypatch, name, nth):
    """A checkpoint appears whole or not at all, and the epoch is done again, the same."""
    save = Trainer.save_checkpoint
    n_saved = 0

    def stop_in_the_middle(trainer, path):
        nonlocal n_saved
        n_saved += name in path.name
        if name in path.name and n_saved == nth:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"half a checkpoint")
            raise KilledError
        save(trainer, path)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "save_checkpoint", stop_in_the_middle)
        with pytest.raises(KilledError):
            train_tiny(tmp_path)
    module, fitted = train_tiny(tmp_path, resume=True)

    assert same_weights(module, undisturbed[0])
    assert epoch_of(fitted.best) == epoch_of(undisturbed[1].best)


_VICTIM = """
import sys, time
from pathlib import Path
from tests.tiny_training import train_tiny
LAST_BATCH = 11  # it never comes: however late the signal, it meets a training
train_tiny(Path(sys.argv[1]), before=lambda number: time.sleep(0.05 if number < LAST_BATCH else 600))
"""


def test_killed_at_random_it_resumes_to_the_same_weights(undisturbed, tmp_path):
    """A process that gets SIGKILL at a random moment of its training, and another that goes on."""
    victim = subprocess.Popen([sys.executable, "-c", _VICTIM, str(tmp_path)], stderr=subprocess.DEVNULL)
    last = tmp_path / "checkpoints" / "last.ckpt"
    while not last.exists():
        assert victim.poll() is None
        time.sleep(0.005)
    time.sleep(int.from_bytes(os.urandom(1)) / 255 * 0.4)  # the batches that follow take 0.45 s
    victim.send_signal(signal.SIGKILL)

    assert victim.wait() == -signal.SIGKILL
    assert same_weights(train_tiny(tmp_path, resume=True)[0], undisturbed[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_stop_it_and_it_goes_on(undisturbed, tmp_path, number):
    """The command ends as "stopped", not as a success; signals mean what they meant before."""
    answers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def stop(batch):
        if batch == 2 * BATCHES_AN_EPOCH:
            signal.raise_signal(number)

    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path, before=stop)

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == answers
    assert same_weights(train_tiny(tmp_path, resume=True)[0], undisturbed[0])


def test_a_damaged_checkpoint_is_one_clear_line(undisturbed, tmp_path):
    """Copied by half, say."""
    (tmp_path / "checkpoints").mkdir()
    whole = undisturbed[1].last.read_bytes()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(OutputError, match=r"last\.ckpt: is damaged.*--overwrite"):
        train_tiny(tmp_path, resume=True)


_TWO_DEVICES = """
import sys
from pathlib import Path
from he2her2.training.run import Execution
from he2her2.training.settings import Hardware
from tests.tiny_training import train_tiny
train_tiny(Path(sys.argv[1]), hardware=Hardware("cpu", "2", "ddp"))
"""


@pytest.mark.slow
def test_two_processes_train_together(undisturbed, tmp_path):
    """By Lightning's strategy `ddp`; what they leave goes on anywhere."""
    script = tmp_path / "two.py"
    script.write_text(_TWO_DEVICES)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    done = subprocess.run(
        [sys.executable, script, tmp_path / "run"], env=environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    module, fitted = train_tiny(tmp_path / "run", before=pytest.fail, resume=True)
    assert [row["epoch"] for row in fitted.history] == [0, 1, 2, 3]
    assert tensors_of(module.cnn).keys() == tensors_of(undisturbed[0].cnn).keys()


def test_of_several_processes_one_speaks(monkeypatch, capsys):
    """The terminal is told once what all of them do."""
    say = TrainingHardware(devices="2", strategy="ddp").execution().say
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        say(f"process {rank}")

    assert capsys.readouterr().err == "process 0\n"


def test_a_finished_training_resumes_to_itself(undisturbed):
    """Nothing is trained again, and the module holds the last epoch's weights."""
    finished, fitted, folder = undisturbed

    module, again = train_tiny(folder, before=pytest.fail, resume=True)

    assert same_weights(module, finished)
    assert again.history == fitted.history


def test_the_best_epoch_is_kept(undisturbed):
    """The checkpoint is the first with the best validation accuracy, not the last."""
    module, fitted, _ = undisturbed
    best = max(fitted.history, key=lambda row: row["val_accuracy"])

    assert epoch_of(fitted.best) == best["epoch"]
    load_checkpoint(module, fitted.best)
    load_checkpoint(module, fitted.last)


@pytest.mark.parametrize(("validated", "kept"), [("on others", "best"), ("on the judged", "last"), ("not", "last")])
def test_the_best_epoch_comes_back_only_if_other_tiles_chose_it(monkeypatch, tmp_path, validated, kept):
    """A fold is evaluated on its validation tiles: the epoch that suits them best would flatter its figures."""
    loaded: list[Path] = []
    fitted = Fitted(Path("best"), Path("last"), [])
    monkeypatch.setattr("he2her2.training.cross_validation.fit", lambda *_, **__: fitted)
    monkeypatch.setattr("he2her2.training.cross_validation.load_checkpoint", lambda _, path: loaded.append(path))
    train, val, judged = (Unreadable() for _ in range(3))
    sets = {
        "on others": TileSets(train, val, judged),
        "on the judged": TileSets(train, judged, judged),
        "not": TileSets(train, None, judged),
    }

    CnnTraining(TINY, SETTINGS, Execution(ON_CPU)).learn(sets[validated], tmp_path)

    assert loaded == [Path(kept)]


def test_logs_are_there_for_people_and_for_tensorboard(undisturbed):
    """A row an epoch, also across a stop; and an event file."""
    _, fitted, folder = undisturbed
    with (folder / "logs" / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert float(rows[2]["val_loss"]) == fitted.history[2]["val_loss"]
    events = b"".join(file.read_bytes() for file in (folder / "logs").glob("events.*"))
    assert b"val_accuracy" in events


def test_nothing_is_said_of_lightning(undisturbed, tmp_path, capfd):
    """No tips, no tables, no warnings that a user can do nothing about."""
    train_tiny(tmp_path)

    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "wish",
    [Hardware("quantum"), Hardware("cpu", strategy="magic"), Hardware("cpu", precision="3-bit"), Hardware("gpu")],
)
def test_hardware_that_is_not_there_is_one_clear_line(tmp_path, wish):
    """Whatever Lightning says of it, the user hears which options to change."""
    if wish.accelerator == "gpu" and torch.cuda.is_available():
        wish = Hardware("gpu", devices="99")

    with pytest.raises(ConfigError, match="--accelerator") as caught:
        train_tiny(tmp_path, hardware=wish)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork_find_unused_parameters_true", "ddp_notebook"])
def test_strategies_that_hand_nothing_back_are_refused(tmp_path, strategy):
    """Their history would be lost with the processes that made it."""
    with pytest.raises(ConfigError, match=r"--strategy ddp_.*use ddp"):
        train_tiny(tmp_path, hardware=Hardware("cpu", "2", strategy))


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true"])
def test_precisions_of_other_weights_are_refused(tmp_path, precision):
    """The tiles would come in another precision than the weights."""
    with pytest.raises(ConfigError, match=f"--precision {precision}.*bf16-mixed"):
        train_tiny(tmp_path, hardware=Hardware("cpu", "1", precision=precision))


class Unreadable(Tiles, LabelledTiles):
    """Tiles of which the second batch lies in a slide that breaks."""

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, draw):
        if self.number:
            raise UnreadableRegionError("s1", "a tile cannot be decoded", "copy it again")
        return super().__getitem__(draw)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_slide_that_breaks_is_one_clear_line(tmp_path, workers):
    """Also where a process of its own reads."""
    training = CnnTraining(TINY, SETTINGS, Execution(replace(ON_CPU, workers=workers)))

    with pytest.raises(UnreadableRegionError, match=r"^s1: a tile cannot be decoded; copy it again$"):
        training.learn(TileSets(Unreadable()), tmp_path)


def test_a_training_that_diverges_is_one_clear_line(tmp_path):
    """It ended in weights that are no numbers, and a traceback."""
    with pytest.raises(ConfigError, match=r"diverged in epoch 0; lower training\.learning_rate"):
        train_tiny(tmp_path, settings=replace(SETTINGS, learning_rate=1e30))


def test_any_seed_will_do(tmp_path):
    """The time in nanoseconds is one; torch takes smaller ones only."""
    settings = replace(SETTINGS, seed=2**63 - 1, epochs=1)

    assert same_weights(*(train_tiny(tmp_path / name, settings=settings)[0] for name in ("one", "other")))


def test_the_global_switch_of_torch_is_given_back(undisturbed):
    """Training asks for deterministic algorithms; who comes after may not."""
    assert not torch.are_deterministic_algorithms_enabled()


def history(train, val):
    return [{"epoch": i, "train_loss": t, "val_loss": v} for i, (t, v) in enumerate(zip(train, val, strict=True))]


def test_overfitting_is_said_once():
    """When validation loss has risen three times in a row, and not again in later epochs."""
    falling, rising = [9, 8, 7, 6, 5, 4], [5, 3, 4, 5, 6, 7]

    said = [_overfitting(history(falling[:n], rising[:n])) for n in range(7)]

    assert [text is not None for text in said] == [False] * 5 + [True, False]
    assert "from 3.0000 (epoch 1) to 6.0000 (epoch 4)" in str(said[5])


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ([9, 8, 7, 6, 5], [5, 3, 4, 3.5, 5]),  # up and down
        ([4, 5, 6, 7, 8], [5, 3, 4, 5, 6]),  # training is no better: that is another trouble
    ],
)
def test_other_troubles_are_not_overfitting(train, val):
    """Only a validation loss that keeps rising while training loss falls."""
    assert _overfitting(history(train, val)) is None


def test_ties_of_the_best_epoch():
    """The paper keeps the first, the released code the last (PAPER_FACTS); we the one of the lowest loss."""
    figures = [(0.5, 0.1), (0.75, 0.6), (0.75, 0.4), (0.75, 0.5), (0.7, 0.1)]
    epochs = [{"val_accuracy": accuracy, "val_loss": loss} for accuracy, loss in figures]

    def best(keep):
        return [_is_best(epochs[: n + 1], keep) for n in range(len(epochs))]

    assert best("first") == [True, True, False, False, False]
    assert best("last") == [True, True, True, True, False]
    assert best("lowest-loss") == [True, True, True, False, False]
    assert best("last-epoch") == [True] * 5


def test_the_learning_rate_rises_and_falls():
    """A tenth of the steps up to its highest, the others down to almost nothing."""
    shares = [rate_of("cosine", 100)(step) for step in range(100)]

    assert max(shares) == shares[9] == 1
    assert shares[:10] == sorted(shares[:10])
    assert shares[9:] == sorted(shares[9:], reverse=True)
    assert 0 < shares[-1] < 0.01
    assert {rate_of("constant", 100)(step) for step in range(100)} == {1.0}


def test_every_step_is_reported(tmp_path, monkeypatch):
    """Of training and of validation, each by its epoch: a log has a line at any time."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    told = []
    train_tiny(tmp_path, progress=lambda *step: told.append(step))

    assert told[:6] == [
        *(("epoch 1 of 4", k, 3) for k in (1, 2, 3)), *(("validation after epoch 1", k, 3) for k in (1, 2, 3)),
    ]  # fmt: skip
    assert len(told) == 4 * 6


def test_it_stops_in_time_and_goes_on_later(undisturbed, tmp_path):
    """After the epoch in which the time is up it ends as if it were done; resumed, it does the other epochs."""
    whole, fitted, _ = undisturbed

    _, first = train_tiny(tmp_path, until=time.time())
    resumed, second = train_tiny(tmp_path, resume=True)

    assert len(first.history) == 1
    assert first.best.exists()
    assert fitted.history == second.history
    assert same_weights(whole, resumed)


def test_enough_time_changes_nothing(undisturbed, tmp_path):
    """All epochs are trained."""
    assert undisturbed[1].history == train_tiny(tmp_path, until=time.time() + 3600)[1].history
