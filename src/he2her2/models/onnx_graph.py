"""The ONNX file of a network, built from its spec and its weights; prediction runs this, training never sees it.

Written by hand with `onnx.helper`, so that no torch is needed and the graph stays readable: one node a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from he2her2.models.zoo import NORM_EPSILON, CnnSpec, Conv, Spec, dense_part, dense_widths, input_shape, tensor_shapes

OPSET = 18
IR_VERSION = 8  # of the same age as the opset, so that every supported onnxruntime reads it
INPUT = "input"
FEATURES = "features"
OUTPUT = "logits"

Weights = Mapping[str, NDArray[np.float32]]


@dataclass
class _Graph:
    """Nodes so far; `head` is the name of the last value."""

    head: str = INPUT
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def add(self, operator: str, *tensors: str, **attributes: int | list[int]) -> None:
        """Apply an operator to the last value and to named tensors."""
        result = f"{operator.lower()}_{len(self.nodes)}"
        node = helper.make_node(operator, [self.head, *tensors], [result])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)
        self.head = result


def build_onnx(spec: Spec, weights: Weights, *, embed: bool = True) -> onnx.ModelProto:
    """Build the ONNX model of a network.

    Args:
        spec: The network.
        weights: Every tensor of `tensor_shapes(spec)`.
        embed: Put the numbers into the model. Else they are declared only, and `graph_tensors` must be handed to the
            session: that spares two copies of half a gigabyte for the largest network.

    Returns:
        A model for any batch size: `input` (n, c, s, s) float32, or (n, m) scores for an aggregator, to `logits`
        (n, k).

    Raises:
        ValueError: The weights are not those of the spec, or the spec is a baseline, which has none.
    """
    tensors = graph_tensors(spec, weights)
    graph = _Graph()
    if isinstance(spec, CnnSpec):
        for i, conv in enumerate(spec.convs):
            _add_stage(graph, i, conv)
        if spec.global_pool:
            graph.add("GlobalAveragePool")
        graph.add("Flatten", axis=1)
    _add_dense(graph, spec)
    graph.nodes[-1].output[0] = OUTPUT
    entry = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", *input_shape(spec)])
    result = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", len(spec.classes)])
    protos = [_embedded(*item) if embed else _declared(*item) for item in tensors.items()]
    return _model(spec.name, graph.nodes, (entry, result), protos)


def _model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    ends: tuple[onnx.ValueInfoProto, onnx.ValueInfoProto],
    tensors: Sequence[TensorProto],
) -> onnx.ModelProto:
    return helper.make_model(
        helper.make_graph(nodes, name, ends[:1], ends[1:], tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="he2her2",
    )


def split(model: onnx.ModelProto) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Take a CNN apart: its convolutions, for pictures of any size, and the rest, for the features of tiles.

    Args:
        model: By `build_onnx`, its numbers in it.

    Returns:
        From `input` (n, c, h, w) to `features` (n, d, h', w'), and from the `features` of tiles to `logits` (n, k).
    """
    graph = onnx.GraphProto()
    graph.CopyFrom(model.graph)
    nodes = list(graph.node)
    seam = next(i for i, node in enumerate(nodes) if node.op_type in ("GlobalAveragePool", "Flatten"))
    nodes[seam - 1].output[0] = nodes[seam].input[0] = FEATURES
    picture, features = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", f"{name}_c", f"{name}_h", f"{name}_w"])
        for name in (INPUT, FEATURES)
    )
    convolutions, rest = nodes[:seam], nodes[seam:]
    return (
        _model(f"{graph.name}-convolutions", convolutions, (picture, features), _used(convolutions, graph)),
        _model(f"{graph.name}-rest", rest, (features, graph.output[0]), _used(rest, graph)),
    )


def _used(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> list[TensorProto]:
    names = {name for node in nodes for name in node.input}
    return [tensor for tensor in graph.initializer if tensor.name in names]


def _add_stage(graph: _Graph, i: int, conv: Conv) -> None:
    """Convolution, ReLU (which ONNX Runtime fuses into it), pooling."""
    names = (f"conv_layers.{i}.weight", f"conv_layers.{i}.bias")
    graph.add("Conv", *names, kernel_shape=[conv.kernel] * 2, pads=[conv.padding] * 4, strides=[conv.stride] * 2)
    graph.add("Relu")
    if conv.pool == "max":
        graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    elif conv.pool == "l2":
        graph.add("LpPool", kernel_shape=[2, 2], strides=[2, 2], p=2)


def _add_dense(graph: _Graph, spec: Spec) -> None:
    part, n_layers = dense_part(spec), len(dense_widths(spec)) - 1
    for i in range(n_layers):
        graph.add("Gemm", f"{part}.{i}.weight", f"{part}.{i}.bias", transB=1)
        if i < n_layers - 1:
            graph.add("Relu")


def graph_tensors(spec: Spec, weights: Weights) -> dict[str, NDArray[np.float32]]:
    """The numbers of the graph: the weights, with every batch norm folded into its convolution.

    Raises:
        ValueError: The weights are not those of the spec, or the spec is a baseline, which has none.
    """
    if {name: tensor.shape for name, tensor in weights.items()} != tensor_shapes(spec) or not weights:
        raise ValueError(f"these are not the weights of {spec.name}")
    tensors = {name: tensor for name, tensor in weights.items() if not name.startswith("norm_layers")}
    for i, conv in enumerate(spec.convs if isinstance(spec, CnnSpec) else ()):
        if conv.norm:
            tensors |= _folded(i, weights)
    return tensors


def _folded(i: int, weights: Weights) -> dict[str, NDArray[np.float32]]:
    """Kernel and bias of stage `i` that do what convolution and batch norm (in evaluation) do one after the other."""
    gain, offset, mean, variance = (
        weights[f"norm_layers.{i}.{name}"].astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + NORM_EPSILON)
    kernel = weights[f"conv_layers.{i}.weight"] * scale[:, None, None, None]
    bias = (weights[f"conv_layers.{i}.bias"] - mean) * scale + offset
    return {
        f"conv_layers.{i}.weight": kernel.astype(np.float32),
        f"conv_layers.{i}.bias": bias.astype(np.float32),
    }


def _declared(name: str, tensor: NDArray[np.float32]) -> TensorProto:
    """Name and shape of a tensor whose numbers come from elsewhere."""
    proto = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=tensor.shape)
    proto.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "memory"), ("offset", "0"), ("length", str(tensor.nbytes))):
        proto.external_data.add(key=key, value=value)
    return proto


def _embedded(name: str, tensor: NDArray[np.float32]) -> TensorProto:
    little_endian = np.ascontiguousarray(tensor, "<f4")
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=tensor.shape, raw_data=little_endian.tobytes())
