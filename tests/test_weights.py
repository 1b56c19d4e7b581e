"""Folders of weights: what is written is read, and whatever is wrong is said in one line."""

import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from safetensors.numpy import load_file, save_file

from he2her2.errors import ManifestError, NotANumberError, WeightsError
from he2her2.files import json_text, sha256_of
from he2her2.geometry import TileGrid
from he2her2.manifest import patients_used
from he2her2.method import decide_on
from he2her2.models import (
    AGGREGATORS,
    CNNS,
    Aggregated,
    Card,
    Metric,
    RankingSettings,
    load_engine,
    load_tensors,
    read_card,
    read_domain,
    read_rules,
    verify,
)
from he2her2.models.aggregators import PAPER_MLP
from he2her2.models.card import card_from_json
from he2her2.models.encoders.cnn import COMPACT_TUMOUR_CNN, STRIDED_TILE_CNN
from he2her2.models.export import _write_onnx, save_weights
from he2her2.models.graph_check import _check_plain
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
ALL = np.arange(2)
GRID = TileGrid(np.zeros((2, 2), np.int64), side_l0=256, side_px=256, mpp=0.25)
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


def test_a_network_that_is_used_otherwise_is_another(folder):
    """A prediction's record of its networks tells them apart, so that no run mixes results of both."""
    card = read_card(folder, "tumour_cnn")
    rewrite_card(folder, threshold=0.3)
    other_threshold = read_card(folder, "tumour_cnn")
    finer = replace(COMPACT_TUMOUR_CNN, input=replace(COMPACT_TUMOUR_CNN.input, mpp=2.0))
    rewrite_card(folder, threshold=card.threshold, network=asdict(finer))

    assert other_threshold.summary != card.summary
    assert read_card(folder, "tumour_cnn").summary not in (card.summary, other_threshold.summary)


@pytest.mark.parametrize("spec", [*CNNS.values(), *AGGREGATORS.values()], ids=lambda spec: spec.name)
def test_a_card_of_any_network_survives_json(spec):
    """Every network that the settings can name is written and read again."""
    card = Card(spec, trained=False, notice="untrained", seed=3, ranking=RankingSettings(0.15, 1000.0))

    assert card_from_json(json_text(card)) == card


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


def test_swapped_folders(folder):
    """Weights of one network in another's folder are named as what they are."""
    with pytest.raises(WeightsError, match=r"are those of a tumour_cnn \(compact-tumour-cnn\), a tile_cnn is wanted"):
        load(folder, "tile_cnn")


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


def retrained(weights, seed=9):
    """Other weights of the same shapes."""
    rng = np.random.default_rng(seed)
    return {name: (tensor * rng.uniform(0.5, 2, tensor.shape)).astype(np.float32) for name, tensor in weights.items()}


def replaced(name, change):
    """Change the bytes of a file, which then has the hash that belongs to it."""

    def edit(folder):
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        note_file(folder, name)

    return edit


def with_tensor(name, change):
    """Change a tensor of the safetensors file."""

    def edit(folder):
        tensors = load_file(folder / TENSORS)
        rewrite_tensors(folder, tensors | {name: change(tensors[name])})

    return edit


def with_graph_of(spec):
    """Write the ONNX file of another network."""

    def edit(folder):
        weights = WEIGHTS if spec.name == COMPACT_TUMOUR_CNN.name else initial_weights(spec, seed=0)
        _write_onnx(folder / ONNX, spec, module_of(spec, weights))
        note_file(folder, ONNX)

    return edit


def with_classes_exchanged(folder):
    network = json.loads((folder / "card.json").read_text("utf-8"))["network"]
    rewrite_card(folder, network=network | {"classes": ["invasive", "other"]})


def cut_short(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


def with_a_bit_flipped(name):
    def edit(folder):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])

    return edit


def retrained_tensors(folder):
    rewrite_tensors(folder, retrained(load_file(folder / TENSORS)))


