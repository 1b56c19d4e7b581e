"""Feature encoders and `he2her2 features`: what is extracted is what the network gives of the tiles that are there."""

import json
import os
import shutil
import sys
import types
from dataclasses import replace

import h5py
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from he2her2.cohort import FeatureWorker
from he2her2.config import Config
from he2her2.errors import ConfigError, WeightsError
from he2her2.exchange import StoredTiles, read_tiles_file, write_tiles_files
from he2her2.geometry import Point, Size
from he2her2.models import TILE_CNN, EncoderNote, load_encoder, load_engine, trained_folder, why_not_of
from he2her2.models.efficientnet_lite0 import lite0_module
from he2her2.models.encoders import FeatureCard, HubModel, InputSpec, prepare_input
from he2her2.models.export import onnx_of
from he2her2.models.torch_engine import TorchEncoder, penultimate_module
from he2her2.models.weights import load_tensors, read_card
from he2her2.results import read_failures
from he2her2.slides import open_slide
from tests.tissue_slides import tissue_pixels, write_tissue

BUNDLED = trained_folder("bundled")
ONE_THREAD = ("--threads", "1", "--device", "cpu")
QUICK = ("--region", "tissue", *ONE_THREAD)
MEAN, STD = (0.7, 0.5, 0.7), (0.2, 0.25, 0.2)


class Small(nn.Module):
    """Means and spreads of each channel."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 5)

    def forward(self, tiles):
        return self.mix(torch.cat([tiles.mean(dim=(2, 3)), (tiles * tiles).mean(dim=(2, 3))], dim=1))


def small(seed=0):
    torch.manual_seed(seed)
    return Small().eval()


def write_card(folder, model, *, side_px=64, network_px=48, mpp=0.5, n_features=5):
    folder.mkdir(exist_ok=True)
    tile = {"mpp": mpp, "side_px": side_px, "network_px": network_px, "colour": "rgb"}
    card = {"name": "small", "input": tile, "n_features": n_features, "model": model, "mean": MEAN, "std": STD}
    (folder / "card.json").write_text(json.dumps(card))
    return folder


def onnx_encoder(folder, **card):
    write_card(folder, {"kind": "onnx"}, **card)
    side = card.get("network_px", 48)
    (folder / "model.onnx").write_bytes(onnx_of(small(), (3, side, side), "small"))
    return folder


def write_graph(folder, inputs, node):
    """An ONNX file of one node, whatever it gives."""
    operator, entries, value = node
    values = {} if value is None else {"value": numpy_helper.from_array(value.astype(np.float32))}
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    entry = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 48, 48]) for name in inputs]
    one = helper.make_node(operator, entries, ["y"], **values)
    if value is None:
        kind = helper.make_sequence_type_proto(kind)
    graph = helper.make_graph([one], "g", entry, [helper.make_value_info("y", kind)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


HUBCONF = """
import torch
from PIL import Image
from torch import nn

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(6, 5)

    def forward(self, tiles):
        return self.mix(torch.cat([tiles.mean(dim=(2, 3)), (tiles * tiles).mean(dim=(2, 3))], dim=1))

def small(width):
    assert width == 5
    return Small()
"""


def hub_encoder(folder):
    write_card(folder, {"kind": "hub", "entry": "small", "weights": "weights.pt", "options": {"width": 5}})
    (folder / "hubconf.py").write_text(HUBCONF)
    torch.save(small().state_dict(), folder / "weights.pt")
    return folder


def timm_encoder(folder, monkeypatch):
    """The library itself has no build for this machine's torch: its door is stood in for, weights are real."""
    asked: dict[str, object] = {}

    def create_model(name, **options):
        asked.update(options, name=name)
        return Small()

    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model, __spec__=True))
    write_card(folder, {"kind": "timm", "name": "vit_small", "weights": "w.pt", "options": {"init_values": 1e-5}})
    torch.save(small().state_dict(), folder / "w.pt")
    return folder, asked


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    return write_tissue(tmp_path_factory.mktemp("slide") / "A.svs", tissue_pixels(side=1024, seed=4), mpp=0.5)


def features_in(folder):
    features = read_tiles_file(folder / "A.h5").features
    assert features is not None
    return features


