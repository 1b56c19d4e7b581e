"""Tile CNN and aggregator learn together from slides: end to end, resumed, refused, and told plainly."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from he2her2.errors import ConfigError, ManifestError, OutputError, WeightsError
from he2her2.geometry import TileGrid
from he2her2.labels import Her2Status
from he2her2.manifest import SlideRow, hashed_patient, patients_used, read_manifest, write_patients
from he2her2.method import Appearance
from he2her2.method.inference import blocks_of
from he2her2.models import Card, RankingSettings, encoders, load_tensors, read_card, read_domain
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.encoders.cnn import LITE0_TUMOUR_CNN
from he2her2.models.export import save_weights
from he2her2.models.torch_modules import initial_weights
from he2her2.slides import stream_tiles
from he2her2.training.run import Execution
from he2her2.training.settings import Hardware, load_training
from he2her2.training.slides import train as slide_training
from he2her2.training.slides.bags import LabelledSlide, TumourTiles
from he2her2.training.slides.data import SlideData, initial_networks
from he2her2.training.slides.module import KeptLogits, SlideModule
from he2her2.training.slides.train import _data_in_words, train_slides
from tests.labelled_slides import OVERRIDES, SIDE, TINY, able_weights, write_labelled
from tests.tissue_slides import tissue_pixels, write_tissue

CPU = Hardware(accelerator="cpu")
ON_CPU = Execution(CPU)
NOTICE = "trained on toys: no clinical meaning"
LEARN = ("training.learning_rate=0.003", "training.schedule=constant", "training.epochs=6")


@pytest.fixture(autouse=True, scope="module")
def few_windows():
    """So many show what small slides of one tissue look like."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("he2her2.method.appearance._WINDOWS", 20)
        yield


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch):
    """The settings know the tiny CNN."""
    monkeypatch.setattr(encoders, "CNNS", {**encoders.CNNS, TINY.name: TINY})


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """A manifest of eight slides; positive ones are darker."""
    return write_labelled(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Weights to start from."""
    folder = tmp_path_factory.mktemp("start")
    for spec, weights in ((TINY, able_weights()), (LITE0_TUMOUR_CNN, initial_weights(LITE0_TUMOUR_CNN, seed=3))):
        save_weights(folder / spec.role, Card(spec, trained=True, notice=NOTICE), weights)
    return folder


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """Bags that the tests share."""
    return tmp_path_factory.mktemp("bags")


@pytest.fixture
def train(data, tmp_path):
    """Train with overrides; gives the run's folder."""

    def run(*overrides, out="run", resume=False, preset="default"):
        config, settings = load_training("slides", preset, None, [*OVERRIDES, *overrides])
        train_slides(data, tmp_path / out, config, settings, replace(ON_CPU, resume=resume))
        return tmp_path / out

    return run


@pytest.fixture
def data(cohort, start, bags):
    return SlideData(cohort, start, annotations_use="replace", bags=bags)


def weights_of(run, role="tile_cnn"):
    folder = run / "weights" / role
    return load_tensors(folder, read_card(folder, role))


def log_of(run):
    with (run / "logs" / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def predictions_of(run):
    with (run / "val_predictions.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def learned(cohort, start, bags, tmp_path_factory):
    """A training that has something to learn, from the start weights."""
    out = tmp_path_factory.mktemp("learned")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "CNNS", {**encoders.CNNS, TINY.name: TINY})
        config, settings = load_training("slides", "default", None, [*OVERRIDES, *LEARN])
        train_slides(
            SlideData(cohort, start, annotations_use="replace", bags=bags, notice="toys"),
            out,
            config,
            settings,
            ON_CPU,
        )
    return out


def test_it_learns_what_can_be_seen(learned):
    """Loss falls, the validation slides are told apart, and both networks have moved."""
    log = log_of(learned)

    assert log[-1]["train_loss"] < 0.7 * log[0]["train_loss"]
    assert max(row["val_accuracy"] for row in log) == 1.0
    assert log[-1]["cnn_movement"] > 1e-3
    assert log[-1]["gradient_share"] == 1.0


def test_batch_norms_move_to_the_training_slides_first(train, data, start, tmp_path):
    """Of a frozen CNN nothing else changes; moved once more, they stay."""
    frozen = ("training.move_norms=true", "training.freeze_cnn=true", "training.epochs=1")
    before = load_tensors(start / "tile_cnn", read_card(start / "tile_cnn", "tile_cnn"))

    run = train(*frozen)
    config, settings = load_training("slides", "default", None, [*OVERRIDES, *frozen])
    train_slides(replace(data, weights=run / "weights"), tmp_path / "again", config, settings, ON_CPU)
    after, again = weights_of(run), weights_of(tmp_path / "again")

    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if "running" in name}
    for name, tensor in after.items():
        np.testing.assert_allclose(again[name], tensor, rtol=1e-5, atol=1e-6)


def test_a_network_without_batch_norm_cannot_move_them(train, data, tmp_path, monkeypatch):
    """One line, before anything is read."""
    bare = replace(TINY, convs=tuple(replace(conv, norm=False) for conv in TINY.convs))
    monkeypatch.setattr(encoders, "CNNS", {**encoders.CNNS, TINY.name: bare})
    config, settings = load_training("slides", "default", None, [*OVERRIDES, "training.move_norms=true"])

    with pytest.raises(ConfigError, match=r"training.move_norms: the tiny-tile-cnn has no batch norm"):
        train_slides(replace(data, weights=None, pretrained=False), tmp_path / "run", config, settings, ON_CPU)


def test_the_report_tells_each_slide_and_each_interval(learned):
    """Figures with n and interval, every validation slide, the notices and where the gradient went."""
    report = (learned / "report.md").read_text("utf-8")

    assert "| accuracy | 1.000 (0.398 to 1.000) | 4 |" in report
    assert all(f"| val{i} |" in report for i in range(4))
    assert "NOTICE: toys" in report
    assert f"NOTICE: {NOTICE}" in report
    assert "100.00 % of the selected tiles had any gradient" in report
    assert "did not change" not in report
    assert "their figures flatter" in report


def test_the_cards_say_where_the_weights_come_from(learned, cohort):
    """Data, recipe, figures with intervals, and the notices of user and start weights, in both cards."""
    cards = [read_card(learned / "weights" / role, role) for role in ("tile_cnn", "aggregator")]

    for card in cards:
        assert card.notice == f"toys; {NOTICE}"
        assert "trained on 4 H&E slides (2 positive) of 4 patients" in card.training_data
        assert '"learning_rate": 0.003' in card.recipe
        assert {metric.name for metric in card.metrics} == {"accuracy", "balanced accuracy", "AUC"}
    assert cards[1].ranking == RankingSettings(0.15, 1.0)
    assert patients_used(learned / "weights").hashes == patients_used(learned).hashes
    assert len(patients_used(learned / "weights").hashes) == 8


def test_the_weights_predict_as_validation_said(learned, cohort, tmp_path, command_line):
    """`predict --weights RUN/weights` gives each validation slide the probability of the report."""
    said = {row["slide_id"]: float(row["probability"]) for row in predictions_of(learned)}
    polygon = {"type": "Polygon", "coordinates": [[[0, 0], [640, 0], [640, 1024], [0, 1024], [0, 0]]]}
    (tmp_path / "left.geojson").write_text(json.dumps(polygon))
    options = [part for override in OVERRIDES for part in ("--set", override)]
    code, _, _ = command_line(
        "predict", cohort.parent / "val1.svs", "--weights", learned / "weights", "--out", tmp_path / "run",
        "--annotations", tmp_path / "left.geojson", "--annotations-use", "replace", *options,
    )  # fmt: skip
    record = json.loads((tmp_path / "run" / "slides" / "val1" / "prediction.json").read_text())

    assert code == 0
    assert record["probability"] == pytest.approx(said["val1"], abs=1e-4)
    assert f"toys; {NOTICE}" in record["notices"]


def test_the_log_of_the_kept_epoch_is_what_the_weights_do(learned):
    """Validation in training and prediction by the saved weights decide alike."""
    right = [row["predicted"] == row["her2_status"] for row in predictions_of(learned)]

    assert np.mean(right) == max(row["val_accuracy"] for row in log_of(learned))


def test_the_command_line(cohort, bags, tmp_path, command_line):
    """From random weights, without a tumour CNN: the report is printed, with what the weights lack."""
    options = [part for override in (*OVERRIDES, "training.epochs=1") for part in ("--set", override)]
    code, out, _ = command_line(
        "train", "slides", "--manifest", cohort, "--out", tmp_path / "run", "--tile-weights", "none",
        "--annotations-use", "replace", "--bags", bags, "--notice", "toys", "--accelerator", "cpu", *options,
    )  # fmt: skip

    assert code == 0
    assert "NOTICE: toys" in out
    assert "`weights/` has no `tumour_cnn/`" in out
    assert json.loads((tmp_path / "run" / "run.json").read_text())["inputs"]["pretrained"] is False


def test_a_stopped_training_goes_on_to_the_same_weights(train, monkeypatch):
    """Stopped in the midst of an epoch and resumed, it ends bit for bit where an unbroken one does; so does beta."""
    overrides = (
        "training.epochs=3",
        "training.augment.brightness=0.1",
        "scoring.beta=100.0",
        "training.beta_start=1.0",
    )
    whole = train(*overrides, out="whole")
    steps = 0
    learn = SlideModule.training_step

    def stop(self, draw, index):
        nonlocal steps
        steps += 1
        if steps == 4:  # two draws of two slides an epoch: in the second epoch
            raise RuntimeError("killed")
        return learn(self, draw, index)

    monkeypatch.setattr(SlideModule, "training_step", stop)
    with pytest.raises(RuntimeError, match="killed"):
        train(*overrides, out="broken")
    broken = train(*overrides, out="broken", resume=True)

    for role in ("tile_cnn", "aggregator"):
        for name, tensor in weights_of(whole, role).items():
            assert np.array_equal(tensor, weights_of(broken, role)[name])
    assert log_of(whole) == log_of(broken)
    assert [row["beta"] for row in log_of(broken)] == pytest.approx([1.0, 10.0, 100.0])
    assert steps > 4


def test_a_saturated_soft_argmax_leaves_the_cnn_and_scores_once(train, start, monkeypatch):
    """At beta = 1000 the CNN stays what it was, each slide is scored once in all epochs, and the report says so."""
    scored = []
    score = SlideModule._score

    def count(self, bag, uniform):
        scored.append(bag.row.slide_id)
        return score(self, bag, uniform)

    monkeypatch.setattr(SlideModule, "_score", count)

    run = train("training.epochs=3", preset="paper")

    before = load_tensors(start / "tile_cnn", read_card(start / "tile_cnn", "tile_cnn"))
    assert sorted(scored) == sorted({*scored})
    assert len(scored) == 8
    assert all(np.array_equal(tensor, before[name]) for name, tensor in weights_of(run).items())
    assert "**The tile CNN did not change: only the aggregator was trained.**" in (run / "report.md").read_text("utf-8")
    assert [row["beta"] for row in log_of(run)] == [1000.0] * 3


def test_a_frozen_cnn_stays_and_the_aggregator_learns(train, start):
    """Only the aggregator's weights change."""
    run = train(*LEARN, "training.freeze_cnn=true", "training.epochs=2")

    before = load_tensors(start / "tile_cnn", read_card(start / "tile_cnn", "tile_cnn"))
    fresh = initial_weights(replace(PAPER_MLP, n_tiles=5), seed=0)
    assert all(np.array_equal(tensor, before[name]) for name, tensor in weights_of(run).items())
    assert any(not np.array_equal(tensor, fresh[name]) for name, tensor in weights_of(run, "aggregator").items())
    assert "**The tile CNN was frozen: only the aggregator was trained.**" in (run / "report.md").read_text("utf-8")


def test_a_frozen_cnn_is_seen_by_either_engine_alike(data):
    """ONNX Runtime in place of torch, where nothing has to be learned."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    frozen, learning = module_for(data, "training.freeze_cnn=true"), module_for(data)

    with torch.no_grad():
        by_torch = frozen._forward(pixels, None).numpy()

    assert np.allclose(frozen._frozen_engine(pixels), by_torch, atol=1e-5)
    assert learning._frozen_engine is None


def test_a_cnn_that_learns_scores_overlapping_tiles_as_if_each_were_alone(data, cohort):
    """Their convolutions are shared, with the weights as they are at that moment."""
    module = module_for(data)
    row = read_manifest(cohort).rows[0]
    y, x = np.mgrid[:6, :6] * 32
    grid = TileGrid(np.stack([x.ravel(), y.ravel()], axis=1), 64.0, 64, 0.25)
    status = row.status()
    assert status is not None
    bag = LabelledSlide(row, status, TumourTiles(grid, Appearance((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))))
    assert blocks_of(grid, module._engine) is not None
    with torch.no_grad():
        module.cnn.fc_layers[0].bias += 0.1
        with bag.open(module.config) as slide:
            alone = [module._forward(batch.pixels, None).numpy() for batch in stream_tiles(slide, grid, batch_size=1)]

    together = module._score(bag, None)

    assert np.allclose(together, np.concatenate(alone), atol=1e-5)


def test_running_statistics_stay(learned, start):
    """Batch norms learn weight and bias, but a slide is no sample of all tiles."""
    before = load_tensors(start / "tile_cnn", read_card(start / "tile_cnn", "tile_cnn"))
    after = weights_of(learned)

    assert all(np.array_equal(before[name], after[name]) for name in before if ".running_" in name)
    assert not np.array_equal(before["norm_layers.0.weight"], after["norm_layers.0.weight"])


def test_baselines_train_the_cnn_without_weights_of_their_own(train):
    """They send their gradient straight through, and need no aggregator's folder to predict."""
    run = train(*LEARN, "networks.aggregator=released-median", "training.epochs=1")

    assert log_of(run)[0]["cnn_movement"] > 0
    assert not (run / "weights" / "aggregator").exists()
    assert {row["probability"] for row in predictions_of(run)} <= {"0.000000", "1.000000"}


def test_a_frozen_cnn_under_a_baseline_is_refused(train):
    """Nothing would learn."""
    with pytest.raises(ConfigError, match=r"training.freeze_cnn: .* leaves nothing to train"):
        train("networks.aggregator=mean", "training.freeze_cnn=true")


def test_each_network_has_its_rate(train, learned):
    """A CNN at a rate a thousand times smaller moves a thousand times less, under the same aggregator."""
    run = train(*LEARN, "training.epochs=1", "training.learning_rate=3e-6", "training.aggregator_rate=0.003")

    moved, moved_by_both = log_of(run)[0]["cnn_movement"], log_of(learned)[0]["cnn_movement"]
    assert 3e-4 * moved_by_both < moved < 3e-3 * moved_by_both


def module_for(data, *overrides):
    config, settings = load_training("slides", "default", None, [*OVERRIDES, *overrides])
    return SlideModule(initial_networks(data, config, settings), settings, config, [], [])


def test_augmentation_varies_a_slide_as_a_whole(data):
    """All its tiles by the same random numbers, in scoring as in learning; validation never."""
    module = module_for(data, "training.augment.brightness=0.2", "training.augment.dihedral=true")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    pixels[2] = pixels[0]
    uniform = torch.rand(8, generator=torch.Generator().manual_seed(0))

    plain, varied = module._forward(pixels, None), module._forward(pixels, uniform)

    assert torch.allclose(varied[0], varied[2], atol=1e-6)
    assert not torch.allclose(plain, varied)


def test_shared_logits_hold_for_one_network_only(data):
    """Other weights are scored anew; the same, from another training, are not."""
    kept, module = KeptLogits(), module_for(data)
    first = kept.get(module.cnn, "a", lambda: np.zeros((1, 4), np.float32))
    again = kept.get(module_for(data).cnn, "a", lambda: np.ones((1, 4), np.float32))
    with torch.no_grad():
        module.cnn.fc_layers[0].bias[0] += 1e-6
    moved = kept.get(module.cnn, "a", lambda: np.ones((1, 4), np.float32))

    assert first is again
    assert moved[0, 0] == 1


@pytest.mark.parametrize("precision", ["16-mixed", "16-true"])
def test_half_precision_is_refused(data, tmp_path, precision):
    """Pieces of a gradient cannot be scaled as a loss can."""
    config, settings = load_training("slides", "default", None, OVERRIDES)

    with pytest.raises(ConfigError, match="use 32-true or bf16-mixed"):
        train_slides(data, tmp_path, config, settings, Execution(replace(CPU, precision=precision)))


def test_all_that_is_wrong_is_told_before_training(cohort, start, tmp_path):
    """Slides that give no bag, each with its line; no epoch has begun."""
    folder = shutil.copytree(cohort.parent, tmp_path / "cohort")
    write_tissue(folder / "train0.svs", tissue_pixels(1024, share=0.0))
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "val1.png")
    config, settings = load_training("slides", "default", None, OVERRIDES)

    with pytest.raises(ManifestError) as caught:
        train_slides(
            SlideData(folder / "manifest.csv", start, annotations_use="replace"),
            tmp_path / "run",
            config,
            settings,
            ON_CPU,
        )

    assert [problem.split(":")[0] for problem in caught.value.problems[1:]] == ["line 2", "line 7"]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_one_class_and_shared_patients_are_refused(cohort, start, tmp_path):
    """The manifest's own faults come first, all of them."""
    text = cohort.read_text("utf-8").replace("p-val0", "p-train0")
    for i in (1, 3):
        text = text.replace(f"p-train{i},HE,positive", f"p-train{i},HE,negative")
    folder = shutil.copytree(cohort.parent, tmp_path / "cohort")
    (folder / "manifest.csv").write_text(text, "utf-8")
    config, settings = load_training("slides", "default", None, OVERRIDES)

    with pytest.raises(ManifestError, match=r"(?s)p-train0.*two classes are needed"):
        train_slides(SlideData(folder / "manifest.csv", start), tmp_path / "run", config, settings, ON_CPU)