ONNX, TENSORS = "model.onnx", "weights.safetensors"
OTHER_INPUT = replace(COMPACT_TUMOUR_CNN, input=replace(COMPACT_TUMOUR_CNN.input, side_px=48, network_px=48))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        *((lambda f, n=n: (f / n).unlink(), f"{n}: is missing; copy the folder") for n in ("card.json", ONNX, TENSORS)),
        *((cut_short(n), rf"{n}: has \d+ bytes where its card says") for n in (ONNX, TENSORS)),
        *((with_a_bit_flipped(n), f"{n}: is not the file that its card describes") for n in (ONNX, TENSORS)),
        (replaced(TENSORS, lambda _: b"not tensors at all"), "is not a safetensors file"),
        (replaced(ONNX, lambda _: b"not a graph at all"), "model.onnx: is not an ONNX file; copy the folder again"),
        (with_graph_of(STRIDED_TILE_CNN), "has 17 nodes where compact-tumour-cnn has 14"),
        (with_graph_of(OTHER_INPUT), "where compact-tumour-cnn has"),
        (retrained_tensors, r"is another in model\.onnx than in weights\.safetensors"),
        (
            with_tensor("fc_layers.0.bias", lambda tensor: tensor.astype(np.float16)),
            r"fc_layers.0.bias is \(2,\) F16 where \(2,\) F32 is wanted",
        ),
        (
            with_tensor("conv_layers.3.weight", lambda tensor: np.full_like(tensor, np.nan)),
            r"conv_layers\.3\.weight holds a value that is no number",
        ),
        *(
            (with_tensor(f"norm_layers.1.{part}", lambda tensor: tensor + 0.01), r"conv_layers\.1\.\w+ is another in")
            for part in ("weight", "bias", "running_mean", "running_var")  # all four are in the folded convolution
        ),
        (with_classes_exchanged, "its classes are invasive, other, where other, invasive are read in this"),
        (lambda folder: rewrite_card(folder, version=2), "has version 2, this he2her2 reads version 1"),
        (lambda folder: rewrite_card(folder, colour="blue"), "colour: Unexpected"),
        (lambda folder: rewrite_card(folder, files={}), r"card\.json: says nothing of model\.onnx"),
    ],
)
def test_a_folder_with_one_thing_wrong(folder, edit, words):
    """Files missing, damaged, of another network or another training are told in one line, also with their hash."""
    edit(folder)

    with pytest.raises(WeightsError, match=words) as caught:
        load(folder)

    assert "\n" not in str(caught.value)


