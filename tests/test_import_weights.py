"""The authors' files: told by their tensors, checked whole, imported to weights that predict.

Nobody's weights are here: the files are built with the keys and shapes of the authors' own. The full-size ones repeat
one number (a stride of zero), which makes them small on disk and all the same for whoever reads them.
"""

import os
import re
from collections import OrderedDict
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F  # noqa: N812  everyone calls it so

from he2her2.config import PRESETS
from he2her2.errors import OutputError, WeightsError
from he2her2.files import sha256_of
from he2her2.models import (
    InputSpec,
    RankingSettings,
    authors_files,
    load_aggregator,
    load_engine,
    load_tensors,
    read_card,
    verify,
)
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.authors_files import CheckpointKind, import_authors_file, read_authors_file
from he2her2.models.encoders.cnn import PAPER_TILE_CNN, PAPER_TUMOUR_CNN, Conv
from he2her2.models.torch_modules import tensor_shapes
from tests.made_up_bags import bag_of_scores
from tests.tissue_slides import write_tissue

TILE_SHAPES = {  # paper, section 3.2; PAPER_FACTS: 256 -> 252 -> 126 -> 124 -> 62 -> 60 -> 30 -> 28 -> 14
    "conv_layers.0": (16, 1, 5, 5),
    "conv_layers.1": (32, 16, 3, 3),
    "conv_layers.2": (64, 32, 3, 3),
    "conv_layers.3": (128, 64, 3, 3),
    "fc_layers.0": (1024, 14 * 14 * 128),
    "fc_layers.1": (256, 1024),
    "fc_layers.2": (4, 256),
}
MLP_SHAPES = {
    "mlp_layers.0": (256, 300),
    "mlp_layers.1": (128, 256),
    "mlp_layers.2": (64, 128),
    "mlp_layers.3": (2, 64),
}
HASHI_SHAPES = {
    "conv_layers.0": (256, 3, 8, 8),
    "fc_layers.0": (256, 47 * 47 * 256),
    "fc_layers.1": (2, 256),
}
FILES = {  # name: layers, title, roles
    "IHC-HER2_model.tar": (TILE_SHAPES, "tile CNN", ("tile_cnn",)),
    "proposed_model.pth.tar": (TILE_SHAPES | MLP_SHAPES, "tile CNN with its MLP", ("tile_cnn", "aggregator")),
    "proposed_model_wOUT_pretrained_IHCweights.pth.tar": (
        TILE_SHAPES | MLP_SHAPES, "tile CNN with its MLP", ("tile_cnn", "aggregator"),
    ),
    "mean-median_pretrained_IHCweights.pth.tar": (TILE_SHAPES, "tile CNN", ("tile_cnn",)),
    "mean-median_wOUT_pretrained_IHCweights.pth.tar": (TILE_SHAPES, "tile CNN", ("tile_cnn",)),
    "HASHI_trained_cnn_model.pth": (HASHI_SHAPES, "HASHI's tumour CNN", ("tumour_cnn",)),
}  # fmt: skip

SMALL_TILE = replace(
    PAPER_TILE_CNN,
    name="released-tile-cnn",
    input=InputSpec(mpp=0.25, side_px=64, network_px=64, colour="lightness-uint8"),
    convs=(Conv(3, kernel=5), Conv(4, kernel=3)),  # 64 -> 60 -> 30 -> 28 -> 14
    hidden=(6, 5),
)
SMALL_TUMOUR = replace(
    PAPER_TUMOUR_CNN,
    name="released-tumour-cnn",
    input=InputSpec(mpp=0.25, side_px=64, network_px=21, colour="yuv-uint8"),
    convs=(Conv(5, kernel=8, pool="l2"),),  # 21 -> 14 -> 7
    hidden=(6,),
)
SMALL_MLP = replace(PAPER_MLP, n_tiles=5, hidden=(4, 3))
SMALL = (
    CheckpointKind("tile CNN", (SMALL_TILE,)),
    CheckpointKind("both", (SMALL_TILE, SMALL_MLP)),
    CheckpointKind("HASHI's", (SMALL_TUMOUR,)),
)


def full_size(layers):
    """A state dict of full-size tensors, each one number over and over."""
    state = OrderedDict()
    for i, (layer, shape) in enumerate(layers.items()):
        state[f"{layer}.weight"] = torch.tensor(0.01 * (i + 1)).expand(shape)
        state[f"{layer}.bias"] = torch.tensor(0.02).expand(shape[0])
    return state