def test_a_start_that_knows_the_validation_patients_is_told(data, tmp_path):
    """The epoch is picked on patients that the CNN has learned from."""
    write_patients(tmp_path, {"training_patients": [hashed_patient("p-val0")], "validation_patients": []})
    told = slide_training._known_validation(replace(data, weights=tmp_path), read_manifest(data.manifest).rows)

    assert told == ("the weights to begin with were trained with 1 of the validation patients: their figures flatter",)
    assert not slide_training._known_validation(data, read_manifest(data.manifest).rows)


def test_a_start_without_weights(cohort, tmp_path):
    """The message names both ways on."""
    config, settings = load_training("slides", "default", None, OVERRIDES)

    with pytest.raises(ConfigError, match=r"give --weights FOLDER .or bundled., or --tile-weights none"):
        train_slides(SlideData(cohort), tmp_path / "run", config, settings, ON_CPU)
    with pytest.raises(ConfigError, match="no tumour CNN: give --weights FOLDER"):
        train_slides(SlideData(cohort, pretrained=False), tmp_path / "run", config, settings, ON_CPU)


def test_start_weights_of_another_network(cohort, start, tmp_path):
    """The settings name a network that the folder does not hold."""
    config, settings = load_training("slides")

    with pytest.raises(WeightsError, match="holds a tiny-tile-cnn where the settings want a strided-tile-cnn"):
        train_slides(SlideData(cohort, start), tmp_path / "run", config, settings, ON_CPU)


