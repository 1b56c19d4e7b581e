"""The weights that come with the program: whole, small, honest, and of use on a phantom."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from he2her2.config import PRESETS, load_config
from he2her2.geometry import mask_size
from he2her2.manifest import patients_used
from he2her2.method import find_tissue, find_tumour, thumbnail_on_raster, tumour_threshold
from he2her2.models import load_cnn, load_slide_model, read_card, trained_folder, verify
from he2her2.models.export import save_weights
from he2her2.models.slide_model import BUNDLED, BUNDLED_IHC, BUNDLED_IHC_DAB
from he2her2.phantom import make_spec, write_phantom
from he2her2.slides import open_slide
from tests.conftest import REPOSITORY

PLACES = [
    (BUNDLED, "tumour_cnn"),
    (BUNDLED, "tile_cnn"),
    (BUNDLED, "aggregator"),
    (BUNDLED_IHC, "tile_cnn"),
    (BUNDLED_IHC_DAB, "tile_cnn"),
]
PHANTOMS = "trained on phantoms: no clinical meaning"


@pytest.mark.parametrize(("name", "role"), PLACES)
def test_every_folder_is_what_its_card_says(name, role):
    """Hashes, tensors and values are checked; the card tells data, licence, recipe, limits, figures with intervals."""
    folder = trained_folder(name) / role

    card = read_card(folder, role)
    verify(folder, card)

    assert card.trained
    assert "none" not in (card.training_data, card.training_licence, card.recipe)
    assert card.limits
    assert card.metrics
    assert all(metric.low <= metric.value <= metric.high for metric in card.metrics)


@pytest.mark.parametrize(("name", "role"), PLACES)
def test_exporting_them_again_gives_the_same_numbers(name, role, tmp_path):
    """Batch norms fold into convolutions to the bit as they did when the weights were made."""
    folder = trained_folder(name) / role

    save_weights(tmp_path / role, read_card(folder, role), load_file(folder / "weights.safetensors"))

    old, new = (_numbers(file / "model.onnx") for file in (folder, tmp_path / role))
    assert old.keys() == new.keys()
    assert all(np.array_equal(old[key], new[key]) for key in old)


def _numbers(file):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(file).graph.initializer}


def test_all_of_them_are_small():
    """Under 20 MB together."""
    files = [
        file
        for name in (BUNDLED, BUNDLED_IHC, BUNDLED_IHC_DAB)
        for file in trained_folder(name).rglob("*")
        if file.is_file()
    ]

    assert sum(file.stat().st_size for file in files) < 20e6


def test_what_decides_says_that_it_learned_from_phantoms():
    """Every output shows the cards' notices."""
    model = load_slide_model(BUNDLED, PRESETS["default"])

    assert PHANTOMS in model.notices
    assert {model.cards[role].notice for role in ("tile_cnn", "aggregator")} == {PHANTOMS}


def test_the_ihc_network_says_that_no_breast_taught_it():
    """Its real cores are of another organ, whose IHC has other criteria; what starts from it inherits the notice."""
    card = read_card(trained_folder(BUNDLED_IHC) / "tile_cnn", "tile_cnn")

    assert "61 phantoms and 14 real cores of oesophageal adenocarcinoma" in card.notice
    assert "; " not in card.notice  # tables join notices by it


def test_the_tumour_networks_card_tells_real_patches_from_phantoms():
    """And what colour alone can do; both folders hold the same card."""
    one, other = (read_card(trained_folder(name) / "tumour_cnn", "tumour_cnn") for name in (BUNDLED, BUNDLED_IHC))

    assert one == other
    assert "idc_patches: 7078, pcam_jpegs: 12000" in one.training_data
    assert "not trained on: 2907 patches" in one.training_data
    assert "brca-like: 840" in one.training_data
    assert one.threshold == 0.5
    assert any("colour" in limit for limit in one.limits)


def test_their_patients_are_on_record():
    """So that nobody evaluates them on slides that they learned from."""
    assert patients_used(trained_folder(BUNDLED)).hashes


def test_the_tumour_network_finds_a_phantoms_tumour(tmp_path):
    """HASHI with the bundled network, on a patient that it never saw, against the truth."""
    spec = make_spec(seed=987, size_px=(4096, 4096), tissue_extent=0.5, foci=1, ihc_score="3+", signal=1.0)
    truth = write_phantom(tmp_path / "phantom.tif", spec)
    config = load_config("default", None, ["adaptive.iterations=8"])
    with open_slide(tmp_path / "phantom.tif") as slide:
        size = mask_size(slide.size_l0, 32.0)
        tissue, _ = find_tissue(thumbnail_on_raster(slide, 32.0, size), config.tissue, config.quality)
        engine = load_cnn(BUNDLED, "tumour_cnn", config)
        sampling = find_tumour(slide, engine, tissue, 32.0, config)
    found = (sampling.map >= tumour_threshold(engine.card, config.adaptive)) & tissue

    dice = 2 * np.count_nonzero(found & truth.tumour) / (np.count_nonzero(found) + np.count_nonzero(truth.tumour))

    assert dice >= 0.75


def test_the_wheel_carries_them():
    """They lie inside the package, where the build takes everything."""
    package = REPOSITORY / "src" / "he2her2"

    assert all((package / "models" / name / role / "model.onnx").is_file() for name, role in PLACES)


def test_a_prediction_with_them_names_their_patients(tmp_path, command_line):
    """A guard finds them in the run alone, by the name "bundled" or none."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "broken.svs").write_bytes(b"no slide")

    command_line("predict", tmp_path / "slides", "--out", tmp_path / "run")

    assert patients_used(tmp_path / "run").hashes == patients_used(trained_folder(BUNDLED)).hashes != frozenset()


def test_the_folder_of_a_training_stands_for_its_weights(tmp_path):
    """`predict --weights RUN` takes what `train --out RUN` left, as the documentation writes it."""
    (tmp_path / "run" / "weights").mkdir(parents=True)
    (tmp_path / "plain").mkdir()

    assert trained_folder(str(tmp_path / "run")) == tmp_path / "run" / "weights"
    assert trained_folder(str(tmp_path / "plain")) == tmp_path / "plain"
