"""The ONNX file of a network, built from its spec and its weights; prediction runs this, training never sees it.

Written by hand with `onnx.helper`, so that no torch is needed and the graph stays readable: one node a line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from he2her2.models.zoo import AggregatorSpec, CnnSpec, Conv, Spec, dense_part, dense_widths, tensor_shapes

OPSET = 18
IR_VERSION = 8  # of the same age as the opset, so that every supported onnxruntime reads it
NORM_EPSILON = 1e-5
INPUT = "input"
OUTPUT = "logits"

Weights = Mapping[str, NDArray[np.float32]]


@dataclass
class _Graph:
    """Nodes and tensors so far; `head` is the name of the last value."""

    head: str = INPUT
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    tensors: list[TensorProto] = field(default_factory=list)

    def add(self, operator: str, *tensors: tuple[str, NDArray[np.float32]], **attributes: int | list[int]) -> None:
        """Apply an operator to the last value and to named tensors."""
        self.tensors += [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in tensors]
        inputs = [self.head, *(name for name, _ in tensors)]
        self.head = f"{operator.lower()}_{len(self.nodes)}"
        node = helper.make_node(operator, inputs, [self.head])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)


def build_onnx(spec: Spec, weights: Weights) -> onnx.ModelProto:
    """Build the ONNX model of a network.

    Args:
        spec: The network.
        weights: Every tensor of `tensor_shapes(spec)`.

    Returns:
        A model with any batch size: `input` (n, c, s, s) float32, or (n, m) scores for an aggregator, to `logits`
        (n, k).

    Raises:
        ValueError: The weights are not those of the spec, or the spec is a baseline, which has none.
    """
    if {name: tensor.shape for name, tensor in weights.items()} != tensor_shapes(spec) or not weights:
        raise ValueError(f"these are not the weights of {spec.name}")
    graph = _Graph()
    if isinstance(spec, CnnSpec):
        for i, conv in enumerate(spec.convs):
            _add_stage(graph, i, conv, weights)
        if spec.global_pool:
            graph.add("GlobalAveragePool")
        graph.add("Flatten", axis=1)
    _add_dense(graph, spec, weights)
    graph.nodes[-1].output[0] = OUTPUT
    return _model(graph, spec)


def _add_stage(graph: _Graph, i: int, conv: Conv, weights: Weights) -> None:
    """Convolution with batch norm folded in, ReLU (which ONNX Runtime fuses into it), pooling."""
    kernel, bias = fold_norm(i, conv, weights)
    graph.add(
        "Conv",
        (f"conv_layers.{i}.weight", kernel),
        (f"conv_layers.{i}.bias", bias),
        kernel_shape=[conv.kernel] * 2,
        pads=[conv.padding] * 4,
    )
    graph.add("Relu")
    if conv.pool == "max":
        graph.add("MaxPool", kernel_shape=[2, 2], strides=[2, 2])
    elif conv.pool == "l2":
        graph.add("LpPool", kernel_shape=[2, 2], strides=[2, 2], p=2)


def fold_norm(i: int, conv: Conv, weights: Weights) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel and bias of stage `i` that do what convolution and batch norm (in evaluation) do one after the other."""
    kernel, bias = weights[f"conv_layers.{i}.weight"], weights[f"conv_layers.{i}.bias"]
    if not conv.norm:
        return kernel, bias
    gain, offset, mean, variance = (
        weights[f"norm_layers.{i}.{name}"].astype(np.float64)
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / np.sqrt(variance + NORM_EPSILON)
    return (kernel * scale[:, None, None, None]).astype(np.float32), ((bias - mean) * scale + offset).astype(np.float32)


def _add_dense(graph: _Graph, spec: Spec, weights: Weights) -> None:
    part, n_layers = dense_part(spec), len(dense_widths(spec)) - 1
    for i in range(n_layers):
        names = (f"{part}.{i}.weight", f"{part}.{i}.bias")
        graph.add("Gemm", *((name, weights[name]) for name in names), transB=1)
        if i < n_layers - 1:
            graph.add("Relu")


def _model(graph: _Graph, spec: Spec) -> onnx.ModelProto:
    if isinstance(spec, AggregatorSpec):
        sides = [spec.n_tiles]
    else:
        sides = [spec.input.n_channels, spec.input.network_px, spec.input.network_px]
    entry = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", *sides])
    result = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", len(spec.classes)])
    return helper.make_model(
        helper.make_graph(graph.nodes, spec.name, [entry], [result], graph.tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="he2her2",
    )