def test_another_training_in_the_folder_is_left_alone(train):
    """Neither begun over nor resumed with other settings."""
    train("training.epochs=1")

    train("training.epochs=1", resume=True)  # finished already: the same again
    with pytest.raises(OutputError, match="--resume goes on with it, --overwrite replaces it"):
        train("training.epochs=1")
    with pytest.raises(ConfigError, match=r"training\.epochs was 1, now 2"):
        train("training.epochs=2", resume=True)


@pytest.mark.parametrize("rule", ["hard", "perturbed"])
def test_cnn_and_selection_are_one_optimisation(train, rule):
    """The paper's rule with a score head of its own: gradients reach the CNN, by noise also from tiles not selected."""
    run = train(
        "networks.aggregator=ranked-features", f"training.selection={rule}", "training.beta_start=0.5",
        "training.epochs=2", "training.learning_rate=0.003",
    )  # fmt: skip

    first, last = log_of(run)
    report = (run / "report.md").read_text("utf-8")
    assert last["cnn_movement"] > 0
    assert last["aggregator_movement"] > 0
    assert (first["beta"], last["beta"]) == (0.5, 1.0)
    assert read_card(run / "weights" / "aggregator", "aggregator").network.name == "ranked-features"
    if rule == "hard":
        assert last["gradient_share"] < 0.5  # of all tiles, those in the top 15 %
        assert "selection_mismatch" not in last
    else:
        assert last["gradient_share"] > 0.9
        assert 0 < last["selection_mismatch"] < 1
        assert "of the continuous selection lies beside the tiles that are taken" in report