def drawn(*specs, seed=0):
    """A state dict of random tensors of small networks."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: shape for spec in specs for name, shape in tensor_shapes(spec).items()}
    return OrderedDict(
        (name, torch.empty(shape).uniform_(-0.3, 0.3, generator=generator)) for name, shape in shapes.items()
    )


def restated_tile_cnn(pixels, state, n_convs, n_fcs):
    """Logits of (n, h, w, 3) uint8 tiles by the paper's words (sections 3.1.1 and 3.2) and 8-bit lightness."""
    shares = pixels.astype(np.float32) * np.float32(1 / 255)
    light = np.rint((shares.max(axis=3) + shares.min(axis=3)) * np.float32(0.5) * np.float32(255)) / np.float32(255)
    x = torch.from_numpy(light)[:, None]
    for i in range(n_convs):
        x = F.max_pool2d(F.relu(F.conv2d(x, state[f"conv_layers.{i}.weight"], state[f"conv_layers.{i}.bias"])), 2)
    return restated_dense(x.flatten(1), state, "fc_layers", n_fcs)


def restated_tumour_cnn(pixels, state, side):
    """Logits of (n, h, w, 3) uint8 tiles by the released code's steps: YUV in 8 bits, Lanczos, L2-pooled."""
    rows = np.array([[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.1]], np.float32)
    r, g, b = np.moveaxis(pixels.astype(np.float32), 3, 0)
    yuv = np.stack([y * r + u * g + v * b + np.float32(0.5) for y, u, v in rows], axis=3)
    eight_bits = np.clip(np.floor(yuv), 0, 255).astype(np.uint8)
    small = [np.array(Image.fromarray(tile).resize((side, side), Image.Resampling.LANCZOS)) for tile in eight_bits]
    x = torch.from_numpy(np.stack(small).transpose(0, 3, 1, 2).astype(np.float32) / 255)
    x = F.lp_pool2d(F.relu(F.conv2d(x, state["conv_layers.0.weight"], state["conv_layers.0.bias"])), 2, 2, 2)
    return restated_dense(x.flatten(1), state, "fc_layers", 2)


def restated_dense(x, state, part, n):
    """Fully connected layers with ReLU between."""
    for i in range(n):
        x = F.linear(x if i == 0 else F.relu(x), state[f"{part}.{i}.weight"], state[f"{part}.{i}.bias"])
    return x.numpy()


def saved(path, content, **options):
    """A file as `torch.save` writes it."""
    torch.save(content, path, **options)
    return path


def refused(path, kinds=SMALL):
    """The one line with which a file is refused."""
    with pytest.raises(WeightsError) as caught:
        read_authors_file(path, kinds)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def pixels_of(n, side):
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


@pytest.fixture
def small_files(monkeypatch):
    """Let the command line know small networks in place of the full-size ones."""
    monkeypatch.setattr(authors_files, "read_authors_file", partial(read_authors_file, kinds=SMALL))


@pytest.mark.parametrize("name", FILES)
def test_each_of_the_six_files_is_told_by_its_tensors(tmp_path, name):
    """At full size, whatever the file is called."""
    layers, title, roles = FILES[name]
    state = full_size(layers)
    content = state if name.startswith("HASHI") else {"epoch": 149, "state_dict": state, "optimizer": {"lr": 1e-3}}

    found = read_authors_file(saved(tmp_path / "renamed.bin", content))

    assert (found.kind.title, found.roles) == (title, roles)
    assert {key: tuple(value.shape) for key, value in state.items()} == {k: t.shape for k, t in found.tensors.items()}
    assert found.tensors["fc_layers.1.weight"][1, 1] == state["fc_layers.1.weight"][1, 1]
    assert all(tensor.dtype == np.float32 for tensor in found.tensors.values())


def test_the_full_size_networks_say_what_the_authors_code_says(tmp_path):
    """Imported, run by ONNX Runtime from uint8 pixels, against plain torch: within 1e-5, tile CNN and MLP."""
    generator = torch.Generator().manual_seed(3)
    state = {
        key: torch.empty(value.shape).uniform_(-1, 1, generator=generator) / value[0].numel() ** 0.5
        for key, value in full_size(TILE_SHAPES | MLP_SHAPES).items()
    }
    import_authors_file(read_authors_file(saved(tmp_path / "proposed_model.pth.tar", {"state_dict": state})), tmp_path)
    pixels = pixels_of(3, 256)
    scores = np.sort(np.random.default_rng(2).uniform(0, 3, 300))[::-1].copy()

    logits = load_engine(tmp_path / "tile_cnn", "tile_cnn", "cpu")(pixels)
    aggregator = load_aggregator(str(tmp_path), PRESETS["released-code"])
    probability = aggregator(bag_of_scores(scores, beta=1000.0)).probability

    assert np.allclose(restated_tile_cnn(pixels, state, 4, 3), logits, rtol=0, atol=1e-5)
    wanted = restated_dense(torch.from_numpy(scores.astype(np.float32))[None], state, "mlp_layers", 4)
    assert probability == pytest.approx(float(torch.softmax(torch.from_numpy(wanted), 1)[0, 1]), abs=1e-5)