def tiles_of(slide, corners, side, mpp=0.5):
    with open_slide(slide) as opened:
        return np.stack([opened.read(Point(x, y), Size(side, side), mpp) for x, y in corners.tolist()])


def expected_features(pixels, network_px=48):
    """What torch makes of the tiles, normalised by hand."""
    small_px = [
        np.asarray(Image.fromarray(tile).resize((network_px,) * 2, Image.Resampling.BILINEAR)) for tile in pixels
    ]
    channels = (np.stack(small_px).astype(np.float64) / 255 - MEAN) / STD
    with torch.no_grad():
        return small()(torch.from_numpy(channels.transpose(0, 3, 1, 2)).float()).numpy()


@pytest.mark.parametrize("kind", ["onnx", "hub", "timm"])
def test_an_encoder_of_a_folder_gives_what_its_network_gives(tmp_path, slide, kind, monkeypatch):
    """Resized and normalised by its card, whatever runs it."""
    asked = {}
    if kind == "onnx":
        folder = onnx_encoder(tmp_path / "e")
    elif kind == "hub":
        folder = hub_encoder(tmp_path / "e")
    else:
        folder, asked = timm_encoder(tmp_path / "e", monkeypatch)
    encoder = load_encoder(str(folder), None, "cpu")
    pixels = tiles_of(slide, np.array([[300, 300], [500, 420], [640, 256]]), 64)

    found = encoder(pixels)

    assert found == pytest.approx(expected_features(pixels), abs=2e-5)
    assert encoder(pixels[1:2]) == pytest.approx(found[1:2], abs=1e-6)
    if asked:
        assert asked == {"name": "vit_small", "pretrained": False, "num_classes": 0, "init_values": 1e-5}


class Tokens(nn.Module):
    """A class token, a register, and a token for each half of the tile."""

    num_prefix_tokens = 2

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(3, 4)

    def forward(self, tiles):
        parts = [tiles.mean(dim=(2, 3)), tiles.amax(dim=(2, 3)), *(half.mean(dim=(2, 3)) for half in tiles.chunk(2, 2))]
        return self.mix(torch.stack(parts, dim=1))


@pytest.mark.parametrize(
    ("pooling", "positions"), [("class", [[0]]), ("mean", [[2, 3]]), ("class+mean", [[0], [2, 3]])]
)
def test_tokens_are_pooled_and_classes_named_as_on_a_models_page(tmp_path, slide, monkeypatch, pooling, positions):
    """As Virchow2 and UNI2 are loaded; seen with timm 1.0.31 itself, too, whose torchvision has no build here."""
    asked: dict[str, object] = {}

    def create_model(name, **options):
        asked.update(options, name=name)
        return Tokens()

    layers = types.SimpleNamespace(SwiGLUPacked=Tokens, __spec__=True)
    monkeypatch.setitem(sys.modules, "timm", types.SimpleNamespace(create_model=create_model, __spec__=True))
    monkeypatch.setitem(sys.modules, "timm.layers", layers)
    options = {"mlp_layer": "timm.layers.SwiGLUPacked", "act_layer": "torch.nn.SiLU", "norm": "os.system"}
    model = {"kind": "timm", "name": "vit", "weights": "w.pt", "options": options, "pooling": pooling}
    write_card(tmp_path, model, n_features=4 * len(positions))
    torch.manual_seed(0)
    tokens = Tokens()
    torch.save(tokens.state_dict(), tmp_path / "w.pt")
    pixels = tiles_of(slide, np.array([[300, 300], [500, 420]]), 64)

    found = load_encoder(str(tmp_path), None, "cpu")(pixels)

    small_px = [np.asarray(Image.fromarray(tile).resize((48, 48), Image.Resampling.BILINEAR)) for tile in pixels]
    channels = ((np.stack(small_px) / 255 - MEAN) / STD).transpose(0, 3, 1, 2)
    with torch.no_grad():
        each = tokens(torch.from_numpy(channels).float())
    expected = torch.cat([each[:, of].mean(dim=1) for of in positions], dim=1)
    assert found == pytest.approx(expected.numpy(), abs=1e-5)
    assert (asked["mlp_layer"], asked["act_layer"], asked["norm"]) == (Tokens, nn.SiLU, "os.system")
    assert asked["global_pool"] == ""


