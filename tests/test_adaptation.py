"""Weights are adapted to slides of unknown status: batch norms, threshold, cards, record of patients, refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from he2her2.cohort import SlideTask
from he2her2.errors import ConfigError, EvaluationError, OutputError
from he2her2.manifest import patients_used, read_manifest, shared_patients
from he2her2.models import (
    Card,
    RankingSettings,
    SlideModel,
    encoders,
    load_slide_model,
    load_tensors,
    read_card,
    verify,
)
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, PAPER_TILE_CNN
from he2her2.models.export import save_weights
from he2her2.models.torch_engine import prepare_on_device
from he2her2.models.torch_modules import initial_weights, module_of, tensors_of
from he2her2.statistics import share_by_em, threshold_at_prior, threshold_at_share, threshold_in_valley
from he2her2.training.slides.adaptation import Adaptation, adapt_weights
from he2her2.training.slides.batch_norms import fused_weights
from tests.labelled_slides import OVERRIDES, TINY, able_weights, tiny_config, write_labelled
from tests.slide_files import corrupt_tile, tile_spans

MLP = replace(PAPER_MLP, n_tiles=5)
NETWORKS = f"networks.tumour_cnn={COMPACT_TUMOUR_CNN.name}"
SETTINGS = [word for text in (*OVERRIDES, NETWORKS) if "n_tiles" not in text for word in ("--set", text)]
TINY_BARE = replace(TINY, convs=tuple(replace(conv, norm=False) for conv in TINY.convs))


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    """The settings know the tiny CNN."""
    monkeypatch.setattr(encoders, "CNNS", {**encoders.CNNS, TINY.name: TINY})


def write_weights(folder, tile_spec, tile_weights):
    """A folder of weights with a record of one patient."""
    for spec, weights in ((COMPACT_TUMOUR_CNN, None), (tile_spec, tile_weights), (MLP, None)):
        ranking = RankingSettings(0.15, 1.0) if spec is MLP else None
        card = Card(spec, trained=True, notice="", ranking=ranking, recipe="made up")
        save_weights(folder / spec.role, card, initial_weights(spec, seed=3) if weights is None else weights)
    (folder / "patients.json").write_text(json.dumps({"training_patients": ["a" * 32], "validation_patients": []}))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of the tiny CNN and an aggregator."""
    return write_weights(tmp_path_factory.mktemp("weights"), TINY, able_weights())


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A manifest of eight slides."""
    return write_labelled(tmp_path_factory.mktemp("cohort"))


@pytest.fixture
def adapt(command_line, weights, cohort, tmp_path):
    """Adapt to all slides with options; gives exit code, standard output and standard error."""

    def run(*options, what=(cohort,), start=weights, out="adapted"):
        use = ("--annotations-use", "replace") if what == (cohort,) or "--annotations" in options else ()
        words = ("--weights", start, *use, *SETTINGS, "--out", tmp_path / out)
        return command_line("weights", "adapt", *what, *words, *options)

    return run


def tiles(n_slides=4, n=6, seed=0):
    """(n, s, s, 3) even values of each of some slides, none of them like another."""
    rng = np.random.default_rng(seed)
    side = TINY.input.side_px
    coarse = rng.integers(20, 100, (n_slides, n, side // 4, side // 4, 1), np.uint8)
    fine = rng.integers(0, 12, (n_slides, n, side, side, 3), np.uint8)
    return 2 * (coarse.repeat(4, axis=2).repeat(4, axis=3) + fine)


def logits_of(weights, slides):
    """(m, k) logits of all tiles."""
    with torch.no_grad():
        pixels = torch.from_numpy(np.concatenate(slides))
        return module_of(TINY, weights)(prepare_on_device(pixels, TINY.input.colour)).numpy()


def norm_tensors(weights):
    """Statistics of the batch norms."""
    return {name: tensor for name, tensor in weights.items() if "running" in name}


def test_all_of_alpha_is_what_torch_learns_in_one_step():
    """The statistics are those of training mode on all tiles at once, but for torch's n - 1."""
    slides = tiles()
    module: Any = module_of(TINY, {name: tensor.copy() for name, tensor in able_weights().items()})
    for norm in module.norm_layers:
        norm.momentum = 1.0

    found = fused_weights(TINY, able_weights(), slides, 1.0)
    with torch.no_grad():
        module.train()(prepare_on_device(torch.from_numpy(np.concatenate(slides)), TINY.input.colour))

    for name, expected in norm_tensors(tensors_of(module)).items():
        np.testing.assert_allclose(found[name], expected, rtol=2e-3, atol=1e-5)