def test_hashis_network_says_what_the_authors_code_says(tmp_path):
    """Resized, in YUV, L2-pooled: within 1e-5 of plain torch, at a smaller size through the same code."""
    state = drawn(SMALL_TUMOUR)
    import_authors_file(read_authors_file(saved(tmp_path / "HASHI_trained_cnn_model.pth", state), SMALL), tmp_path)
    pixels = pixels_of(3, 64)

    logits = load_engine(tmp_path / "tumour_cnn", "tumour_cnn", "cpu")(pixels)

    assert np.allclose(restated_tumour_cnn(pixels, state, 21), logits, rtol=0, atol=1e-5)


def test_both_written_files_hold_the_authors_numbers(tmp_path):
    """The tensors on disk are those of the file, bit for bit, and verify."""
    state = drawn(SMALL_TILE)
    (card,) = import_authors_file(read_authors_file(saved(tmp_path / "x.tar", {"state_dict": state}), SMALL), tmp_path)
    folder = tmp_path / "tile_cnn"

    verify(folder, read_card(folder, "tile_cnn"))
    tensors = load_tensors(folder, card)

    assert tensors.keys() == state.keys()
    assert all(np.array_equal(tensors[name], state[name].numpy()) for name in state)


def test_the_card_tells_the_origin(tmp_path):
    """File, hash, the authors' missing licence, and that nothing was measured."""
    path = saved(tmp_path / "proposed_model.pth.tar", {"state_dict": drawn(SMALL_TILE, SMALL_MLP)})
    import_authors_file(read_authors_file(path, SMALL), tmp_path / "out")

    card = read_card(tmp_path / "out" / "aggregator", "aggregator")

    assert f"imported from proposed_model.pth.tar (SHA-256 {sha256_of(path)})" in card.recipe
    assert "no licence" in card.training_licence
    assert card.trained
    assert "not measured here" in card.notice
    assert card.ranking == RankingSettings(top_fraction=0.15, beta=1000, spacing="released")


def test_several_files_make_a_complete_set_that_predicts(command_line, small_files, tmp_path):
    """Two imports, then a prediction under the released code's settings, which says whose weights these are."""
    proposed = saved(tmp_path / "proposed_model.pth.tar", {"state_dict": drawn(SMALL_TILE, SMALL_MLP), "epoch": 3})
    hashi = saved(tmp_path / "HASHI_trained_cnn_model.pth", drawn(SMALL_TUMOUR))
    slide = write_tissue(tmp_path / "S1.svs")
    out = tmp_path / "weights"
    quick = [f"--set={key}" for key in ("selection.n_tiles=5", "tiling.min_tiles=34", "adaptive.iterations=2",
                                        "adaptive.points=20", "adaptive.threshold=0.001")]  # fmt: skip

    first = command_line("import-weights", proposed, "--out", out)
    second = command_line("import-weights", hashi, "--out", out)
    code, text, err = command_line(
        "predict", slide, "--preset", "released-code", "--weights", out, "--out", tmp_path / "run", *quick
    )

    assert first[0] == second[0] == 0
    assert "left aside, no weights: epoch" in first[1]
    assert "missing  tumour_cnn" in first[1]
    assert f"he2her2 predict SLIDE --preset released-code --weights {out}" in second[1]
    assert (code, err) == (0, "")
    assert "imported from proposed_model.pth.tar: not measured here" in text


def test_a_tile_cnn_alone_predicts_with_a_baseline(command_line, small_files, tmp_path):
    """The command to run names one, for a mean-median file has no MLP."""
    mean = saved(tmp_path / "mean-median_pretrained_IHCweights.pth.tar", {"state_dict": drawn(SMALL_TILE)})
    command_line("import-weights", saved(tmp_path / "h.pth", drawn(SMALL_TUMOUR)), "--out", tmp_path / "weights")

    _, text, _ = command_line("import-weights", mean, "--out", tmp_path / "weights")

    assert "by its name, mean and median aggregation, pre-trained tile weights" in text
    assert "--set networks.aggregator=mean" in text