class Sixteen(nn.Module):
    """Says in which precision it was run."""

    def forward(self, tiles):
        return nn.functional.linear(tiles.mean(dim=(2, 3)), torch.eye(3)) + float(torch.is_autocast_enabled("cpu"))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_device_computes_in_the_precision_asked_for(mixed, monkeypatch):
    """Autocast of the device's own type, and float32 handed out; the CPU stands for a GPU."""
    card = FeatureCard("e", InputSpec(0.5, 16, 16, "rgb"), 3, HubModel("hub", "x"))
    pixels = np.random.default_rng(0).integers(0, 255, (300, 16, 16, 3), np.uint8)  # more than go at a time

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    found = TorchEncoder(card, "", Sixteen(), "cpu", mixed_precision=mixed)(pixels)

    assert found.dtype == np.float32
    assert torch.backends.cudnn.allow_tf32 == mixed
    expected = pixels.mean(axis=(1, 2)) / 255
    assert found == pytest.approx(expected + mixed, abs=2e-2 if mixed else 1e-5)


def test_the_tile_cnn_gives_its_penultimate_layer(slide):
    """By ONNX Runtime as by torch, and its last layer makes the logits of it."""
    card = read_card(BUNDLED / "tile_cnn", "tile_cnn")
    weights = load_tensors(BUNDLED / "tile_cnn", card)
    pixels = tiles_of(slide, np.array([[300, 300], [400, 420]]), 256, mpp=0.25)

    found = load_encoder(TILE_CNN, BUNDLED, "cpu")(pixels)

    with torch.no_grad():
        expected = penultimate_module(card.cnn, weights)(torch.from_numpy(prepare_input(pixels, card.input))).numpy()
    logits = found @ weights["fc_layers.1.weight"].T + weights["fc_layers.1.bias"]
    assert found.shape == (2, 256)
    assert found.min() >= 0
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert logits == pytest.approx(load_engine(BUNDLED / "tile_cnn", "tile_cnn", "cpu")(pixels), abs=1e-3)


def test_features_are_those_of_the_tiles_in_the_file(tmp_path, slide, command_line):
    """TRIDENT's layout: each row is the encoder's answer to the tile at that corner."""
    folder = onnx_encoder(tmp_path / "e")

    code, out, _ = command_line("features", slide, "--encoder", folder, "--out", tmp_path / "f", *QUICK)

    with h5py.File(tmp_path / "f" / "A.h5") as file:
        features, coords, attrs = file["features"][:], file["coords"][:], dict(file["coords"].attrs)
        assert file["features"].attrs["encoder"] == "small"
    assert code == 0
    assert f"{len(coords)} tiles of 64 px at 0.5 µm/px, 5 features of small each" in out
    assert attrs["patch_size"] == attrs["patch_size_level0"] == 64
    assert attrs["level0_magnification"] == attrs["target_magnification"] == 20
    assert features == pytest.approx(expected_features(tiles_of(slide, coords, 64)), abs=2e-5)


@pytest.mark.parametrize("layout", ["trident", "clam", "wsinfer"])
def test_coordinates_of_others_give_the_features_of_our_stream(tmp_path, slide, command_line, layout):
    """The same tiles, cut by a peer: bit for bit the same numbers."""
    folder = onnx_encoder(tmp_path / "e")
    command_line("features", slide, "--encoder", folder, "--out", tmp_path / "ours", *QUICK)
    ours = read_tiles_file(tmp_path / "ours" / "A.h5")
    plain = StoredTiles("A", ours.places, side=64.0, side_px=64, mpp_l0=0.5, size_l0=ours.size_l0)
    (coords,) = write_tiles_files(tmp_path / "peer", plain, layout)

    code, _, _ = command_line(
        "features", slide, "--encoder", folder, "--coords", coords.parent, "--out", tmp_path / "theirs", *ONE_THREAD
    )

    theirs = read_tiles_file(tmp_path / "theirs" / "A.h5")
    assert code == 0
    assert np.array_equal(theirs.places, ours.places)
    assert np.array_equal(features_in(tmp_path / "theirs"), features_in(tmp_path / "ours"))