def test_trained_weights_tell_of_a_slide_unlike_their_training_slides(start, tmp_path, command_line, learned):
    """Of 24 slides and more the training keeps what they look like; of fewer it says that predict cannot tell."""
    data = SlideData(write_labelled(tmp_path, {"train": 16, "val": 8}), start, annotations_use="replace")
    config, settings = load_training("slides", "default", None, [*OVERRIDES, "training.epochs=1"])
    train_slides(data, tmp_path / "run", config, settings, ON_CPU)
    weights = tmp_path / "run" / "weights"
    blue = tmp_path / "blue.svs"
    write_tissue(blue, tissue_pixels(SIDE, share=0.5, seed=1)[..., ::-1].copy())
    options = (
        "--annotations-use", "replace", "--annotations", tmp_path / "train0.png",
        *(word for setting in OVERRIDES for word in ("--set", setting)),
    )  # fmt: skip

    def predict(slide, out, folder=weights):
        return command_line("predict", slide, "--out", tmp_path / out, "--weights", folder, *options)[1]

    like, unlike = predict(tmp_path / "train0.svs", "like"), predict(blue, "unlike")

    domain = read_domain(weights, {role: read_card(weights / role, role) for role in ("tumour_cnn", "tile_cnn")})
    assert domain is not None
    assert domain.slides == 24
    assert domain.texture is not None
    assert "24 training and validation slides" in (tmp_path / "run" / "report.md").read_text()
    assert like.startswith("train0: HER2")
    assert "not checked" not in like
    assert unlike.startswith("blue: UNLIKE the training slides of these weights")
    assert not (learned / "weights" / "domain.json").exists()
    assert "8 slides are too few to say what is like them (24 are needed)" in (learned / "report.md").read_text()
    said = predict(tmp_path / "train0.svs", "few", learned / "weights")
    assert "domain   not checked: these weights do not say what their training slides look like" in said


def test_a_card_counts_patients_however_they_are_written():
    """Two spellings of one patient are no two patients."""
    tiles = TumourTiles(TileGrid(np.zeros((3, 2), np.int64), 64.0, 64, 0.25), Appearance((0.0,) * 3, (1.0,) * 3))
    names = ("TCGA-A1-A0SK-01Z-00-DX1", "TCGA-A1-A0SK-01Z-00-DX2", "P 1", "p 1")
    rows = [SlideRow(k, f"s{k}", Path("s.svs"), name, "HE", split="train") for k, name in enumerate(names)]

    told = _data_in_words(SlideData(Path("m.csv")), [LabelledSlide(row, Her2Status.POSITIVE, tiles) for row in rows])

    assert "trained on 4 H&E slides (4 positive) of 2 patients, 12 tiles" in told
