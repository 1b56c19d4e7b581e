"""The study of the paper's own way: it changes sizes and nothing else, and its page says what came out."""

from dataclasses import asdict

import numpy as np
import pytest
from experiments.paper_sized import page
from experiments.paper_sized.design import (
    MAX_RATE,
    ORDER,
    SIZES,
    STUDIES,
    cohorts_of,
    manifest_of,
    settings_of,
    usable_of,
)
from experiments.paper_sized.page import Decided
from experiments.paper_sized.steps import Work, run_step
from PIL import Image

from he2her2.ablation.methods import METHODS, load_ablation
from he2her2.files import read_json
from he2her2.manifest import read_manifest
from he2her2.phantom import load_cohort, write_cohort
from he2her2.training import Hardware

SIZES_ALONE = {("tiles", name) for name in ("epochs", "learning_rate", "tiles_per_class", "val_tiles_per_class")} | {
    ("slides", name) for name in ("epochs", "learning_rate")
}


@pytest.mark.parametrize("name", [*SIZES])
def test_nothing_but_sizes_differs_from_the_paper(name):
    """Preset paper in every other setting: network, tissue, tiles, optimiser, β, selection, what is kept."""
    paper, ours = load_ablation("paper"), settings_of(SIZES[name], STUDIES["paper"], threads=1)

    changed = {
        (training, key)
        for training in ("tiles", "slides")
        for key, value in asdict(getattr(ours, training)).items()
        if value != asdict(getattr(paper, training))[key]
    }

    assert changed <= SIZES_ALONE
    method, theirs = ours.config.method(), paper.config.method()
    assert method.pop("selection") | {"n_tiles": 0} == theirs.pop("selection") | {"n_tiles": 0}
    assert method == theirs
    assert not ours.slides.freeze_cnn


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_rate_times_its_steps_is_the_papers(name):
    """Or less, where the rate would be beyond what Adam bears."""
    size = SIZES[name]
    tiles = size.tile_rate * size.tile_epochs * -(-4 * size.tiles_per_class // 128)
    slides = size.slide_rate * size.epochs * size.train

    assert slides == pytest.approx(1e-5 * 150 * 30, rel=0.05)
    assert tiles == pytest.approx(1e-5 * 200 * 238, rel=0.05) or size.tile_rate == MAX_RATE


def test_a_slide_with_too_little_tumour_stops_nothing(tmp_path):
    """It is left out with its reason; the others are what is trained on."""
    cohort = load_cohort(
        n=2, seed=3, slide={"size_px": (1536, 1536), "tissue_extent": 0.8, "tumour_share": 0.85, "foci": 1}
    )
    write_cohort(manifest_of(tmp_path, "train").parent, cohort)
    few = next((manifest_of(tmp_path, "train").parent / "truth").glob("*0000*/tumour.png"))
    mask = np.asarray(Image.open(few)).copy()
    mask[:, mask.shape[1] // 3 :] = 0
    Image.fromarray(mask).save(few)
    work = Work(tmp_path, "tiny", Hardware("cpu"), 1)

    run_step(work, "bags/train")

    found = read_json(work.result("bags/train"))
    assert [*found["left_out"]] == ["phantom-3-0000-HE"]
    assert (
        "too small" in found["left_out"]["phantom-3-0000-HE"] or "are needed" in found["left_out"]["phantom-3-0000-HE"]
    )
    assert [row.slide_id for row in read_manifest(usable_of(tmp_path, "train")).rows] == ["phantom-3-0001-HE"]
    assert [bag.row.slide_id for bag in work.bags("train")] == ["phantom-3-0001-HE"]


def test_every_training_is_one_of_its_study():
    """The order names each training once, on cohorts that are drawn; patients of a test are in no training."""
    named = [(study, key) for study, _, key in (step.partition("/") for step in ORDER)]
    cohorts = cohorts_of(SIZES["tiny"])

    assert len({*named}) == len(named)
    assert {(study, method.key) for study, design in STUDIES.items() for method in design.methods} == {*named}
    assert {cohort for design in STUDIES.values() for cohort in design.tests} <= {*cohorts}
    assert len({cohort.seed for cohort in cohorts.values()}) == len(cohorts)
    assert {method.key for method in STUDIES["paper"].methods} == {method.key for method in METHODS}


def decided(probability, called=None):
    truth = np.arange(len(probability)) % 2 == 1
    rows = [
        {"truth": bool(t), "called": bool(p >= 0.5), "probability": float(p), "patient": f"p{i}", "slide": f"s{i}"}
        for i, (t, p) in enumerate(zip(truth, probability, strict=True))
    ]
    return Decided.of("paper/mlp-pretrained", "her2sc-like", rows)


def test_shuffled_labels_tell_chance_from_a_finding():
    """A perfect ranking of twelve is rare among shuffles, one of 924 twice; the same for all is no finding at all."""
    perfect, constant = decided(np.arange(12) % 2 * 0.8 + 0.1), decided(np.full(12, 0.7))

    assert perfect.permuted() == pytest.approx(2 / 924, abs=2e-3)
    assert constant.permuted() == 1
    assert constant.constant == "the same probability for every slide"
    assert perfect.constant == ""
    assert [perfect.counts.tp, perfect.counts.fp] == [6, 0]


def test_the_page_tells_what_is_there_and_what_is_missing(tmp_path, monkeypatch):
    """A run that the clock ended has its rows, the movement of the CNN, and the names of what is not done."""
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    rng = np.random.default_rng(0)

    def rows(n=12):
        return [
            {
                "truth": k % 2 == 1,
                "called": bool(p > 0.5),
                "probability": float(p),
                "patient": f"p{k}",
                "slide": f"s{k}",
            }
            for k, p in enumerate(rng.random(n))
        ]

    epoch = {
        "gradient_share": 0.02, "train_loss": 0.7, "gradient_at_logits": 0.5, "gradient_at_scores": 1.0,
        "cnn_movement": 0.004, "aggregator_movement": 0.1,
    }  # fmt: skip
    layers = ("all", *(f"conv_layers.{k}" for k in range(4)), *(f"fc_layers.{k}" for k in range(3)))
    trained = {"complete": False, "history": [epoch], "kept": 0, "movement": dict.fromkeys(layers, 0.004)}
    steps = {
        "tiles": {"epochs": 1, "history": [{"val_accuracy": 0.6, "epoch": 0.0}], "complete": True},
        "paper/mlp-pretrained": {**trained, "decisions": {name: rows() for name in ("her2sc-like", "brca-like")}},
        "control/mlp-pretrained": {**trained, "decisions": {"control": rows()}},
        "colour": {"decisions": {name: rows() for name in ("her2sc-like", "brca-like", "control")}},
    }
    environment = {"hardware": {"cores": 2}, "versions": {"torch": "2"}}
    about = {"size": "tiny", "hardware": "cpu", "precision": "32-true", "seconds": {"all": 60.0}}

    page.write_page({**about, "environment": environment, "steps": steps})

    text = (tmp_path / "paper_sized_tiny.md").read_text("utf-8")
    assert "| paper, mlp-pretrained | 0.004 |" in text
    assert "| 2.0 % | 0.5 |" in text
    assert "Slide training changed the CNN's weights by 0.004 of their norm" in text
    assert "**The control at signal 0 is clean**" in text
    assert "The clock ended these before their last epoch" in text
    assert "Not done for want of time: paper/mlp-from-scratch" in text
    assert (tmp_path / "paper_sized_tiny.json").is_file()