def test_nothing_of_alpha_changes_nothing_and_only_statistics_ever_change():
    """Alpha 0 gives the same weights; at one half the first layer's mean lies halfway."""
    start, slides = able_weights(), tiles()

    none, half, whole = (fused_weights(TINY, start, slides, alpha) for alpha in (0.0, 0.5, 1.0))

    for name, tensor in start.items():
        np.testing.assert_array_equal(none[name], tensor)
        if "running" not in name:
            np.testing.assert_array_equal(whole[name], tensor)
    first = "norm_layers.0.running_mean"
    np.testing.assert_allclose(half[first], (start[first] + whole[first]) / 2, rtol=1e-5)
    assert np.abs(whole[first] - start[first]).max() > 0.01


def test_another_light_and_contrast_is_undone():
    """Half the contrast and another brightness move the logits far; adapted to each, they are alike."""
    start, slides = able_weights(), tiles()
    other = (slides // 2 + 40).astype(np.uint8)
    scale = np.abs(logits_of(start, slides)).max()

    moved = np.abs(logits_of(start, other) - logits_of(start, slides)).max() / scale
    adapted = [logits_of(fused_weights(TINY, start, shown, 1.0), shown) for shown in (slides, other)]

    assert moved > 0.1
    np.testing.assert_allclose(adapted[0], adapted[1], atol=0.02 * scale)


def test_a_slide_counts_once_however_many_tiles_it_has():
    """Repeating the tiles of one slide changes nothing."""
    slides = list(tiles())

    found = fused_weights(TINY, able_weights(), slides, 1.0)
    repeated = fused_weights(TINY, able_weights(), [np.concatenate([slides[0]] * 3), *slides[1:]], 1.0)

    for name, tensor in norm_tensors(found).items():
        np.testing.assert_allclose(repeated[name], tensor, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_a_share_is_called_positive(share):
    """The threshold calls as many patients positive as it should, on both sides of one half."""
    probability = np.random.default_rng(0).beta(0.5, 2, 40)

    threshold = threshold_at_share(probability, share)

    assert np.count_nonzero(probability >= threshold) == round(40 * share)


def test_a_share_of_too_few_patients_is_refused():
    """One in a hundred of twenty patients is nobody."""
    with pytest.raises(EvaluationError, match="none or all"):
        threshold_at_share(np.linspace(0.1, 0.9, 20), 0.01)


def test_the_valley_lies_between_two_groups():
    """Wherever the groups lie, and however unequal they are."""
    rng = np.random.default_rng(0)
    low, high = (1 / (1 + np.exp(-(centre + 0.4 * rng.standard_normal(n)))) for centre, n in ((2.0, 30), (6.0, 10)))

    threshold = threshold_in_valley(np.concatenate([low, high]))

    assert low.max() < threshold < high.min()
    with pytest.raises(EvaluationError, match="the same score"):
        threshold_in_valley([0.5, 0.5])


def test_em_finds_the_share_where_nothing_but_the_share_differs():
    """Calibrated scores of one patient in ten, by a classifier that saw as many positives as negatives."""
    rng = np.random.default_rng(0)
    positive = rng.random(4000) < 0.1
    logit = 2.0 * (rng.standard_normal(4000) + np.where(positive, 1, -1))  # log of the two densities' ratio

    share = share_by_em(1 / (1 + np.exp(-logit)), 0.5)

    assert share == pytest.approx(0.1, abs=0.02)
    assert threshold_at_prior(0.5, 0.1) == pytest.approx(0.9)
    assert threshold_at_prior(0.3, 0.3) == pytest.approx(0.5)


def test_new_weights_predict_by_their_threshold(adapt, weights, cohort, tmp_path, command_line):
    """Whole weights, other statistics, a threshold in the card that decides, and cards that tell what was done."""
    code, out, error = adapt("--alpha", 0.5, "--threshold", "share", "--share", 0.25)
    folder = tmp_path / "adapted"

    assert code == 0, error
    assert "adapted to 8 slides of 8 patients; batch norms moved by 0.5 to" in out
    assert "calls 25% of these patients positive" in out
    for role in ("tumour_cnn", "tile_cnn", "aggregator"):
        verify(folder / role, read_card(folder / role, role))
    tile_card, aggregator = read_card(folder / "tile_cnn", "tile_cnn"), read_card(folder / "aggregator", "aggregator")
    before, after = (
        load_tensors(one / "tile_cnn", read_card(one / "tile_cnn", "tile_cnn")) for one in (weights, folder)
    )
    assert {name for name in before if not np.array_equal(before[name], after[name])} == set(norm_tensors(before))
    assert "adapted to 8 unlabelled slides of 8 patients" in tile_card.training_data
    assert "made up; he2her2 weights adapt: batch norms moved by alpha 0.5" in tile_card.recipe
    assert "has not been measured" in " ".join(tile_card.limits)
    model = load_slide_model(str(folder), tiny_config(NETWORKS))
    assert model.threshold(tiny_config(NETWORKS)) == aggregator.threshold
    assert model.threshold(tiny_config(NETWORKS, "stored_rules=false", "threshold=0.3")) == 0.3
    words = ("--weights", folder, "--annotations-use", "replace", *SETTINGS, "--workers", 0, "--out", tmp_path / "run")
    code, _, error = command_line("predict", cohort, *words)
    assert code == 0, error
    rows = [line.split(",") for line in (tmp_path / "run" / "predictions.csv").read_text().splitlines()]
    status, shown = rows[0].index("status"), rows[0].index("threshold")
    assert [row[status] for row in rows[1:]].count("positive") == 2
    assert [float(row[shown]) for row in rows[1:]] == pytest.approx([aggregator.threshold] * 8, abs=1e-6)


def test_a_threshold_of_ones_own_beside_that_of_the_card_is_refused(adapt, tmp_path):
    """Which of the two decides must be said."""
    adapt("--threshold", "valley")

    with pytest.raises(
        ConfigError, match=r"comes with a threshold.*threshold=0.4 is set; add --set stored_rules=false"
    ):
        load_slide_model(str(tmp_path / "adapted"), tiny_config(NETWORKS, "threshold=0.4"))
    with pytest.raises(ConfigError, match=r"threshold=0.5 is set"):  # which is the usual one, but chosen
        load_slide_model(str(tmp_path / "adapted"), tiny_config(NETWORKS, "threshold=0.5"))


def test_the_highest_threshold_is_kept(adapt, tmp_path):
    """Whatever the settings may hold, the card may."""
    code, out, error = adapt("--set", "threshold=1", "--set", "stored_rules=false")

    assert code == 0, error
    assert "threshold 1: calls" in out
    assert read_card(tmp_path / "adapted" / "aggregator", "aggregator").threshold == 1


def test_a_threshold_that_no_card_can_state_is_told_before_the_work(adapt, monkeypatch):
    """That of an operating point, which may call every patient positive."""
    monkeypatch.setattr(SlideModel, "threshold", lambda *_: 0.0)

    code, _, error = adapt()

    assert code == 2
    assert "the kept threshold, 0, calls every slide positive" in " ".join(error.split())


def test_the_patients_are_recorded_as_used(adapt, cohort, tmp_path):
    """Those of the slides beside those of the weights, so that nobody tests on them."""
    adapt()
    used = patients_used(tmp_path / "adapted")

    assert used.complete
    assert len(used.hashes) == 9
    assert len(shared_patients(read_manifest(cohort).rows, tmp_path / "adapted")) == 8


def test_a_patient_is_one_however_it_is_written(weights, cohort, tmp_path):
    """Two of a patient's slides are one case for the threshold."""
    tasks = [SlideTask.of_row(row) for row in read_manifest(cohort).rows]
    patients = {task.slide_id: f"{'pP'[k % 2]}{k // 2}" for k, task in enumerate(tasks)}
    asked = Adaptation(weights, 0, "valley", region_use="replace")

    found = adapt_weights(asked, tasks, patients, tmp_path / "out", tiny_config(NETWORKS))

    assert (found.n_slides, found.n_patients) == (8, 4)


def test_the_order_of_the_slides_changes_nothing(adapt, cohort, tmp_path):
    """Slides named in two orders give the same bytes."""
    slides = sorted(cohort.parent.glob("*.svs"))
    for name, what in (("one", slides), ("two", slides[::-1])):
        code, *_ = adapt("--threshold", "valley", "--annotations", cohort.parent, what=what, out=name)
        assert code == 0
    files = [{f.relative_to(tmp_path / name): f.read_bytes() for f in (tmp_path / name).rglob("*") if f.is_file()}
             for name in ("one", "two")]  # fmt: skip

    assert files[0] == files[1]


def test_a_network_without_batch_norm_is_told_and_keeps_its_threshold_to_choose(adapt, tmp_path, monkeypatch):
    """The paper's network has none: one line says what is left to do, and that works."""
    assert not any(conv.norm for conv in PAPER_TILE_CNN.convs)
    monkeypatch.setattr(encoders, "CNNS", {**encoders.CNNS, TINY.name: TINY_BARE})
    start = write_weights(tmp_path / "bare", TINY_BARE, initial_weights(TINY_BARE, seed=1))

    code, _, error = adapt(start=start)
    assert (code, "has no batch norm, so that only the threshold can be adapted" in error) == (2, True)
    code, out, error = adapt("--alpha", 0, "--threshold", "share", "--share", 0.5, start=start)

    assert code == 0, error
    assert "batch norms as they were" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--alpha", 0), "changes nothing"),
        (("--threshold", "share"), "--share and --threshold share belong together"),
        (("--share", 0.5), "--share and --threshold share belong together"),
        (("--set", "networks.aggregator=mean", "--threshold", "valley"), "has no threshold"),
    ],
)
def test_what_cannot_be_adapted_is_refused(adapt, tmp_path, options, words):
    """One line, and no folder."""
    code, _, error = adapt(*options)

    assert code == 2
    assert words in error
    assert not (tmp_path / "adapted").exists()