def test_features_need_no_library_of_training(tmp_path, slide, command_line, monkeypatch):
    """`pip install he2her2` extracts them by a network that ONNX Runtime runs; progress does not ask Lightning."""
    for name in ("torch", "lightning"):
        monkeypatch.setitem(sys.modules, name, None)

    code, _, err = command_line("features", slide, "--encoder", "tile-cnn", "--out", tmp_path / "f", *QUICK)

    assert (code, err) == (0, "")


def test_other_coordinates_are_other_features(tmp_path, slide, command_line):
    """A file of coordinates that changed is read again, also where it is named for the slide's file; others are not."""
    folder = onnx_encoder(tmp_path / "e")
    (tmp_path / "m.csv").write_text(f"slide_id,path,patient_id\nB7,{slide},P\n")
    options = ("features", tmp_path / "m.csv", "--encoder", folder, "--coords", tmp_path / "peer" / "patches")
    told: list[str] = []
    for places in ([[256, 256]], [[256, 256]], [[256, 256], [320, 256]]):
        if not told or len(places) > 1:
            write_tiles_files(tmp_path / "peer", StoredTiles("A", np.array(places), side=64.0, side_px=64), "trident")
        code, out, err = command_line(*options, *ONE_THREAD, "--out", tmp_path / "f")
        assert code == 0, err
        told.append(next(line for line in out.splitlines() if line.startswith("B7: ")))

    assert told == ["B7: 1 tiles", "B7: 1 tiles, there already", "B7: 2 tiles"]


def test_what_places_tiles_is_part_of_what_features_are_made_of(tmp_path):
    """Also what was added to the settings later; their usual values change nothing of before."""
    encoder = load_encoder(str(onnx_encoder(tmp_path / "e")), BUNDLED, "cpu")
    usual = Config()
    others = (
        replace(usual, normalisation="macenko"),
        replace(usual, runtime=replace(usual.runtime, precision="mixed")),
    )

    made = {FeatureWorker(encoder, config, None, "tissue").configuration for config in (usual, *others)}

    assert len(made) == 3


def test_coordinates_of_another_slide_are_refused(tmp_path, slide, command_line):
    """Glass beyond the border was read, one and the same vector for each tile."""
    folder = onnx_encoder(tmp_path / "e")
    far = StoredTiles("A", np.array([[256, 256], [90_000, 256]]), side=64.0, side_px=64)
    write_tiles_files(tmp_path / "peer", far, "trident")

    code, _, err = command_line(
        "features", slide, "--encoder", folder, "--coords", tmp_path / "peer" / "patches", "--out", tmp_path / "f"
    )

    assert code == 1
    assert "1 of its 2 tiles lie outside the slide of" in err
    assert "its coordinates are of another slide" in err
    inside = replace(far, corners=np.array([[256, 256]]), size_l0=Size(1024, 2000))
    write_tiles_files(tmp_path / "peer", inside, "trident")

    code, _, err = command_line(
        "features", slide, "--encoder", folder, "--coords", tmp_path / "peer" / "patches", "--out", tmp_path / "f"
    )

    assert code == 1
    assert "of a slide of 1024 x 2000 px, and it has 1024 x 1024" in " ".join(err.split())


def test_coordinates_are_not_replaced_by_features(tmp_path, slide, command_line):
    """Not even with --overwrite."""
    tiles = StoredTiles("A", np.array([[256, 256]]), side=64.0, side_px=64, mpp_l0=0.5)
    (coords,) = write_tiles_files(tmp_path / "peer", tiles, "wsinfer")
    before = coords.read_bytes()
    where = ("--coords", coords.parent, "--out", coords.parent, "--overwrite")

    code, _, err = command_line("features", slide, "--encoder", onnx_encoder(tmp_path / "e"), *where, *ONE_THREAD)

    assert code == 2
    assert "is read by this command" in " ".join(err.split())
    assert coords.read_bytes() == before


def test_coordinates_of_another_scale_are_refused(tmp_path, slide, command_line):
    """Tiles of twice the width are another picture to the encoder."""
    folder = onnx_encoder(tmp_path / "e")
    wide = StoredTiles("A", np.array([[256, 256]]), side=128.0, side_px=128)
    write_tiles_files(tmp_path / "peer", wide, "trident")

    code, _, err = command_line(
        "features",
        slide,
        "--encoder",
        folder,
        "--coords",
        tmp_path / "peer" / "patches",
        "--out",
        tmp_path / "f",
        *ONE_THREAD,
    )

    assert code == 1
    assert "64 µm wide where the encoder small sees 32 µm" in err


