"""Targets from teachers: who has seen whom, what is asked, and that the pupils learn it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from experiments import side_by_side
from hypothesis import given
from hypothesis import strategies as st

from he2her2.errors import PatchError
from he2her2.models import encoders, read_card
from he2her2.models.torch_modules import initial_weights
from he2her2.training.augmentation import augmented_channels
from he2her2.training.classifier import Batch, CnnClassifier
from he2her2.training.cross_validation import CnnTraining
from he2her2.training.fit import fit
from he2her2.training.run import Execution
from he2her2.training.settings import Hardware
from he2her2.training.tumour.data import NEVER_TRAINED, TRAINING_ONLY
from he2her2.training.tumour.dataset import probability_of
from he2her2.training.tumour.patch_sets import Patches
from he2her2.training.tumour.teaching import assemble, check_teachers, learned_by, parts_of, targets, teachers_of
from tests.test_tumour_training import QUICK, write_set
from tests.tiny_training import SETTINGS, TINY, bright_and_dark

TAUGHT = (*QUICK, "--set", "training.distil=0.5", "--set", "training.teacher_epochs=1")


@pytest.fixture
def tiny_network(monkeypatch):
    """The compact network, much smaller."""
    monkeypatch.setattr(encoders, "CNNS", {**encoders.CNNS, TINY.name: TINY})


@given(st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_no_network_hears_of_its_patients_through_a_teacher(n_folds, seed):
    """A patch's teacher has learned neither from its part nor from what its pupil is evaluated on."""
    rng = np.random.default_rng(seed)
    kinds = [*range(n_folds), TRAINING_ONLY, NEVER_TRAINED]
    fold = np.concatenate([np.arange(n_folds), rng.choice(kinds, 40)])
    part = parts_of(fold, seed)
    teachers = teachers_of(n_folds)

    said = {t: np.where(np.isin(part, t), 2.0**number, np.nan) for number, t in enumerate(teachers)}
    taught = assemble(said, fold, part)

    learns = np.array([(fold != k) & (fold != NEVER_TRAINED) for k in (*range(n_folds), NEVER_TRAINED)])
    assert (np.isfinite(taught) == learns).all()
    for pupil, patch in np.argwhere(learns):
        n_heard = n_folds if pupil == n_folds else 1
        heard = round(taught[pupil, patch] * n_heard)
        by = [teacher for number, teacher in enumerate(teachers) if heard >> number & 1]
        assert len(by) == n_heard
        for teacher in by:
            by_teacher = learned_by(part, teacher)
            assert not by_teacher[part == part[patch]].any()
            assert not by_teacher[fold == pupil].any()
            assert not by_teacher[fold == NEVER_TRAINED].any()


def test_patches_of_unknown_patients_are_in_parts_of_equal_size():
    """Those that train every network are asked of a teacher that has not learned from them, too."""
    fold = np.repeat([0, 1, 2, TRAINING_ONLY, NEVER_TRAINED], [4, 4, 4, 30, 5])

    part = parts_of(fold, seed=3)

    assert np.bincount(part[fold == TRAINING_ONLY]).tolist() == [10, 10, 10]
    assert (part[fold != TRAINING_ONLY] == fold[fold != TRAINING_ONLY]).all()
    assert (part == parts_of(fold, seed=3)).all()


def test_the_loss_is_that_of_the_targets(monkeypatch):
    """With targets that are the labels it is the loss of the labels; with others, their cross-entropy."""
    pixels, labels = bright_and_dark(8)
    module = CnnClassifier(TINY, SETTINGS).train()
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    tiles, uniform = torch.from_numpy(pixels), torch.full((8, 30), 0.5)

    def loss(wanted):
        return module.training_step(Batch(tiles, torch.from_numpy(labels), uniform, wanted), 0).item()

    certain = torch.from_numpy(targets(labels, labels.astype(float), 1))
    doubtful = torch.from_numpy(targets(labels, np.full(8, 0.5), 1))
    seen = augmented_channels(tiles, uniform, SETTINGS.augment, TINY.input.colour, SETTINGS.crop_px)

    assert loss(certain) == pytest.approx(loss(None), rel=1e-6)
    assert loss(doubtful) == pytest.approx(-module.learner(seen).log_softmax(dim=1).mean().item(), rel=1e-6)
    assert loss(doubtful) != pytest.approx(loss(None), rel=1e-3)


def test_teachers_pupils_and_resuming(tmp_path, tiny_network, command_line, monkeypatch):
    """Three folds take six teachers; a training killed among them or after goes on to the same weights."""
    patches = write_set(tmp_path / "set.npz")
    options = ("train", "tumour", "--patches", patches, "--folds", 3, *TAUGHT)
    learned = []

    def spy(module, train, val, folder, *rest, **settings):
        learned.append((folder.relative_to(tmp_path).as_posix(), train.dataset.targets is not None))
        if learned[-1][0].startswith("stopped") and len(learned) in stops:
            raise KeyboardInterrupt
        return fit(module, train, val, folder, *rest, **settings)

    stops: tuple[int, ...] = ()
    monkeypatch.setattr("he2her2.training.cross_validation.fit", spy)
    assert command_line(*options, "--out", tmp_path / "whole")[0] == 0
    teachers = [f"whole/teachers/{name}" for name in ("1-1", "1-2", "1-3", "2-2", "2-3", "3-3")]
    pupils = [*(f"whole/folds/{k}" for k in (1, 2, 3)), "whole"]
    assert learned == [*((name, False) for name in teachers), *((name, True) for name in pupils)]

    for stop in (2, 8):
        stops = (stop,)
        learned.clear()
        assert command_line(*options, "--out", tmp_path / "stopped", "--resume")[0] == 130
    learned.clear()
    assert command_line(*options, "--out", tmp_path / "stopped", "--resume")[0] == 0
    assert [name for name, _ in learned] == [name.replace("whole", "stopped") for name in pupils]  # no teacher again

    cards = [read_card(tmp_path / name / "weights" / "tumour_cnn", "tumour_cnn") for name in ("whole", "stopped")]
    assert cards[0].files == cards[1].files
    assert "50% of each label by teachers that have not seen the patient (1 epochs)" in cards[0].recipe
    for name, epochs in ((teachers[0], 1), (pupils[0], 2)):
        assert len((tmp_path / name / "logs" / "metrics.csv").read_text().splitlines()) == epochs + 1