def test_the_older_format_of_torch_is_read(tmp_path):
    """The files are of 2020, when torch wrote no zip archive yet."""
    path = saved(tmp_path / "old.tar", {"state_dict": drawn(SMALL_TILE)}, _use_new_zipfile_serialization=False)

    assert read_authors_file(path, SMALL).roles == ("tile_cnn",)


def test_names_of_a_parallel_training(tmp_path):
    """DataParallel's prefix is taken off, and said."""
    state = {f"module.{name}": value for name, value in drawn(SMALL_TILE).items()}

    found = read_authors_file(saved(tmp_path / "x.tar", {"state_dict": state}), SMALL)

    assert found.tensors.keys() == tensor_shapes(SMALL_TILE).keys()
    assert "names had DataParallel's 'module.' before them" in found.remarks


def test_a_prefix_on_some_names_only(tmp_path):
    """Such a file is not the authors': the names are told."""
    state = drawn(SMALL_TILE)
    state["module.fc_layers.2.bias"] = state.pop("fc_layers.2.bias")

    message = refused(saved(tmp_path / "x.tar", state))

    assert "fc_layers.2.bias is missing; module.fc_layers.2.bias is unknown" in message


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    """And it is said."""
    state = {name: value.to(dtype) for name, value in drawn(SMALL_TILE).items()}

    found = read_authors_file(saved(tmp_path / "x.tar", {"state_dict": state}), SMALL)

    assert found.remarks == (f"stored as {str(dtype).removeprefix('torch.')}, taken as float32",)
    assert np.array_equal(state["fc_layers.0.bias"].float().numpy(), found.tensors["fc_layers.0.bias"])


def test_parameters_are_tensors_too(tmp_path):
    """A state dict of `nn.Parameter`s is one of tensors."""
    state = {name: nn.Parameter(value) for name, value in drawn(SMALL_TILE).items()}

    assert read_authors_file(saved(tmp_path / "x.tar", state), SMALL).roles == ("tile_cnn",)


def test_every_problem_is_told_at_once(tmp_path):
    """Missing, unknown, misshapen, no numbers, not finite, no tensor: in one line."""
    state = drawn(SMALL_TILE, SMALL_MLP)
    del state["fc_layers.2.bias"]
    state["fc_layers.9.bias"] = torch.zeros(4)
    state["fc_layers.1.weight"] = torch.zeros(9, 6)
    state["conv_layers.0.bias"] = torch.zeros(3, dtype=torch.int64)
    state["conv_layers.1.bias"][2] = torch.nan
    state["mlp_layers.0.bias"] = state["mlp_layers.0.bias"].double() * 1e300
    state["mlp_layers.1.bias"] = "text"
    state["mlp_layers.2.bias"] = torch.zeros(2).to_sparse()

    message = refused(saved(tmp_path / "x.tar", {"state_dict": state}))

    assert "is no both of the authors: " in message
    for problem in (
        "fc_layers.2.bias is missing",
        "fc_layers.9.bias is unknown",
        "fc_layers.1.weight is (9, 6) where (5, 6) is wanted",
        "conv_layers.0.bias is a torch.int64 tensor where plain floating-point numbers are wanted",
        "conv_layers.1.bias holds a value that is no finite float32 number",
        "mlp_layers.0.bias holds a value that is no finite float32 number",
        "mlp_layers.1.bias is a str",
        "mlp_layers.2.bias is a torch.float32 tensor where plain",
    ):
        assert problem in message


def test_half_an_mlp_is_not_taken_for_none(tmp_path):
    """A proposed file that lost a tensor is no tile CNN with something beside it."""
    state = drawn(SMALL_TILE, SMALL_MLP)
    del state["mlp_layers.2.weight"]

    assert "mlp_layers.2.weight is missing" in refused(saved(tmp_path / "x.tar", state))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"state_dict": {"features.0.weight": torch.zeros(3)}}, "holds no tensor of the authors' networks"),
        ({}, "holds no tensor of the authors' networks"),
        ([torch.zeros(3)], "holds a list, no weights by name"),
        (torch.zeros(3), "holds a Tensor, no weights by name"),
    ],
)
def test_other_peoples_tensors(tmp_path, content, found):
    """What it is instead is said."""
    assert found in refused(saved(tmp_path / "x.tar", content))


