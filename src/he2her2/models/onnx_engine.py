"""A CNN on the CPU, by ONNX Runtime."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from he2her2.errors import WeightsError
from he2her2.geometry import Rgb
from he2her2.models.card import Card
from he2her2.models.encoders import CnnSpec, FeatureCard, prepare_input
from he2her2.models.signature import Arrays, Inputs
from he2her2.models.weights import ONNX_FILE

__all__ = [
    "OnnxEncoder",
    "OnnxEngine",
    "files_of_weights",
    "max_rows",
    "new_session",
    "open_session",
    "penultimate",
    "run_network",
    "run_rows",
]

_INPUT, _FEATURES, _LOGITS = "input", "features", "logits"

_ORT_ERRORS = (  # they share no class of their own
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)

_MAX_ACTIVATION_BYTES = 1 << 26
"""A batch is cut so that its largest layer stays below this, however many tiles the caller hands over."""

_CACHE_BYTES = 1 << 22
"""Largest layer of a batch that runs fastest: an eighth less time than at 16 times as much, which leaves the caches."""

_MAX_WINDOWS = 64
"""Tiles of a picture whose features go through the fully connected layers at a time."""

_LONGEST_REASON = 300
_ENCODER_ROWS = 16
"""Tiles that an encoder of unknown layers gets at a time."""


class OnnxEngine:
    """Runs on the calling thread alone, so that N threads that call it use N cores, each for its own tiles.

    Attributes:
        card: About the network.
    """

    def __init__(
        self,
        card: Card,
        session: onnxruntime.InferenceSession,
        model: Callable[[], onnx.ModelProto],
        tensors: Arrays = MappingProxyType({}),
    ) -> None:
        self.card = card
        self._session = session
        self._model, self._tensors = model, tensors  # for `windows`, should it be called
        self._max_rows = _best_rows(card.cnn)
        self._parts: tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession] | None = None
        self._lock = Lock()

    @classmethod
    def open(cls, folder: Path, card: Card) -> "OnnxEngine":
        """Engine of a verified folder of weights.

        Raises:
            WeightsError: The ONNX file does not run, or is not of the network that the card describes.
        """
        file = folder / ONNX_FILE
        return cls(card, open_session(file, card), partial(_graph_of, file.absolute(), card))

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Logits (n, k) of (n, h, w, 3) tiles; each tile's do not depend on the others."""
        logits = np.empty((len(pixels), len(self.card.network.classes)), np.float32)
        for start in range(0, len(pixels), self._max_rows):
            rows = slice(start, start + self._max_rows)
            logits[rows] = run_rows(self._session, prepare_input(pixels[rows], self.card.input))
        return logits

    def windows(self, picture: Rgb, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (n, k) of the tiles at (n, 2) `corners` of an (s, s, 3) picture, its convolutions computed once."""
        spec = self.card.cnn
        convolutions, rest = self._sessions_apart()
        whole = replace(spec.input, side_px=len(picture), network_px=len(picture))
        features = convolutions.run([_FEATURES], {_INPUT: prepare_input(picture[None], whole)})[0][0]  # (d, h', w')
        side, positions = spec.stage_sides[-1][1], corners // (spec.window_step or 1)
        every = sliding_window_view(features, (side, side), axis=(1, 2))  # (d, rows, columns, side, side), a view
        logits = np.empty((len(corners), len(spec.classes)), np.float32)
        for start in range(0, len(corners), _MAX_WINDOWS):
            some = slice(start, start + _MAX_WINDOWS)
            columns, rows = positions[some].T
            logits[some] = run_rows(rest, np.ascontiguousarray(every[:, rows, columns].swapaxes(0, 1)), _FEATURES)
        return logits

    def _sessions_apart(self) -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
        """Sessions of the convolutions and of the rest, made when first asked for."""
        with self._lock:
            if self._parts is None:
                convolutions, rest = (
                    new_session(part.SerializeToString(), _declared_in(part, self._tensors))
                    for part in _taken_apart(self._model())
                )
                self._parts = convolutions, rest
            return self._parts


class OnnxEncoder:
    """A feature encoder that runs on the calling thread alone.

    Args:
        card: About the encoder.
        identity: SHA-256 of all that its features depend on.
        model: Path or bytes of an ONNX model with one input; its first output is taken.

    Raises:
        WeightsError: It does not run, or gives no (n, d) features as the card says.
    """

    def __init__(self, card: FeatureCard, identity: str, model: str | bytes) -> None:
        self.card, self.identity = card, identity
        try:
            self._session = new_session(model)
        except _ORT_ERRORS as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"encoder {card.name}: ONNX Runtime cannot run it ({reason}); export it again") from None
        entries, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(entries) != 1 or not outputs[0].type.startswith("tensor("):
            found_ = f"{len(entries)} inputs and gives a {outputs[0].type} first"
            raise WeightsError(f"encoder {card.name}: takes {found_}; export it with one input, and features as output")
        self._names = entries[0].name, outputs[0].name
        channels = card.input.n_channels
        self._factor = np.float32(1) / np.asarray(card.std[:channels], np.float32)[:, None, None]
        self._shift = -np.asarray(card.mean[:channels], np.float32)[:, None, None] * self._factor
        blank = np.zeros((2, card.input.side_px, card.input.side_px, 3), np.uint8)
        try:
            found = self._run(blank).shape
        except (*_ORT_ERRORS, ValueError) as error:
            reason, side = " ".join(str(error).split())[:_LONGEST_REASON], card.input.network_px
            raise WeightsError(
                f"encoder {card.name}: fails on two tiles of its card's size ({reason}); export it for float32 inputs "
                f"(n, {channels}, {side}, {side}) of any n, or correct the card"
            ) from None
        if found != (2, card.n_features):
            raise WeightsError(f"encoder {card.name}: gives {found} for 2 tiles where its card says {card.n_features}")

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Features (n, d) of (n, h, w, 3) tiles; each tile's do not depend on the others."""
        features = np.empty((len(pixels), self.card.n_features), np.float32)
        for start in range(0, len(pixels), _ENCODER_ROWS):
            rows = slice(start, start + _ENCODER_ROWS)
            features[rows] = self._run(pixels[rows])
        return features

    def _run(self, pixels: Rgb) -> NDArray[np.float32]:
        if len(pixels) == 1:  # as `run_rows`: one row may take another path
            return self._run(np.concatenate([pixels, pixels]))[:1]
        channels = prepare_input(pixels, self.card.input)
        if self.card.mean != (0.0,) * 3 or self.card.std != (1.0,) * 3:
            channels *= self._factor
            channels += self._shift
        entry, output = self._names
        found: NDArray[np.float32] = self._session.run([output], {entry: channels})[0]
        return found.reshape(len(pixels), -1) if found.ndim == 4 and found.shape[2:] == (1, 1) else found


def files_of_weights(file: Path) -> list[Path]:
    """Files in which an ONNX file keeps its numbers, beside itself, as torch exports them; none of a damaged one."""
    try:
        graph = onnx.load(file, load_external_data=False).graph
    except DecodeError:
        return []
    places = {entry.value for tensor in _tensors_of(graph) for entry in tensor.external_data if entry.key == "location"}
    return [path for path in (file.parent / place for place in sorted(places)) if path.is_file()]


def _tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All tensors of a graph and of those within it."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors_of(inner)


def penultimate(file: Path) -> bytes:
    """The model of a tile CNN without its last layer: from `input` to the features (n, d) before the logits."""
    model = onnx.load(file)
    last = model.graph.node.pop()
    weights = model.graph.initializer
    (n_features,) = (tensor.dims[1] for tensor in weights if tensor.name == last.input[1])
    kept = [tensor for tensor in weights if tensor.name not in last.input]
    del weights[:], model.graph.output[:]
    weights.extend(kept)
    output = helper.make_tensor_value_info(last.input[0], TensorProto.FLOAT, ["n", n_features])
    model.graph.output.append(output)
    packed: bytes = model.SerializeToString()
    return packed


def run_rows(
    session: onnxruntime.InferenceSession, rows: NDArray[np.float32], entry: str = _INPUT
) -> NDArray[np.float32]:
    """Logits of a batch.

    A lone row runs as two: matrix products of one row may take another path, which rounds differently, and soft-argmax
    with a large beta makes that visible.
    """
    if len(rows) == 1:
        return run_rows(session, np.concatenate([rows, rows]), entry)[:1]
    logits: NDArray[np.float32] = session.run([_LOGITS], {entry: rows})[0]
    return logits


def max_rows(spec: CnnSpec) -> int:
    """Largest number of tiles in a batch.

    Example:
        >>> from he2her2.models.encoders.cnn import PAPER_TILE_CNN
        >>> max_rows(PAPER_TILE_CNN)
        16
    """
    return max(2, _MAX_ACTIVATION_BYTES // _largest_layer(spec))


def _best_rows(spec: CnnSpec) -> int:
    """Fastest number of tiles in a batch: as many as stay in the cache, or `max_rows` where not even two do.

    Example:
        >>> from he2her2.models.encoders.cnn import LITE0_TUMOUR_CNN, PAPER_TILE_CNN
        >>> _best_rows(LITE0_TUMOUR_CNN), _best_rows(PAPER_TILE_CNN)
        (10, 16)
    """
    in_cache = _CACHE_BYTES // _largest_layer(spec)
    return in_cache if in_cache > 1 else max_rows(spec)


def _largest_layer(spec: CnnSpec) -> int:
    """Bytes of a CNN's largest layer for one tile."""
    layers = zip(spec.convs, spec.stage_sides, strict=True)
    return max(conv.channels * convolved**2 for conv, (convolved, _) in layers) * np.float32().nbytes


def open_session(file: Path, card: Card) -> onnxruntime.InferenceSession:
    """Session of a verified ONNX file.

    Raises:
        WeightsError: It does not run, or is not of the network that the card describes.
    """
    try:
        session = new_session(str(file))
    except _ORT_ERRORS as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{file}: ONNX Runtime cannot run it ({reason}); train or import it again") from None
    signature = card.network.signature
    wanted = {name: _sizes(shape) for name, shape in (*signature.inputs.items(), *signature.outputs.items())}
    found = {value.name: _sizes(value.shape) for value in (*session.get_inputs(), *session.get_outputs())}
    unused = (
        signature.inputs.keys() - found.keys() if len(signature.inputs) > 1 else set()
    )  # the exporter leaves it out
    if found != {name: shape for name, shape in wanted.items() if name not in unused}:
        raise WeightsError(f"{file}: has {found} where {card.network.name} has {wanted}; train or import it again")
    return session


def run_network(session: onnxruntime.InferenceSession, inputs: Inputs) -> dict[str, NDArray[np.float32]]:
    """Outputs of a network by name; inputs that its graph does not use are left out."""
    names = [output.name for output in session.get_outputs()]
    used = {value.name: inputs[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, used), strict=True))


def _sizes(shape: Sequence[str | int | None]) -> tuple[int | None, ...]:
    """A shape with None for any size, whatever its letter."""
    return tuple(size if isinstance(size, int) else None for size in shape)


def new_session(model: str | bytes, tensors: Arrays = MappingProxyType({})) -> onnxruntime.InferenceSession:
    """Session with one thread: the caller's.

    Args:
        model: Path or bytes of an ONNX model.
        tensors: The numbers of the tensors that the model only declares.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False  # its plans cost half as much memory again in every thread, and no time is won
    options.log_severity_level = 3  # errors only: its warnings are about the graph, which is ours
    if tensors:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in tensors.values()]
        options.add_external_initializers([*tensors], values)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _graph_of(file: Path, card: Card) -> onnx.ModelProto:
    """Graph of the file that a session was opened of, perhaps long ago.

    Raises:
        WeightsError: It is gone, or has been replaced.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read any more ({error.strerror}); load the weights again") from None
    if ONNX_FILE in card.files and sha256(content).hexdigest() != card.files[ONNX_FILE].sha256:
        raise WeightsError(f"{file}: was replaced after it had been loaded; load the weights again")
    return onnx.load_from_string(content)


def _taken_apart(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Take a CNN apart: its convolutions, for pictures of any size, and the rest, for the features of tiles.

    Returns:
        From `input` (n, c, h, w) to `features` (n, d, h', w'), and from the `features` of tiles to `logits` (n, k).
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    nodes = list(graph.node)
    seam = next(i for i, node in enumerate(nodes) if node.op_type in ("GlobalAveragePool", "Flatten"))
    nodes[seam - 1].output[0] = nodes[seam].input[0] = _FEATURES
    picture, features = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", f"{name}_c", f"{name}_h", f"{name}_w"])
        for name in (_INPUT, _FEATURES)
    )

    def part(nodes: Sequence[onnx.NodeProto], first: onnx.ValueInfoProto, last: onnx.ValueInfoProto) -> onnx.ModelProto:
        used = {name for node in nodes for name in node.input}
        tensors = [tensor for tensor in graph.initializer if tensor.name in used]
        return helper.make_model(
            helper.make_graph(nodes, graph.name, [first], [last], tensors),
            opset_imports=model.opset_import,
            ir_version=model.ir_version,
        )

    return part(nodes[:seam], picture, features), part(nodes[seam:], features, graph.output[0])


def _declared_in(model: onnx.ModelProto, tensors: Arrays) -> dict[str, NDArray[np.float32]]:
    """The tensors that a model declares."""
    return {tensor.name: tensors[tensor.name] for tensor in model.graph.initializer if tensor.name in tensors}