def edit_onnx(folder, edit):
    """Change a folder's ONNX file, with the hash that belongs to it."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    edit(model)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    note_file(folder, "model.onnx")


def initializer(model, name):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_values(tensor, values):
    tensor.raw_data = np.asarray(values, "<f4").tobytes()


def put_nan(model):
    tensor = initializer(model, "fc_layers.0.bias")
    set_values(tensor, [0.5, np.nan])


def put_infinity(model):
    tensor = initializer(model, "conv_layers.0.bias")
    set_values(tensor, np.full(32, np.inf))


def zero(name):
    def edit(model):
        tensor = initializer(model, name)
        tensor.raw_data = bytes(len(tensor.raw_data))

    return edit


def move_values(location):
    def edit(model):
        tensor = initializer(model, "fc_layers.0.bias")
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return edit


def hide_in_constant(model):
    tensor = onnx.TensorProto()
    tensor.CopyFrom(initializer(model, "fc_layers.0.bias"))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["hidden"], value=tensor))
    model.graph.node[-1].input[2] = "hidden"


def hide_in_place_of_relu(model):
    tensor = onnx.TensorProto()
    tensor.CopyFrom(initializer(model, "fc_layers.0.bias"))
    model.graph.node[1].CopyFrom(helper.make_node("Constant", [], [model.graph.node[1].output[0]], value=tensor))


def add_loop(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node[1].CopyFrom(helper.make_node("Loop", ["", ""], [model.graph.node[1].output[0]], body=body))


def turn_round(model):
    last = model.graph.node[-1]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Neg", ["before"], ["logits"]))


def negative_alpha(model):
    alpha = next((one for one in model.graph.node[-1].attribute if one.name == "alpha"), None)
    if alpha is not None:
        model.graph.node[-1].attribute.remove(alpha)
    model.graph.node[-1].attribute.append(helper.make_attribute("alpha", -1.0))


def skip_a_layer(model):
    model.graph.node[4].input[0] = model.graph.node[0].output[0]


def add_function(model):
    model.functions.add(name="Relu", domain="other")


def double(model):
    model.graph.initializer.append(initializer(model, "fc_layers.0.bias"))


def shrink(model):
    initializer(model, "fc_layers.0.bias").dims[0] = 1 << 40


def sparse(model):
    model.graph.sparse_initializer.add()


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (put_nan, r"model\.onnx: fc_layers\.0\.bias holds a value that is no number"),
        (put_infinity, r"model\.onnx: conv_layers\.0\.bias holds a value that is no number"),
        (zero("fc_layers.0.weight"), r"fc_layers\.0\.weight is another in model\.onnx than in weights\.safetensors"),
        (zero("conv_layers.2.weight"), r"conv_layers\.2\.weight is another in model\.onnx"),
        (zero("conv_layers.0.bias"), r"conv_layers\.0\.bias is another in model\.onnx"),
        (move_values("/etc/passwd"), "are in another file, which no card vouches for"),
        (move_values("weights.safetensors"), "are in another file, which no card vouches for"),
        (hide_in_constant, "has 15 nodes where compact-tumour-cnn has 14"),
        (hide_in_place_of_relu, "node 2 is 'Constant' where compact-tumour-cnn has Relu"),
        (add_loop, "node 2 is 'Loop' where compact-tumour-cnn has Relu"),
        (turn_round, "has 15 nodes where compact-tumour-cnn has 14"),
        (negative_alpha, r"node 14 \(Gemm\) has another alpha than a compact-tumour-cnn"),
        (skip_a_layer, r"node 5 \(Relu\) is not of"),
        (add_function, "holds functions, which he2her2 never writes"),
        (double, "holds two tensors named 'fc_layers.0.bias'"),
        (shrink, "has 8 bytes, which do not fill its shape"),
        (sparse, "holds sparse tensors, which he2her2 never writes"),
    ],
)
def test_an_onnx_file_that_computes_something_else(folder, edit, words):
    """Even with the hash that belongs to it: what runs is what the card says and the safetensors file holds."""
    edit_onnx(folder, edit)

    with pytest.raises(WeightsError, match=words) as caught:
        load(folder)

    assert "\n" not in str(caught.value)


def test_trained_batch_norms_are_folded_alike(tmp_path):
    """Norms that are no identity, and nearly flat channels, are no difference."""
    weights = retrained(WEIGHTS)
    weights["norm_layers.0.running_var"][:4] = 1e-12
    weights["norm_layers.0.weight"][4:8] = 0
    weights["norm_layers.2.running_mean"][:] = 300

    save_weights(tmp_path / "tumour_cnn", CARD, weights)

    assert load(tmp_path / "tumour_cnn").card.trained


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (helper.make_node("Loop", ["", ""], ["x"], body=helper.make_graph([], "body", [], [])), "has a node 'Loop'"),
        (helper.make_node("If", ["c"], ["x"]), "has a node 'If'"),
        (helper.make_node("Scan", ["c"], ["x"]), "has a node 'Scan'"),
        (helper.make_node("RandomNormal", [], ["x"], shape=[1]), "has a node 'RandomNormal'"),
        (helper.make_node("Relu", ["c"], ["x"], domain="other"), "has a node 'Relu'"),
        (
            helper.make_node("Constant", [], ["x"], value=numpy_helper.from_array(np.zeros(65, np.float32))),
            "constant of more than 64 values",
        ),
        (helper.make_node("Constant", [], ["x"], value_floats=[0.0] * 65), "constant of more than 64 values"),
        (helper.make_node("Constant", [], ["x"], value_float=np.nan), "value that is no number"),
        (
            helper.make_node("Constant", [], ["x"], value=numpy_helper.from_array(np.full((), np.nan, np.float32))),
            "constant that is no number",
        ),
    ],
)
def test_a_graph_of_an_aggregator_of_ones_own(node, words):
    """Where no layers are known, what could hide weights, draw numbers or run for ever is refused all the same."""
    _check_plain(helper.make_graph([helper.make_node("Softmax", ["a"], ["b"])], "own", [], []))

    with pytest.raises(ValueError, match=words):
        _check_plain(helper.make_graph([node], "own", [], []))


def test_weights_that_overflow_fail_the_slide():
    """Finite weights can give logits that are no numbers: the slide fails, and has no status."""
    with pytest.raises(NotANumberError, match="S1: the aggregator gives no number as probability; use other weights"):
        decide_on("S1", GRID, np.zeros((2, 4), np.float32), lambda _: Aggregated(np.nan, None, ALL, ALL / 1.0), 0.5)


@pytest.mark.parametrize(("probability", "status"), [(0.4999997, "positive"), (0.4999994, "negative")])
def test_a_probability_decides_as_it_is_written(probability, status):
    """0.500000 from a threshold of 0.5 on is positive, in the tables and in the call."""
    found = decide_on(
        "S1", GRID, np.zeros((2, 4), np.float32), lambda _: Aggregated(probability, None, ALL, ALL / 1.0), 0.5
    )

    assert str(found.status) == status


def test_what_no_table_shows_ranks_no_slides():
    """A saturated network gives all slides one probability but for the rounding of 32 bits: no AUC is made of that."""

    def probability_of(exact):
        found = Aggregated(exact, None, ALL, ALL / 1.0)
        return decide_on("S1", GRID, np.zeros((2, 4), np.float32), lambda _: found, 0.5).probability

    assert probability_of(0.5217726385763943) == probability_of(0.5217726255626017) == 0.521773


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"{", "is not JSON"),
        (b"[]", "is not a card: it has no version"),
        (b'{"version": 1}', "is not a card: network: Field required"),
        (b"\xff\xf0", "is not text"),
    ],
)
def test_a_card_that_is_none(folder, text, found):
    """One line says what is wrong with it."""
    (folder / "card.json").write_bytes(text)

    with pytest.raises(WeightsError, match=f"card.json: {found}.*copy the folder again") as caught:
        load(folder)

    assert "\n" not in str(caught.value)


HUGE = 10**399


SIZES = [
    *(f"input.{name}" for name in ("mpp", "side_px", "network_px")),
    *(f"convs.0.{name}" for name in ("channels", "kernel", "padding", "stride")),
]
BEYOND_MEASURE: list[object] = [float("inf"), float("nan"), 1e6, 10**15, HUGE, -1, "x", [], None]


@pytest.mark.parametrize("where", SIZES)
@pytest.mark.parametrize("value", BEYOND_MEASURE, ids=range(len(BEYOND_MEASURE)))
def test_a_card_without_measure(folder, where, value):
    """Sizes are bounded before anything is read or allocated."""
    network = json.loads((folder / "card.json").read_text("utf-8"))["network"]
    *path, last = (int(key) if key.isdigit() else key for key in where.split("."))
    part = network
    for key in path:
        part = part[key]
    part[last] = value
    rewrite_card(folder, network=network)

    with pytest.raises(WeightsError, match=rf"card\.json: is not a card: {where}: ") as caught:
        load(folder)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"hidden": [HUGE]}, r"hidden\.0: must be less than"),
        ({"hidden": [5] * 100}, "hidden: Tuple should have at most 64 items"),
        ({"classes": ["a"] * 1000}, "classes: Tuple should have at most 64 items"),
        ({"convs": []}, "convs: Tuple should have at least 1 item"),
        ({"role": "aggregator", "rule": {"a": []}}, "knows no aggregator"),
        ({"role": [1]}, "role: must be"),
        ({f"key{k}": k for k in range(10_000)}, "and 9995 more"),
    ],
)
def test_a_card_of_a_network_that_cannot_be(folder, network, words):
    """One short line."""
    known = json.loads((folder / "card.json").read_text("utf-8"))["network"]
    rewrite_card(folder, network=known | network)

    with pytest.raises(WeightsError, match=words) as caught:
        load(folder)

    assert len(str(caught.value)) < 1500


def test_networks_too_large_to_run():
    """Sizes that are each allowed can be too much together."""
    spec = COMPACT_TUMOUR_CNN
    with pytest.raises(ValueError, match="its tiles are 16000 µm wide"):
        replace(spec, input=replace(spec.input, mpp=4, side_px=4000))
    with pytest.raises(ValueError, match="values for one tile"):
        replace(spec, input=replace(spec.input, mpp=0.25, network_px=10_000))
    with pytest.raises(ValueError, match="is too small for its layers"):
        replace(spec, input=replace(spec.input, network_px=4))


DEEP = b"[" * 100_000
FILES = [
    DEEP,
    b'{"version": 1, "a":' + DEEP,
    b"[]",
    b"3",
    b"null",
    b"",
    b"\xff\xfe",
    b"{" * 10,
    b'{"version": ' + b"9" * 5000 + b"}",
    b'{"version": ' + b"9" * 400 + b"}",
    b'{"version": NaN}',
    b'{"version": [1]}',
]


@pytest.mark.parametrize("text", FILES, ids=range(len(FILES)))
def test_a_card_of_any_bytes(folder, text):
    """One short line, whatever it is."""
    (folder / "card.json").write_bytes(text)

    with pytest.raises(WeightsError, match=r"card\.json: ") as caught:
        load(folder)

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


FIELDS: list[dict[str, object]] = [
    {"weights": 5},
    {"weights": {"tile_cnn": [HUGE]}},
    {"operating_point": 3},
    {"operating_point": {"threshold": float("nan")}},
    {"calibration": {"slope": HUGE, "shift": 0, "chosen_on": "x"}},
    {"calibration": {"slope": float("inf"), "shift": 0, "chosen_on": "x"}},
    {"calibration": {"slope": 1, "shift": float("nan"), "chosen_on": "x"}},
    {"calibration": {"x": [[]], "y": {}, "chosen_on": 1, "kind": "isotonic"}},
    {"calibration": {"x": [], "y": [], "chosen_on": "", "kind": "isotonic"}},
    {"triage": []},
    {"slides": HUGE, "mean": [float("nan")], "features": ["red"], "covariance": [[1]], "level": 0.9},
    {"slides": 99, "mean": [HUGE], "features": [[]], "covariance": [[]], "level": HUGE},
    {"slides": 99, "mean": [1, 2], "features": ["red", "blue"], "covariance": [[1, 9], [0, 1]], "level": 0.9},
    {"slides": 99, "mean": [1], "features": ["red"], "covariance": [[float("inf")]], "level": 0.9},
]
RECORDS = [*FILES, *(json.dumps({"version": 1, "weights": {}, **fields}).encode() for fields in FIELDS)]


@pytest.mark.parametrize("text", RECORDS, ids=range(len(RECORDS)))
@pytest.mark.parametrize(
    ("name", "read"), [("decision_rules.json", read_rules), ("domain.json", read_domain)], ids=["rules", "domain"]
)
def test_a_record_beside_weights_of_any_bytes(tmp_path, name, read, text):
    """One short line that says what to do, whatever it is."""
    (tmp_path / name).write_bytes(text)

    with pytest.raises(WeightsError, match=rf"{name}: .*; .*delete the file") as caught:
        read(tmp_path, {})

    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize(
    ("name", "read"), [("decision_rules.json", read_rules), ("domain.json", read_domain)], ids=["rules", "domain"]
)
def test_an_unreadable_record_beside_weights(tmp_path, name, read):
    """It may be right, so nobody is told to delete it."""
    (tmp_path / name).mkdir()

    with pytest.raises(WeightsError, match=rf"{name}: cannot be read \(.*\); check the file and its permissions$"):
        read(tmp_path, {})


@pytest.mark.parametrize("key", ["training_patients", "validation_patients"])
@pytest.mark.parametrize("value", [5, "abc", None, {"a": 1}, [1], [[]], [float("nan")], [None]])
def test_a_record_of_patients_of_other_types(tmp_path, key, value):
    """Nobody is taken for unused because a record cannot be read."""
    (tmp_path / "run.json").write_text(json.dumps({key: value}))

    with pytest.raises(ManifestError, match=rf"run\.json: cannot be read \({key} is no list of texts\), so the pat"):
        patients_used(tmp_path)


@pytest.mark.parametrize("text", [text for text in FILES if b"version" not in text or DEEP in text])
def test_a_record_of_patients_of_any_bytes(tmp_path, text):
    """Likewise."""
    (tmp_path / "patients.json").write_bytes(text)

    with pytest.raises(ManifestError, match="so the patients used in these weights are unknown"):
        patients_used(tmp_path)
