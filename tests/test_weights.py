"""Folders of weights: what is written is read, and whatever is wrong is said in one line."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from he2her2.errors import WeightsError
from he2her2.files import sha256_of
from he2her2.models import (
    AGGREGATORS,
    CNNS,
    Card,
    Metric,
    RankingSettings,
    load_engine,
    load_tensors,
    read_card,
    verify,
)
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.card import card_from_json, card_to_json
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.models.export import _write_onnx, save_weights
from he2her2.models.onnx_engine import OnnxEngine
from he2her2.models.torch_engine import TorchEngine
from he2her2.models.torch_modules import initial_weights, module_of

CARD = Card(
    COMPACT_TUMOUR_CNN,
    trained=True,
    notice="trained on toys: no clinical meaning",
    training_data="toys",
    training_licence="CC0-1.0",
    metrics=(Metric("balanced accuracy", "toys, by patient", n=10, value=0.8, low=0.5, high=0.9),),
    limits=("not for patients",),
)
WEIGHTS = initial_weights(COMPACT_TUMOUR_CNN, seed=5)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tumour_cnn"
    save_weights(folder, CARD, WEIGHTS)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A folder of weights that a test may break."""
    return shutil.copytree(original, tmp_path / "tumour_cnn")


def rewrite_card(folder, **fields):
    """Change fields of a card on disk."""
    card = json.loads((folder / "card.json").read_text("utf-8"))
    (folder / "card.json").write_text(json.dumps(card | fields), "utf-8")


def rewrite_tensors(folder, tensors):
    """Put other tensors into a folder, with the hash that belongs to them."""
    save_file(tensors, folder / "weights.safetensors")
    note_file(folder, "weights.safetensors")


def note_file(folder, name):
    """Write a file's hash and size into the card."""
    file = folder / name
    files = json.loads((folder / "card.json").read_text("utf-8"))["files"]
    note = {"sha256": sha256_of(file), "n_bytes": file.stat().st_size}
    rewrite_card(folder, files=files | {name: note})


def load(folder, role="tumour_cnn"):
    return load_engine(folder, role, "cpu")


def test_what_is_saved_is_loaded(original):
    """Card and every tensor come back, and the engine runs them."""
    card = read_card(original, "tumour_cnn")
    verify(original, card)
    tensors = load_tensors(original, card)

    assert replace(card, files={}) == CARD
    assert tensors.keys() == WEIGHTS.keys()
    assert all(np.array_equal(WEIGHTS[name], tensors[name]) for name in WEIGHTS)


def test_both_files_hold_the_same_network(original):
    """The ONNX file and the safetensors file give the same logits."""
    card = read_card(original, "tumour_cnn")
    tiles = np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), dtype=np.uint8)

    from_tensors = TorchEngine(card, load_tensors(original, card), "cpu")(tiles)

    assert np.allclose(from_tensors, OnnxEngine.open(original, card)(tiles), atol=1e-5)


def test_the_card_notes_the_files_hashes(original):
    """The hashes in a prediction's record are those of the files."""
    summary = read_card(original, "tumour_cnn").summary

    assert summary["name"] == "compact-tumour-cnn"
    assert summary["trained"] is True
    assert {name: sha256_of(original / name) for name in ("model.onnx", "weights.safetensors")} == summary["sha256"]


@pytest.mark.parametrize("spec", [*CNNS.values(), *AGGREGATORS.values()], ids=lambda spec: spec.name)
def test_a_card_of_any_network_survives_json(spec):
    """Every network that the settings can name is written and read again."""
    card = Card(spec, trained=False, notice="untrained", seed=3, ranking=RankingSettings(0.15, 1000.0))

    assert card_from_json(card_to_json(card)) == card


def test_an_aggregator_has_no_tile_input():
    """Asking an aggregator for its µm/px is the caller's mistake."""
    with pytest.raises(ValueError, match="its input is a bag, not tiles"):
        _ = Card(PAPER_MLP, trained=False, notice="").input


def test_compact_folders_are_small(tmp_path):
    """Both files of both compact networks stay below 3 MB each."""
    for spec in (STRIDED_TILE_CNN, COMPACT_TUMOUR_CNN):
        save_weights(tmp_path / spec.name, Card(spec, trained=False, notice=""), initial_weights(spec, seed=0))

        for name in ("model.onnx", "weights.safetensors"):
            assert (tmp_path / spec.name / name).stat().st_size < 3e6


def test_saving_replaces_a_folder_whole(folder):
    """Nothing of the old weights stays."""
    (folder / "stale.txt").write_text("old")

    save_weights(folder, CARD, initial_weights(COMPACT_TUMOUR_CNN, seed=6))

    assert {file.name for file in folder.iterdir()} == {"card.json", "model.onnx", "weights.safetensors"}
    assert load(folder).card.trained


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_stopped_save_leaves_the_old_folder(folder, monkeypatch, stop):
    """Whatever stops it half-way, the place holds what it held, and no rest lies beside it."""

    def stopped(*args):
        raise stop

    monkeypatch.setattr("he2her2.models.export.save_file", stopped)
    with pytest.raises(stop):
        save_weights(folder, CARD, initial_weights(COMPACT_TUMOUR_CNN, seed=6))

    assert [folder] == list(folder.parent.iterdir())
    assert np.array_equal(
        WEIGHTS["fc_layers.0.bias"], load_tensors(folder, read_card(folder, "tumour_cnn"))["fc_layers.0.bias"]
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path, value):
    """A diverged training writes nothing."""
    weights = WEIGHTS | {"fc_layers.0.bias": np.full(2, value, np.float32)}

    with pytest.raises(ValueError, match=r"fc_layers\.0\.bias must be finite"):
        save_weights(tmp_path / "x", CARD, weights)

    assert not any(tmp_path.iterdir())