def test_threads_and_batches_change_nothing(tmp_path, slide, command_line):
    """Bit for bit."""
    folder = onnx_encoder(tmp_path / "e")
    options = ("features", slide, "--encoder", folder, "--region", "tissue")
    command_line(*options, "--out", tmp_path / "a", "--threads", "1")
    command_line(*options, "--out", tmp_path / "b", "--threads", "3", "--set", "runtime.batch_size=7")

    one, other = (features_in(tmp_path / name) for name in "ab")

    assert np.array_equal(one, other)


def test_a_second_command_goes_on(tmp_path, slide, command_line):
    """Files that are there stay; another encoder is refused there."""
    options = ("features", slide, "--out", tmp_path / "f", *QUICK)
    command_line(*options, "--encoder", onnx_encoder(tmp_path / "e"))
    before = (tmp_path / "f" / "A.h5").stat().st_mtime_ns

    code, out, _ = command_line(*options, "--encoder", tmp_path / "e")
    other, _, err = command_line(*options, "--encoder", onnx_encoder(tmp_path / "e2", side_px=32))

    assert code == 0
    assert "there already" in out
    assert (tmp_path / "f" / "A.h5").stat().st_mtime_ns == before
    assert other == 2
    assert "features of another encoder" in err


def test_features_of_another_slide_of_the_name_stay(tmp_path, slide, command_line):
    """Those of a second site took their place without a word; a slide that only moved is not done again."""
    sites = [tmp_path / name / "A.svs" for name in ("moved", "other", "blank")]
    for file in sites:
        file.parent.mkdir()
        shutil.copy2(slide, file)
    os.utime(sites[1])
    sites[2].rename(blank := sites[2].with_name("B.svs"))
    blank.write_text("no slide")

    def features(*what, options=()):
        return command_line("features", *what, "--out", tmp_path / "f", *QUICK, "--encoder", tmp_path / "e", *options)

    onnx_encoder(tmp_path / "e")
    features(slide, blank)
    before = (tmp_path / "f" / "A.h5").read_bytes()
    _, out, _ = features(sites[0])
    code, _, err = features(sites[1])

    assert "there already" in out
    assert code == 1
    assert f"holds the features of another slide of this name, {slide}; rename the slide" in err
    assert (tmp_path / "f" / "A.h5").read_bytes() == before
    assert {name: one.path for name, one in read_failures(tmp_path / "f" / "failures.csv").items()} == {
        "A": str(sites[1]),
        "B": str(blank),
    }
    assert features(sites[1], options=["--overwrite"])[0] == 0
    assert (tmp_path / "f" / "A.h5").read_bytes() != before
    assert read_failures(tmp_path / "f" / "failures.csv").keys() == {"B"}


def of_0_to_255(folder):
    """Means as other programs give them for bytes: the network saw black."""
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {"mean": [255 * mean for mean in MEAN]}))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "is missing"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"x"), "cannot run it"),
        (lambda folder: write_graph(folder, [], ("Constant", [], np.zeros((2, 5)))), "takes 0 inputs"),
        (lambda folder: write_graph(folder, ["x"], ("SequenceConstruct", ["x"], None)), r"gives a seq\(tensor"),
        (lambda folder: write_card(folder, {"kind": "onnx"}, n_features=7), r"gives \(2, 5\) for 2 tiles"),
        (lambda folder: write_card(folder, {"kind": "onnx", "sha256": "0" * 64}), "other SHA-256"),
        (lambda folder: write_card(folder, {"kind": "magic"}), "card of an encoder"),
        (lambda folder: write_card(folder, {"kind": "hub", "entry": "none"}), "cannot be built"),
        (lambda folder: (folder / "card.json").unlink(), "nor a folder with a card.json"),
        (of_0_to_255, "mean.0: must be less than or equal to 1"),
    ],
)
def test_a_broken_encoder_is_one_line(tmp_path, spoil, found):
    """Each thing that can be wrong with a folder."""
    folder = onnx_encoder(tmp_path / "e")
    spoil(folder)

    with pytest.raises(WeightsError, match=found) as stop:
        load_encoder(str(folder), None, "cpu")

    assert "\n" not in str(stop.value)