def test_too_few_slides_are_refused_and_a_broken_one_is_left_out(adapt, cohort, tmp_path):
    """Eight are the fewest; the one that failed is named, also one whose tiles cannot be decoded."""
    slides = sorted(cohort.parent.glob("*.svs"))
    (tmp_path / "broken.svs").write_bytes(b"no slide")

    code, _, error = adapt("--annotations", cohort.parent, what=(*slides[:7], tmp_path / "broken.svs"))

    assert code == 2
    assert "7 of 8 slides can be used, and 8 are the fewest to adapt to; the first that failed: broken" in error
    regions = tmp_path / "regions"
    shutil.copytree(cohort.parent, regions, ignore=shutil.ignore_patterns("*.svs"))
    shutil.copy(regions / f"{slides[0].stem}.png", regions / "damaged.png")
    damaged = shutil.copy(slides[0], tmp_path / "damaged.svs")
    for index in range(len(tile_spans(damaged))):
        corrupt_tile(damaged, index)
    code, out, error = adapt("--annotations", regions, what=(*slides, tmp_path / "broken.svs", damaged))
    assert (code, "adapted to 8 slides" in out, "LEFT OUT broken" in error) == (0, True, True)
    assert "tumour tiles cannot be decoded" in error


def test_the_bundled_weights_are_adapted_only_on_purpose(command_line, adapt, cohort, tmp_path):
    """No weights are taken by default; who names the bundled ones is told what that cost."""
    code, _, errors = command_line("weights", "adapt", cohort, "--out", tmp_path / "adapted")
    assert code == 2
    assert "--weights" in errors

    few = sorted(cohort.parent.glob("*.svs"))[:2]
    code, _, errors = adapt(what=few, start="bundled")
    assert code == 2  # two slides are too few for anybody
    assert "NOTE the bundled weights were not trained to be adapted" in errors
    assert "NOTE the bundled" not in adapt(what=few)[2]


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    """Not once the tiles of all slides have been read."""
    (tmp_path / "file").touch()

    with pytest.raises(OutputError, match="is a file"):
        adapt_weights(Adaptation(Path("nowhere"), 1.0), (), {}, tmp_path / "file" / "out", tiny_config(NETWORKS))