def test_a_missing_folder(tmp_path):
    """The message says what belongs there."""
    with pytest.raises(WeightsError, match="there is no such folder; weights of a tumour_cnn belong there"):
        load(tmp_path / "tumour_cnn")


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "weights.safetensors"])
def test_a_missing_file(folder, name):
    """The message names the file."""
    (folder / name).unlink()

    with pytest.raises(WeightsError, match=f"{name}: is missing; copy the folder again"):
        load(folder)


def test_swapped_folders(folder):
    """Weights of one network in another's folder are named as what they are."""
    with pytest.raises(WeightsError, match=r"are those of a tumour_cnn \(compact-tumour-cnn\), a tile_cnn is wanted"):
        load(folder, "tile_cnn")


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors"])
def test_a_truncated_file(folder, name):
    """Found and wanted sizes are told."""
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) * 6 // 10])

    with pytest.raises(WeightsError, match=rf"{name}: has \d+ bytes where its card says {len(data)}"):
        load(folder)


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors"])
def test_a_changed_file(folder, name):
    """One flipped bit is seen."""
    data = bytearray((folder / name).read_bytes())
    data[-5] ^= 1
    (folder / name).write_bytes(data)

    with pytest.raises(WeightsError, match=f"{name}: is not the file that its card describes"):
        load(folder)


def test_another_networks_tensors(folder):
    """Every key that is missing or unknown, and every other shape, is listed in one line."""
    tensors = load_file(folder / "weights.safetensors")
    del tensors["fc_layers.0.bias"]
    tensors["fc_layers.0.weight"] = np.zeros((2, 100), np.float32)
    tensors["extra"] = np.zeros(1, np.float32)
    rewrite_tensors(folder, tensors)

    with pytest.raises(WeightsError) as caught:
        load(folder)

    message = str(caught.value)
    assert "\n" not in message
    assert "these are not the weights of a compact-tumour-cnn" in message
    assert "fc_layers.0.bias is missing" in message
    assert "extra is unknown" in message
    assert "fc_layers.0.weight is (2, 100) F32 where (2, 256) F32 is wanted" in message


def test_tensors_of_another_type(folder):
    """Half precision is not taken for single."""
    tensors = load_file(folder / "weights.safetensors")
    tensors["fc_layers.0.bias"] = tensors["fc_layers.0.bias"].astype(np.float16)
    rewrite_tensors(folder, tensors)

    with pytest.raises(WeightsError, match=r"fc_layers.0.bias is \(2,\) F16 where \(2,\) F32 is wanted"):
        load(folder)


def test_tensors_that_are_no_numbers(folder):
    """A NaN in a file is found before it reaches a result."""
    tensors = load_file(folder / "weights.safetensors")
    tensors["conv_layers.3.weight"][5, 4, 1, 1] = np.nan
    rewrite_tensors(folder, tensors)

    with pytest.raises(WeightsError, match=r"conv_layers\.3\.weight holds a value that is no number"):
        load(folder)


def test_a_file_that_is_no_safetensors(folder):
    """Even with the hash that belongs to it."""
    (folder / "weights.safetensors").write_bytes(b"not tensors at all")
    note_file(folder, "weights.safetensors")

    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load(folder)


def test_a_file_that_is_no_onnx(folder):
    """Even with the hash that belongs to it."""
    (folder / "model.onnx").write_bytes(b"not a graph at all")
    note_file(folder, "model.onnx")

    with pytest.raises(WeightsError, match=r"model.onnx: is not an ONNX file; copy the folder again"):
        load(folder)


def test_an_onnx_file_of_another_network(folder):
    """Even with the hash that belongs to it."""
    other = module_of(STRIDED_TILE_CNN, initial_weights(STRIDED_TILE_CNN, seed=0))
    _write_onnx(folder / "model.onnx", STRIDED_TILE_CNN, other)
    note_file(folder, "model.onnx")

    with pytest.raises(WeightsError, match=r"not the weights of a compact-tumour-cnn: fc_layers\.1\.weight is missing"):
        load(folder)


def test_an_onnx_file_for_another_input(folder):
    """Even with the same tensors."""
    other = replace(COMPACT_TUMOUR_CNN, input=replace(COMPACT_TUMOUR_CNN.input, side_px=48, network_px=48))
    _write_onnx(folder / "model.onnx", other, module_of(other, WEIGHTS))
    note_file(folder, "model.onnx")

    with pytest.raises(WeightsError, match="where compact-tumour-cnn has"):
        load(folder)


def test_a_card_of_a_later_version(folder):
    """Found and known versions are told."""
    rewrite_card(folder, version=2)

    with pytest.raises(WeightsError, match=r"card\.json: has version 2, this he2her2 reads version 1"):
        load(folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a card: it has no version"),
        (b'{"version": 1}', "is not a card: network: Field required"),
        (b"\xff\xfe", "is not text"),
    ],
)
def test_a_card_that_is_none(folder, text, found):
    """One line says what is wrong with it."""
    (folder / "card.json").write_bytes(text)

    with pytest.raises(WeightsError, match=f"card.json: {found}.*copy the folder again") as caught:
        load(folder)

    assert "\n" not in str(caught.value)


def test_a_card_with_an_unknown_key(folder):
    """A card is not read by halves."""
    rewrite_card(folder, colour="blue")

    with pytest.raises(WeightsError, match="colour: Unexpected"):
        load(folder)


def test_a_card_that_knows_nothing_of_a_file(folder):
    """A file without a hash is not trusted."""
    rewrite_card(folder, files={})

    with pytest.raises(WeightsError, match=r"card\.json: says nothing of model\.onnx"):
        load(folder)