def with_weights_beside(folder, seed):
    """An ONNX encoder as torch exports it by default: the numbers lie in a second file."""
    onnx_encoder(folder)
    model = onnx.load_from_string(onnx_of(small(seed), (3, 48, 48), "small"))
    (folder / "model.onnx.data").unlink(missing_ok=True)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)


def hub_with_code(folder, seed):
    hub_encoder(folder)
    (folder / "hubconf.py").write_text(HUBCONF + f"# version {seed}\n")


def hub_with_weights_of_its_own(folder, seed):
    hub_encoder(folder)
    write_card(folder, {"kind": "hub", "entry": "small", "options": {"width": 5}})
    (folder / "hubconf.py").write_text(HUBCONF)
    torch.manual_seed(seed)  # as weights that the entry fetches from elsewhere


@pytest.mark.parametrize("write", [with_weights_beside, hub_with_code, hub_with_weights_of_its_own])
def test_an_encoder_is_all_of_its_files(tmp_path, write):
    """Other weights beside the same graph, or other code around the same weights, left the features of before."""
    identities = []
    for _ in range(2):
        write(tmp_path / "e", 0)
        identities.append(load_encoder(str(tmp_path / "e"), None, "cpu").identity)
    first, again = identities

    write(tmp_path / "e", 1)

    assert first == again != load_encoder(str(tmp_path / "e"), None, "cpu").identity


@pytest.mark.parametrize(
    ("name", "sha256", "n_features", "tile_um", "reason"),
    [
        ("small", "", 5, 32.0, ""),
        ("small", "", 5, 28.0, ""),
        ("not stated", "", 5, None, ""),
        ("large", "", 5, None, "they are of large, and it is small"),
        ("small", "0" * 64, 5, None, "they are of a small of other files or settings"),
        ("small", "", 16, None, "they have 16 numbers a tile, and it gives 5"),
        ("not stated", "", 5, 128.0, "they are of tiles 128 µm wide, and its card's are 32 µm wide"),
    ],
)
def test_features_that_an_encoder_has_not_given(tmp_path, name, sha256, n_features, tile_um, reason):
    """Of another magnification they decided without a word, of another number it was an error of ours."""
    encoder = load_encoder(str(onnx_encoder(tmp_path / "e")), None, "cpu")

    assert why_not_of(encoder, EncoderNote(name, sha256, tile_um), n_features) == reason


def test_an_encoder_of_one_tile_says_what_to_export(tmp_path):
    """A batch of fixed size is what `torch.onnx.export` makes where nothing is said."""
    folder = onnx_encoder(tmp_path / "e")
    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, folder / "model.onnx")

    with pytest.raises(WeightsError, match=r"Got: 2 Expected: 1.*float32 inputs \(n, 3, 48, 48\) of any n"):
        load_encoder(str(folder), None, "cpu")


def test_the_code_of_a_hub_encoder_is_part_of_it(tmp_path):
    """Its features depend on it."""
    folder = hub_encoder(tmp_path / "e")
    before = load_encoder(str(folder), None, "cpu").identity
    (folder / "hubconf.py").write_text(HUBCONF.replace("tiles * tiles", "tiles * tiles * tiles"))

    assert load_encoder(str(folder), None, "cpu").identity != before


def test_an_onnx_encoder_is_no_matter_of_gpus(tmp_path):
    """16 bits and devices are for torch."""
    folder = onnx_encoder(tmp_path / "e")

    with pytest.raises(ConfigError, match="precision mixed"):
        load_encoder(str(folder), None, "cpu", "mixed")


def test_efficientnet_lite0_is_exported_once(tmp_path, command_line, slide):
    """The folder runs without torch and gives the package's features."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra encoders is not installed")
    code, out, _ = command_line(
        "weights", "encoder", "efficientnet-lite0", "--out", tmp_path / "e", "--mpp", "0.5", "--side-px", "64"
    )
    pixels = tiles_of(slide, np.array([[300, 300], [400, 420]]), 64)

    found = load_encoder(str(tmp_path / "e"), None, "cpu")(pixels)

    channels = torch.from_numpy((pixels.astype(np.float64) - 127) / 128).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = lite0_module(64)(channels).numpy()
    assert code == 0
    assert "1280 features" in out
    assert found == pytest.approx(expected, abs=1e-4)