class Command:
    """A pickle of this runs a command when it is opened."""

    def __reduce__(self):
        return os.mkdir, ("/nowhere/at/all",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_to_run_code(tmp_path, zipped):
    """It is not opened; the line names what it wants to call."""
    state = {"state_dict": drawn(SMALL_TILE), "extra": Command()}
    path = saved(tmp_path / "x.tar", state, _use_new_zipfile_serialization=zipped)

    assert "wants to run code (posix.mkdir) and was not opened" in refused(path)


def test_a_whole_module_is_code_too(tmp_path):
    """Saved modules need their classes: refused, with the class's name."""
    assert "wants to run code (torch.nn.modules.linear.Linear)" in refused(saved(tmp_path / "x.pt", nn.Linear(2, 2)))


def test_a_numpy_scalar_beside_the_weights_is_left_aside(tmp_path):
    """A best accuracy as numpy saves it is a number, no code; as a weight it is none."""
    path = saved(tmp_path / "x.tar", {"best_acc": np.float64(0.5), "state_dict": drawn(SMALL_TILE)})

    assert read_authors_file(path, SMALL).remarks == ("left aside, no weights: best_acc",)
    state = drawn(SMALL_TILE) | {"fc_layers.0.bias": np.float64(1)}
    assert "fc_layers.0.bias is a" in refused(saved(path, state))


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"PK\x03\x04", bytes(range(256)) * 4])
def test_a_file_that_torch_never_wrote(tmp_path, data):
    """One line says so."""
    path = tmp_path / "x.tar"
    path.write_bytes(data)

    assert "is no whole file of tensors" in refused(path)


def test_a_missing_file_and_a_folder(tmp_path):
    """The reason is the system's."""
    assert "No such file" in refused(tmp_path / "none.tar")
    assert "Is a directory" in refused(tmp_path)


@pytest.fixture(scope="module", params=[True, False], ids=["zip", "legacy"])
def whole(request, tmp_path_factory):
    """Bytes of a whole file, and where to write broken ones."""
    path = tmp_path_factory.mktemp("whole") / "x.tar"
    saved(path, {"state_dict": drawn(SMALL_TILE)}, _use_new_zipfile_serialization=request.param)
    return path.read_bytes(), path.with_name("broken.tar")


@given(at=st.floats(0, 1), flip=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused_in_one_line(whole, at, flip, cut):
    """No damage ends in a traceback: a flipped byte, or a file cut short."""
    data, path = whole
    place = int(at * (len(data) - 1))
    path.write_bytes(data[:place] if cut else data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])

    try:
        read_authors_file(path, SMALL)
    except WeightsError as error:
        assert "\n" not in str(error)  # noqa: PT017  not every damage is seen: a flipped bit of a weight is a weight


def test_a_damaged_storage_key_of_an_old_file_is_refused(tmp_path):
    """Torch asserts there that it knows the key; the key stands last in the list before the numbers."""
    path = saved(tmp_path / "x.tar", {"state_dict": drawn(SMALL_TILE)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    key = [*re.finditer(rb"\d{9,}", data)][-1]
    path.write_bytes(data[: key.start()] + b"x" + data[key.start() + 1 :])

    assert "is no whole file of tensors" in refused(path)


def test_an_old_file_cut_anywhere_in_its_head_is_refused(tmp_path):
    """Between numbers of the pickle, and within one, where Python's own unpacking fails."""
    path = saved(tmp_path / "x.tar", {"state_dict": drawn(SMALL_TILE)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    for length in range(400):
        path.write_bytes(data[:length])

        assert refused(path).startswith(f"{path}: is "), length


def test_the_same_file_again_changes_nothing(tmp_path):
    """An import that was stopped between two networks goes on by the same command."""
    found = read_authors_file(saved(tmp_path / "x.tar", drawn(SMALL_TILE, SMALL_MLP)), SMALL)

    assert import_authors_file(found, tmp_path / "out") == import_authors_file(found, tmp_path / "out")


def test_files_that_do_not_belong_together(tmp_path):
    """A tile CNN never takes the place of the one that the MLP was trained with."""
    proposed = read_authors_file(saved(tmp_path / "a.tar", drawn(SMALL_TILE, SMALL_MLP)), SMALL)
    mean = read_authors_file(saved(tmp_path / "b.tar", drawn(SMALL_TILE, seed=1)), SMALL)
    import_authors_file(proposed, tmp_path / "one")
    (tmp_path / "two" / "aggregator").mkdir(parents=True)

    for folder in ("one", "two"):
        with pytest.raises(OutputError, match=r"holds weights of another origin than b.tar.*choose another --out"):
            import_authors_file(mean, tmp_path / folder)
