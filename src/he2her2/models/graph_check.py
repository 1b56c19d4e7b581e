"""Checks of an ONNX file's graph without running it: layers and tensors are those of the card, nothing is hidden.

A graph that a network's `layers` describe must have these nodes in this order and no others. Any other graph, as of an
aggregator of one's own, may hold plain operators only: no loops, branches, functions, drawn numbers or large constants.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from he2her2.errors import WeightsError
from he2her2.models.card import Spec
from he2her2.models.signature import Layer

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "Conv": {"auto_pad": b"NOTSET", "dilations": [1, 1], "group": 1, "pads": [0, 0, 0, 0], "strides": [1, 1]},
    "MaxPool": {
        "auto_pad": b"NOTSET",
        "ceil_mode": 0,
        "dilations": [1, 1],
        "pads": [0, 0, 0, 0],
        "storage_order": 0,
        "strides": [1, 1],
    },
    "LpPool": {
        "auto_pad": b"NOTSET",
        "ceil_mode": 0,
        "dilations": [1, 1],
        "p": 2,
        "pads": [0, 0, 0, 0],
        "strides": [1, 1],
    },
    "Gemm": {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0},
    "Flatten": {"axis": 1},
}
"""Attributes of the operators where a node does not name them."""

_PLAIN_OPERATORS = frozenset(
    re.findall(
        r"\w+",
        """
        Abs Add And ArgMax ArgMin BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv Cos CumSum Div
        Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm GlobalAveragePool
        GlobalMaxPool Greater GreaterOrEqual Identity InstanceNormalization LayerNormalization LeakyRelu Less
        LessOrEqual Log LogSoftmax LpNormalization MatMul Max Mean Min Mul Neg Not OneHot Or Pad Pow PRelu Range
        Reciprocal ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
        ReduceSumSquare Relu Reshape Round ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Size Slice Softmax
        Softplus Softsign Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Where Xor
        """,
    )
)
_LARGEST_CONSTANT = 64
"""Values in a constant: shapes, axes and factors, no weights."""

AGAIN = "copy the folder again from where it came"


def read_graph(file: Path, spec: Spec) -> dict[str, NDArray[np.float32]]:
    """Tensors of an ONNX file, views of its bytes, after its graph was checked.

    Args:
        file: The ONNX file.
        spec: The network that the card describes.

    Raises:
        WeightsError: It is no ONNX file, refers to other files, or is of another graph than our exporter writes.
    """
    import onnx  # noqa: PLC0415  takes a while to load
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415

    try:
        model = onnx.load(file, load_external_data=False)
    except DecodeError:
        raise WeightsError(f"{file}: is not an ONNX file; {AGAIN}") from None
    try:
        tensors = dict(_tensors(model.graph))
        _check_whole(model)
        if spec.layers is None:
            _check_plain(model.graph)
        else:
            _check_layers(model.graph, spec.layers, spec.name)
    except ValueError as error:
        raise WeightsError(f"{file}: {error}; train or import again") from None
    return tensors


def _tensors(graph: "GraphProto") -> Iterator[tuple[str, NDArray[np.float32]]]:
    seen = set()
    for tensor in graph.initializer:
        if tensor.name in seen:
            raise ValueError(f"holds two tensors named {tensor.name!r:.80}")
        seen.add(tensor.name)
        yield tensor.name, _values(tensor)


def _values(tensor: "TensorProto") -> NDArray[np.float32]:
    """Values of a float32 tensor that are in the file as its raw bytes, as our exporter writes them."""
    from onnx import TensorProto  # noqa: PLC0415  takes a while to load

    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise ValueError(f"the values of {tensor.name!r:.80} are in another file, which no card vouches for")
    if tensor.data_type != TensorProto.FLOAT:
        raise ValueError(f"{tensor.name!r:.80} is not of 32-bit floats")
    shape = tuple(tensor.dims)
    n_values = 1
    for size in shape:
        n_values *= size
    if min(shape, default=0) < 0 or len(tensor.raw_data) != 4 * n_values:
        raise ValueError(f"{tensor.name!r:.80} has {len(tensor.raw_data)} bytes, which do not fill its shape {shape}")
    return np.frombuffer(tensor.raw_data, "<f4").reshape(shape)


def _check_whole(model: "ModelProto") -> None:
    """Refuse the parts of a model that our exporter never writes."""
    parts = {
        "functions": model.functions,
        "training": model.training_info,
        "sparse tensors": model.graph.sparse_initializer,
        "quantised tensors": model.graph.quantization_annotation,
    }
    found = [name for name, part in parts.items() if part]
    found += [
        f"operators of {opset.domain!r:.80}" for opset in model.opset_import if opset.domain not in ("", "ai.onnx")
    ]
    if found:
        raise ValueError(f"holds {' and '.join(found)}, which he2her2 never writes")


def _check_layers(graph: "GraphProto", layers: tuple[Layer, ...], network: str) -> None:
    """Refuse a graph that is not of these layers: a chain, with sums of the chain and an earlier output."""
    if len(graph.node) != len(layers):
        raise ValueError(f"has {len(graph.node)} nodes where {network} has {len(layers)}")
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    wanted = {name: shape for layer in layers for name, shape in layer.tensors.items()}
    for name, shape in wanted.items():
        if shapes.get(name, shape) != shape:
            raise ValueError(f"{name} is {shapes[name]} where the {network} of its card has {shape}")
    outputs = ["input"]
    for k, (node, layer) in enumerate(zip(graph.node, layers, strict=True), start=1):
        earlier = [] if layer.added is None else [outputs[layer.added + 1]]
        inputs = [outputs[-1], *earlier, *layer.tensors]
        if (node.domain, node.op_type) not in (("", layer.operator), ("ai.onnx", layer.operator)):
            raise ValueError(f"node {k} is {node.op_type!r:.80} where {network} has {layer.operator}")
        if list(node.input) != inputs or len(node.output) != 1:
            raise ValueError(f"node {k} ({layer.operator}) is not of {', '.join(inputs)}, as in a {network}")
        attributes = _attributes(node)
        expected = {**_DEFAULTS.get(layer.operator, {}), **layer.attributes}
        if attributes != expected:
            names = sorted(name for name in attributes | expected if attributes.get(name) != expected.get(name))
            raise ValueError(f"node {k} ({layer.operator}) has another {' and '.join(names):.80} than a {network}")
        outputs.append(node.output[0])
    if [value.name for value in graph.input] != ["input"] or [value.name for value in graph.output] != outputs[-1:]:
        raise ValueError("has other inputs or outputs than its layers")


def _attributes(node: "NodeProto") -> dict[str, Any]:
    from onnx import AttributeProto, helper  # noqa: PLC0415  takes a while to load

    plain = (AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.STRING)
    found: dict[str, Any] = dict(_DEFAULTS.get(node.op_type, {}))
    for attribute in node.attribute:
        value: Any = helper.get_attribute_value(attribute) if attribute.type in plain else None
        found[attribute.name] = list(value) if attribute.type == AttributeProto.INTS else value
    return found


def _check_plain(graph: "GraphProto") -> None:
    """Refuse loops, branches and constants that hold weights."""
    from onnx import AttributeProto  # noqa: PLC0415  takes a while to load

    hollow = (AttributeProto.FLOAT, AttributeProto.INT, AttributeProto.STRING, AttributeProto.TENSOR)
    for node in graph.node:
        if node.domain not in ("", "ai.onnx") or node.op_type not in _PLAIN_OPERATORS:
            raise ValueError(f"has a node {node.op_type!r:.80}, which no network of he2her2 needs")
        for attribute in node.attribute:
            if attribute.type not in (*hollow, AttributeProto.INTS, AttributeProto.FLOATS):
                raise ValueError(f"has a node {node.op_type} with {attribute.name!r:.80}, which he2her2 never writes")
            if attribute.type == AttributeProto.TENSOR:
                _check_constant(attribute.t)
            if max(len(attribute.ints), len(attribute.floats)) > _LARGEST_CONSTANT:
                raise ValueError(f"has a constant of more than {_LARGEST_CONSTANT} values, which no safetensors hold")
            if np.isnan([attribute.f, *attribute.floats]).any():
                raise ValueError(f"has a node {node.op_type} with a value that is no number")


def _check_constant(tensor: "TensorProto") -> None:
    """Refuse a constant of another file, of many values, or with nan; -inf is what masks a softmax."""
    from onnx import TensorProto, numpy_helper  # noqa: PLC0415  takes a while to load

    if tensor.data_location != TensorProto.DEFAULT or tensor.external_data:
        raise ValueError("the values of a constant are in another file, which no card vouches for")
    if min(tensor.dims, default=0) < 0 or any(size > _LARGEST_CONSTANT for size in tensor.dims) or len(tensor.dims) > 4:
        raise ValueError(f"has a constant of more than {_LARGEST_CONSTANT} values, which no safetensors hold")
    values = numpy_helper.to_array(tensor)
    if values.size > _LARGEST_CONSTANT:
        raise ValueError(f"has a constant of more than {_LARGEST_CONSTANT} values, which no safetensors hold")
    if values.dtype.kind == "f" and np.isnan(values).any():
        raise ValueError("has a constant that is no number")
