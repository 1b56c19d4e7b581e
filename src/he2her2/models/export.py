"""Folders of weights, written: tensors, card, and the ONNX file by torch's exporter, which runs without torch."""

import warnings
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto
from safetensors.numpy import save_file
from torch import Tensor, nn

from he2her2.files import atomic, sha256_of, write_json
from he2her2.models.aggregators import AggregatorSpec, RankingSpec
from he2her2.models.bag import Bag
from he2her2.models.card import Card, FileNote, Spec
from he2her2.models.onnx_engine import OnnxEngine, new_session, run_network
from he2her2.models.signature import Arrays, Signature
from he2her2.models.torch_modules import batch_of, initial_weights, module_of, run_of
from he2her2.models.weights import CARD_FILE, ONNX_FILE, TENSOR_FILE

__all__ = ["OPSET", "check_aggregator", "engine_of", "onnx_of", "save_weights", "session_of"]

OPSET = 18
_TOLERANCE = 1e-5
_CPU = torch.device("cpu")


class _Graph(NamedTuple):
    """The graph of a network, and its numbers apart: the largest network has half a gigabyte of them.

    Attributes:
        model: For any batch size or number of tiles; its tensors are declared only.
        tensors: The numbers by name, those of the exported module: nothing is copied.
    """

    model: onnx.ModelProto
    tensors: dict[str, NDArray[np.float32]]


def _graph_of(spec: Spec, module: nn.Module) -> _Graph:
    """Export a network; the same network gives the same bytes everywhere.

    Args:
        spec: The network; a rule without weights has no graph.
        module: In evaluation.
    """
    signature, exported = spec.signature, spec.exported(module)
    drawn = tuple(torch.from_numpy(array) for array in signature.random_inputs(2).values())
    draft = _traced(exported, drawn, [*signature.inputs], [*signature.outputs], _dynamic_axes(signature))
    model = onnx.load_from_string(draft)
    state = exported.state_dict()
    declared = [value.name for value in model.graph.input if value.name in state]
    tensors = {name: state[name].detach().numpy() for name in declared}
    ends = [value for value in model.graph.input if value.name not in state]
    del model.graph.input[:]
    model.graph.input.extend(ends)
    model.graph.initializer.extend(_declared(name, tensor) for name, tensor in tensors.items())
    model.graph.name, model.producer_name, model.producer_version = spec.name, "he2her2", ""
    return _Graph(model, tensors)


def onnx_of(module: nn.Module, shape: tuple[int, ...], name: str) -> bytes:
    """ONNX model of an encoder's module, with its weights.

    Args:
        module: In evaluation, from `input` (n, ...) to `features` (n, d).
        shape: Of one input.
        name: Of the graph.
    """
    axes = {"input": {0: "n"}, "features": {0: "n"}}
    drawn = torch.zeros((2, *shape))
    model = onnx.load_from_string(_traced(module, (drawn,), ["input"], ["features"], axes, with_weights=True))
    model.graph.name, model.producer_name, model.producer_version = name, "he2her2", ""
    packed: bytes = model.SerializeToString(deterministic=True)
    return packed


def _traced(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    input_names: list[str],
    output_names: list[str],
    dynamic_axes: dict[str, dict[int, str]],
    *,
    with_weights: bool = False,
) -> bytes:
    """A module as torch's exporter writes it."""
    draft: Any = BytesIO()  # torch's types know paths only
    with warnings.catch_warnings():
        # the newer exporter is slower, needs onnxscript and writes the paths of this machine into the file
        warnings.filterwarnings("ignore", message="You are using the legacy TorchScript", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="The feature will be removed", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message="Constant folding", category=UserWarning)  # ONNX Runtime folds, too
        torch.onnx.export(
            module,
            inputs,
            draft,
            dynamo=False,
            opset_version=OPSET,
            export_params=with_weights,
            do_constant_folding=False,
            input_names=input_names,
            output_names=output_names,
            dynamic_axes=dynamic_axes,
        )
    written: bytes = draft.getvalue()
    return written


def session_of(spec: Spec, weights: Arrays) -> onnxruntime.InferenceSession:
    """Session of weights in memory.

    Raises:
        ValueError: The weights are not those of the network.
    """
    model, tensors = _graph_of(spec, module_of(spec, weights))
    return new_session(model.SerializeToString(), tensors)


def engine_of(card: Card, weights: Arrays) -> OnnxEngine:
    """CPU engine of weights in memory.

    Raises:
        ValueError: The weights are not those of the card's network.
    """
    model, tensors = _graph_of(card.network, module_of(card.network, weights))
    return OnnxEngine(card, new_session(model.SerializeToString(), tensors), lambda: model, tensors)


def save_weights(folder: Path, card: Card, weights: Arrays) -> Card:
    """Write a network's folder, whole or not at all; an existing one is replaced.

    Args:
        folder: To write.
        card: About the weights; the files' hashes are filled in here.
        weights: Every tensor of the network.

    Returns:
        The card with the files' hashes.

    Raises:
        ValueError: The weights are not those of the card's network, or not finite; or the ONNX file computes other
            numbers than torch.
        OutputError: The folder cannot be written.
    """
    for name, tensor in weights.items():
        if tensor.dtype != np.float32 or not np.isfinite(tensor).all():
            raise ValueError(f"{name} must be finite float32")
    module = module_of(card.network, weights)
    with atomic(folder) as draft:
        draft.mkdir()
        _write_onnx(draft / ONNX_FILE, card.network, module)
        save_file({name: np.ascontiguousarray(tensor) for name, tensor in weights.items()}, draft / TENSOR_FILE)
        files = {name: _note(draft / name) for name in (ONNX_FILE, TENSOR_FILE)}
        complete = replace(card, files=files)
        write_json(draft / CARD_FILE, complete)
    return complete


