"""The numerics contract, checked: what a full int8 graph must hold before an oracle runs it or a converter writes it.

Source: LiteRT 8-bit quantization specification, "Int8 quantized operator specifications".
"""

from __future__ import annotations

import numpy as np

from edgecnn.errors import InputError
from edgecnn.graph.ir import Graph, Node, QParams, Tensor
from edgecnn.graph.ops import OPS

FIXED = QParams(scale=np.array([1 / 256], np.float32), zero_point=np.array([-128]), dtype="int8")
WEIGHT_LIMIT = 127
BIAS_TOLERANCE = 1e-6  # relative; float32 products differ by the order of rounding, nothing more
WEIGHTED = ("conv2d", "fully_connected")


def check_int8(graph: Graph) -> None:
    """Nothing, where every tensor of the graph is quantized as the contract says.

    - Activations: int8, per tensor; an op of scale ``same`` keeps its inputs' parameters, ``fixed`` has 1/256 and -128.
    - Weights: int8, symmetric, in [-127, 127], one scale per output channel or one in all. Biases: int32 at
      ``s_in * s_w[c]``, zero point 0.
    - Other constants: as activations.

    Raises:
        InputError: the first thing that does not hold; the message names the node.
    """
    for tensor in graph.activations():
        _per_tensor(tensor, f"activation {tensor.name!r}")
    for node in graph.nodes:
        _check_node(graph, node)


def _check_node(graph: Graph, node: Node) -> None:
    where = f"{node.op} {node.output!r} ({node.source or 'no source'})"
    inputs = [graph.tensors[name] for name in node.inputs]
    output = graph.tensors[node.output]
    assert output.quant is not None
    if node.op in WEIGHTED:
        _check_weights(where, *inputs)
        inputs = inputs[:1]
    for tensor in inputs:
        _per_tensor(tensor, f"{where}: input {tensor.name!r}")
    scale = OPS[node.op].scale
    if scale == "same":
        for tensor in inputs:
            if not output.quant.same_as(tensor.quant):
                raise InputError(
                    f"{where} only moves or compares integers, but its output is on another grid than its input "
                    f"{tensor.name!r}; quantize both with the same scale and zero point"
                )
    if scale == "fixed" and not output.quant.same_as(FIXED):
        raise InputError(f"{where}: its output must have scale 1/256 and zero point -128")


def _per_tensor(tensor: Tensor, what: str) -> None:
    if tensor.quant is None:
        raise InputError(f"{what} stays float; in a full int8 graph every tensor is quantized")
    if tensor.quant.dtype != "int8" or tensor.quant.axis is not None:
        axis = "per tensor" if tensor.quant.axis is None else f"per channel of axis {tensor.quant.axis}"
        raise InputError(f"{what} is {tensor.quant.dtype} {axis}; it must be int8 per tensor")


def _check_weights(where: str, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    if (
        weight.integers is None
        or weight.quant is None
        or weight.quant.dtype != "int8"
        or weight.quant.axis not in (0, None)
    ):
        raise InputError(
            f"{where}: weight {weight.name!r} must be a constant in int8, one scale per output channel or one"
        )
    if np.any(weight.quant.zero_point) or weight.integers.min() < -WEIGHT_LIMIT:
        raise InputError(f"{where}: weight {weight.name!r} must be symmetric: zero point 0, integers in [-127, 127]")
    if (
        bias.integers is None
        or bias.quant is None
        or bias.quant.dtype != "int32"
        or bias.quant.axis != weight.quant.axis
    ):
        raise InputError(f"{where}: bias {bias.name!r} must be a constant in int32 with as many scales as the weight")
    assert x.quant is not None
    product = x.quant.scale.astype(np.float64) * weight.quant.scale
    if np.any(bias.quant.zero_point) or not np.allclose(bias.quant.scale, product, rtol=BIAS_TOLERANCE, atol=0):
        raise InputError(f"{where}: bias {bias.name!r} must have zero point 0 and scale s_in * s_w")