def test_damaged_answers_are_one_line(tmp_path, tiny_network, command_line):
    """One of another training, no file of numpy, one that is cut off or empty."""
    options = ("train", "tumour", "--patches", write_set(tmp_path / "set.npz"), "--folds", 3, "--out", tmp_path / "run")
    assert command_line(*options, *TAUGHT)[0] == 0
    answers = tmp_path / "run" / "teachers" / "probability.npz"
    np.savez(answers, probability=np.zeros((2, 5)))

    for content in (answers.read_bytes(), b"nothing of the kind", b"PK\x03\x04 cut off", b""):
        answers.write_bytes(content)
        code, _, errors = command_line(*options, *TAUGHT, "--resume")

        assert (code, errors.count("\n")) == (2, 1)
        assert "delete it, and the teachers are asked again" in errors


@pytest.mark.parametrize("folds", [0, 2])
def test_teachers_need_folds(tmp_path, tiny_network, command_line, folds):
    """Said before anything is read."""
    options = ("--patches", tmp_path / "none.npz", "--out", tmp_path / "run", "--folds", folds, *TAUGHT)

    code, _, errors = command_line("train", "tumour", *options)

    assert code == 2
    assert "training.distil: a teacher leaves out two folds; give --folds 3 or more" in errors
    assert not (tmp_path / "run").exists()


def test_a_teacher_without_one_class_is_told(tmp_path, tiny_network, command_line):
    """Each fold has both classes to learn from, but a teacher that leaves out two of three has not."""
    labels, fold = np.arange(24) % 2, np.repeat([0, 1, 2], 8)
    names, nothing = fold.astype(str), np.full(24, "")
    patches = Patches(np.zeros((24, 2, 2, 3), np.uint8), labels, names, nothing, np.zeros(24, np.int64), nothing)

    check_teachers(patches, fold, 0)
    labels[fold == 1] = 1
    with pytest.raises(PatchError, match="without fold 1 and 3 there are no patches of both kinds to teach from"):
        check_teachers(patches, fold, 0)


def test_side_by_side_sees_what_a_training_sees(monkeypatch):
    """Windows on the device are those of the patches, and a teacher's answers those that a training would ask for."""
    monkeypatch.setattr(side_by_side, "GPU", torch.device("cpu"))
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (6, 64, 64, 3), np.uint8)
    names, slack = np.arange(6).astype(str), np.array([4, 0, 4, 2, 0, 4])
    patches = Patches(pixels, np.arange(6) % 2, names, names, slack, np.full(6, ""))
    there = side_by_side.OnGpu.of(patches)
    shift = rng.uniform(-1, 1, (6, 2))
    weights = initial_weights(TINY, 0)
    training = CnnTraining(TINY, SETTINGS, Execution(Hardware()), weights)
    module = CnnClassifier(TINY, SETTINGS, weights)

    windows = there.windows(torch.arange(6), 50, torch.from_numpy(shift))
    answers = side_by_side.probability_of(weights, TINY, there, np.array([5, 1, 3]))

    assert (windows.numpy() == patches.windows(50, shift)).all()
    asked = probability_of(training, module, patches.take(np.array([5, 1, 3])), turned=True)
    assert answers == pytest.approx(asked, abs=1e-6)
    assert answers != pytest.approx(probability_of(training, module, patches.take(np.array([5, 1, 3]))), abs=1e-6)


def test_patches_are_judged_from_both_sides():
    """Whichever side lay up, they get the same probability: of one window, and of the nine of a wide patch."""
    rng = np.random.default_rng(4)
    names, slack = np.arange(6).astype(str), np.array([3, 0, 7, 2, 7, 3])
    patches = Patches(rng.integers(0, 256, (6, 64, 64, 3), np.uint8), np.arange(6) % 2, names, names, slack, names)
    opposite = replace(patches, pixels=np.rot90(patches.pixels, 2, axes=(1, 2)).copy())
    weights = initial_weights(TINY, 0)
    training, module = (
        CnnTraining(TINY, SETTINGS, Execution(Hardware()), weights),
        CnnClassifier(TINY, SETTINGS, weights),
    )

    once, other = (probability_of(training, module, seen) for seen in (patches, opposite))
    both, same = (probability_of(training, module, seen, half_turn=True) for seen in (patches, opposite))

    assert both == pytest.approx(same, abs=1e-6)
    assert np.abs(once - other).min() > 1e-5
    assert ((both > np.minimum(once, other)) & (both < np.maximum(once, other)))[slack < 4].all()