def _write_onnx(file: Path, spec: Spec, module: nn.Module) -> None:
    """Write the ONNX file of a network, and check that it computes what the module computes.

    Args:
        file: To write.
        spec: The network.
        module: In evaluation.

    Raises:
        ValueError: The file's outputs differ from the module's by more than `_TOLERANCE`.
    """
    model, tensors = _graph_of(spec, module)
    for proto in model.graph.initializer:
        del proto.external_data[:]
        proto.data_location = TensorProto.DEFAULT
        proto.raw_data = np.ascontiguousarray(tensors[proto.name], "<f4").tobytes()
    file.write_bytes(model.SerializeToString(deterministic=True))
    del model
    worst = _largest_difference(file, spec, module)
    if not worst <= _TOLERANCE:
        raise ValueError(f"{spec.name}: its ONNX file differs from its torch module by {worst:.2g}")


def _largest_difference(file: Path, spec: Spec, module: nn.Module, n: int = 3) -> float:
    """Largest difference between outputs of an ONNX file and of a module, relative to the largest output if above 1.

    Args:
        file: The ONNX file.
        spec: The network.
        module: In evaluation.
        n: Inputs, or tiles of a bag; another number than at the export shows that no size is fixed.
    """
    inputs = spec.signature.random_inputs(n)
    expected = run_of(spec, module)(inputs)
    found = run_network(new_session(str(file)), inputs)
    return max(
        float(np.abs(array - found[name]).max() / max(1.0, float(np.abs(array).max())))
        for name, array in expected.items()
    )


def _note(file: Path) -> FileNote:
    return FileNote(sha256_of(file), file.stat().st_size)


@torch.no_grad()
def check_aggregator(spec: AggregatorSpec) -> None:
    """Check the torch module and the ONNX file of an aggregator, at weights drawn from a seed.

    Args:
        spec: The aggregator.

    Raises:
        ValueError: The order of the tiles or, unless it ranks them, padding or another bag changes the result; the
            contributions are no shares; or the ONNX file computes other numbers than torch for some number of tiles.
    """
    module = module_of(spec, initial_weights(spec, seed=0))
    n = spec.n_tiles if isinstance(spec, RankingSpec) else 20
    rng = np.random.default_rng(0)
    features, coords_um = rng.normal(size=(n, spec.n_features)), rng.uniform(0, 1e4, (n, 2))
    bag = Bag(features.astype(np.float32), coords_um, np.ones(n, np.bool_))
    order = rng.permutation(n)
    logits, contributions = module(*batch_of(bag, _CPU))
    _require_close(
        spec, "the order of the tiles changes the logits", logits, module(*batch_of(bag.take(order), _CPU))[0]
    )
    _require_close(spec, "the contributions do not sum to 1", contributions.sum(), torch.tensor(1.0))
    if contributions.min() < 0:
        raise ValueError(f"{spec.name}: a contribution is negative")
    if not isinstance(spec, RankingSpec):
        longer = np.concatenate([bag.features, 1 - bag.features])
        padded = Bag(longer, np.concatenate([coords_um, coords_um]), np.arange(2 * n) < n)
        _require_close(spec, "padding changes the logits", logits, module(*batch_of(padded, _CPU))[0])
        _check_several(spec, module, bag, Bag(1 - bag.features, coords_um[order], bag.mask))
    if spec.has_weights:
        with TemporaryDirectory() as folder:
            file = Path(folder) / ONNX_FILE
            _write_onnx(file, spec, module)
            for n_tiles in (1, 50):
                worst = _largest_difference(file, spec, module, n_tiles)
                if not worst <= _TOLERANCE:
                    raise ValueError(f"{spec.name}: its ONNX file differs from torch by {worst:.2g} at {n_tiles} tiles")


def _check_several(spec: AggregatorSpec, module: nn.Module, *bags: Bag) -> None:
    """Raise if bags of one size, which training passes together, change one another's logits."""
    exported = spec.exported(module)
    inputs = [[torch.from_numpy(spec.inputs_of(bag)[name]) for name in spec.signature.inputs] for bag in bags]
    together = exported(*(torch.cat(parts) for parts in zip(*inputs, strict=True)))[0]
    for logits, alone in zip(together, inputs, strict=True):
        _require_close(spec, "several bags at once change the logits", logits, exported(*alone)[0][0])


def _require_close(spec: AggregatorSpec, problem: str, first: Tensor, second: Tensor) -> None:
    if not torch.allclose(first, second, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise ValueError(f"{spec.name}: {problem}")


def _dynamic_axes(signature: Signature) -> dict[str, dict[int, str]]:
    """Axes of any size, by the name of the input or output."""
    return {
        name: {axis: size for axis, size in enumerate(sizes) if isinstance(size, str)}
        for name, sizes in (*signature.inputs.items(), *signature.outputs.items())
    }


def _declared(name: str, tensor: NDArray[np.float32]) -> TensorProto:
    """Name and shape of a tensor whose numbers come from elsewhere."""
    proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=tensor.shape)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "memory"), ("offset", "0"), ("length", str(tensor.nbytes))):
        proto.external_data.add(key=key, value=value)
    return proto
