"""A CNN on the CPU, by ONNX Runtime."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from he2her2.errors import WeightsError
from he2her2.geometry import Rgb
from he2her2.models.card import Card
from he2her2.models.engines import Untrained
from he2her2.models.initial import initial_weights
from he2her2.models.onnx_graph import FEATURES, INPUT, OUTPUT, build_onnx, graph_tensors, split
from he2her2.models.scoring import prepare_input
from he2her2.models.weights import ONNX_FILE
from he2her2.models.zoo import CnnSpec, Spec, input_shape, stage_sides, window_step

ORT_ERRORS = (  # they share no class of their own
    ort_state.Fail,
    ort_state.InvalidArgument,
    ort_state.InvalidGraph,
    ort_state.InvalidProtobuf,
    ort_state.NoSuchFile,
    ort_state.NotImplemented,
    ort_state.RuntimeException,
)

MAX_ACTIVATION_BYTES = 1 << 26
"""A batch is cut so that its largest layer stays below this, however many tiles the caller hands over."""

MAX_WINDOWS = 64
"""Tiles of a picture whose features go through the fully connected layers at a time."""


class OnnxEngine:
    """Runs on the calling thread alone, so that N threads that call it use N cores, each for its own tiles.

    Attributes:
        card: What the network is and eats.
    """

    def __init__(self, card: Card, session: onnxruntime.InferenceSession, model: Callable[[], onnx.ModelProto]) -> None:
        assert isinstance(card.network, CnnSpec)
        self.card = card
        self._session = session
        self._model = model
        self._max_rows = max_rows(card.network)
        self._parts: tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession] | None = None
        self._lock = Lock()

    @classmethod
    def open(cls, folder: Path, card: Card) -> "OnnxEngine":
        """Engine of a verified folder of weights.

        Raises:
            WeightsError: The ONNX file does not run, or is not of the network that the card describes.
        """
        file = folder / ONNX_FILE
        return cls(card, open_session(file, card), partial(onnx.load, file))

    @classmethod
    def of(cls, card: Card, weights: Mapping[str, NDArray[np.float32]]) -> "OnnxEngine":
        """Engine of weights in memory."""
        return cls(card, session_of(card.network, weights), partial(build_onnx, card.network, weights))

    @classmethod
    def untrained(cls, source: Untrained) -> "OnnxEngine":
        """Engine of weights drawn from a seed."""
        return cls.of(source.card, initial_weights(source.spec, source.seed))

    def __call__(self, pixels: Rgb) -> NDArray[np.float32]:
        """Logits (n, k) of (n, h, w, 3) tiles; each tile's do not depend on the others."""
        logits = np.empty((len(pixels), len(self.card.network.classes)), np.float32)
        for start in range(0, len(pixels), self._max_rows):
            rows = slice(start, start + self._max_rows)
            logits[rows] = run_rows(self._session, prepare_input(pixels[rows], self.card.input))
        return logits

    def windows(self, picture: Rgb, corners: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits (n, k) of the tiles at (n, 2) `corners` of an (s, s, 3) picture, its convolutions computed once."""
        spec = self.card.network
        assert isinstance(spec, CnnSpec)
        convolutions, rest = self._taken_apart()
        whole = replace(spec.input, side_px=len(picture), network_px=len(picture))
        features = convolutions.run([FEATURES], {INPUT: prepare_input(picture[None], whole)})[0][0]  # (d, h', w')
        side, places = stage_sides(spec)[-1][1], corners // (window_step(spec) or 1)
        every = sliding_window_view(features, (side, side), axis=(1, 2))  # (d, rows, columns, side, side), a view
        logits = np.empty((len(corners), len(spec.classes)), np.float32)
        for start in range(0, len(corners), MAX_WINDOWS):
            some = slice(start, start + MAX_WINDOWS)
            columns, rows = places[some].T
            logits[some] = run_rows(rest, np.ascontiguousarray(every[:, rows, columns].swapaxes(0, 1)), FEATURES)
        return logits

    def _taken_apart(self) -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
        """Sessions of the convolutions and of the rest, made when first asked for."""
        with self._lock:
            if self._parts is None:
                convolutions, rest = (new_session(part.SerializeToString()) for part in split(self._model()))
                self._parts = convolutions, rest
            return self._parts


def run_rows(
    session: onnxruntime.InferenceSession, rows: NDArray[np.float32], entry: str = INPUT
) -> NDArray[np.float32]:
    """Logits of a batch.

    A lone row runs as two: matrix products of one row may take another path, which rounds differently, and soft-argmax
    with a large beta makes that visible.
    """
    if len(rows) == 1:
        return run_rows(session, np.concatenate([rows, rows]), entry)[:1]
    logits: NDArray[np.float32] = session.run([OUTPUT], {entry: rows})[0]
    return logits


def max_rows(spec: CnnSpec) -> int:
    """Tiles in a batch at most.

    Example:
        >>> from he2her2.models.zoo import PAPER_TILE_CNN
        >>> max_rows(PAPER_TILE_CNN)
        16
    """
    layers = zip(spec.convs, stage_sides(spec), strict=True)
    largest = max(conv.channels * convolved**2 for conv, (convolved, _) in layers) * np.float32().nbytes
    return max(2, MAX_ACTIVATION_BYTES // largest)


def open_session(file: Path, card: Card) -> onnxruntime.InferenceSession:
    """Session of a verified ONNX file.

    Raises:
        WeightsError: It does not run, or is not of the network that the card describes.
    """
    try:
        session = new_session(str(file))
    except ORT_ERRORS as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{file}: ONNX Runtime cannot run it ({reason}); train or import it again") from None
    shapes = {value.name: value.shape[1:] for value in (*session.get_inputs(), *session.get_outputs())}
    wanted = {INPUT: [*input_shape(card.network)], OUTPUT: [len(card.network.classes)]}
    if shapes != wanted:
        raise WeightsError(f"{file}: has {shapes} where {card.network.name} has {wanted}; train or import it again")
    return session


def session_of(spec: Spec, weights: Mapping[str, NDArray[np.float32]]) -> onnxruntime.InferenceSession:
    """Session of weights in memory."""
    model = build_onnx(spec, weights, embed=False)
    return new_session(model.SerializeToString(), graph_tensors(spec, weights))


def new_session(
    model: str | bytes, tensors: Mapping[str, NDArray[np.float32]] = MappingProxyType({})
) -> onnxruntime.InferenceSession:
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
