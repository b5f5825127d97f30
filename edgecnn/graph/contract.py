"""Check the numerics contract: what must hold before an oracle runs an integer graph or a converter writes it.

Source: LiteRT 8-bit quantization specification, "Int8 quantized operator specifications"; for int16 activations the
"16x8" mode of the same kernels (int16 activations, int8 weights, int64 biases), whose zero points are 0.
"""

from __future__ import annotations

import numpy as np

from edgecnn.errors import InputError
from edgecnn.graph.ir import Graph, Node, QParams, Tensor

FIXED = QParams(scale=np.array([1 / 256], np.float32), zero_point=np.array([-128]), dtype="int8")
FIXED_INT16 = QParams(scale=np.array([1 / 32768], np.float32), zero_point=np.array([0]), dtype="int16")
FIXED_OF = {"int8": FIXED, "int16": FIXED_INT16}  # by type of the activations
BIAS_OF = {"int8": "int32", "int16": "int64"}
WEIGHT_LIMIT = 127
BIAS_TOLERANCE = 1e-6  # relative; float32 products differ by the order of rounding, nothing more


def check_integers(graph: Graph) -> None:
    """Check that every tensor of the graph is quantized as the contract says.

    - Activations: int8 or int16, per tensor, of one type at a node (but for ``requantize``); int16 has zero point 0. An
      op of scale ``same`` keeps its inputs' parameters, ``fixed`` has those of ``FIXED_OF``.
    - Weights: int8, symmetric, in [-127, 127], one scale per output channel or one in all. Biases: int32 (int64 beside
      int16 activations) at ``s_in * s_w[c]``, zero point 0.
    - Other constants: as activations.

    Raises:
        InputError: the first thing that does not hold; the message names the node.
    """
    for tensor in graph.activations():
        _per_tensor(tensor, f"activation {tensor.name!r}")
    for node in graph.nodes:
        _check_node(graph, node)


def _check_node(graph: Graph, node: Node) -> None:
    where = str(node)
    inputs = [graph.tensors[name] for name in node.inputs]
    made = graph.tensors[node.output].qparams
    if node.weighted:
        _check_weights(where, *inputs)
        inputs = inputs[:1]
    if node.op == "requantize" and made.dtype != node.attrs["to"]:
        raise InputError(f"{where} makes {made.dtype}; it must make {node.attrs['to']}")
    for tensor in inputs:
        _per_tensor(tensor, f"{where}: input {tensor.name!r}")
        if node.op != "requantize" and tensor.qparams.dtype != made.dtype:
            raise InputError(
                f"{where} reads {tensor.name!r} in {tensor.qparams.dtype} and makes {made.dtype}; "
                "put a requantize between"
            )
    scale = node.spec.scale
    if scale == "same":
        for tensor in inputs:
            if not made.same_as(tensor.quant):
                raise InputError(
                    f"{where} only moves or compares integers, but its output is on another grid than its input "
                    f"{tensor.name!r}; quantize both with the same scale and zero point"
                )
    fixed = FIXED_OF[made.dtype]
    if scale == "fixed" and not made.same_as(fixed):
        raise InputError(
            f"{where}: its output must have scale 1/{1 / fixed.scale[0]:.0f} and zero point {fixed.zero_point[0]}"
        )


def _per_tensor(tensor: Tensor, what: str) -> None:
    if tensor.quant is None:
        raise InputError(f"{what} stays float; in an integer graph every tensor is quantized")
    if tensor.quant.dtype not in FIXED_OF or tensor.quant.axis is not None:
        axis = "per tensor" if tensor.quant.axis is None else f"per channel of axis {tensor.quant.axis}"
        raise InputError(f"{what} is {tensor.quant.dtype} {axis}; it must be int8 or int16 per tensor")
    if tensor.quant.dtype == "int16" and tensor.quant.zero_point[0] != 0:
        raise InputError(f"{what} is int16 with zero point {tensor.quant.zero_point[0]}; it must be 0")


def _check_weights(where: str, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    quant = weight.quant
    if weight.integers is None or quant is None or quant.dtype != "int8" or quant.axis not in (0, None):
        raise InputError(
            f"{where}: weight {weight.name!r} must be a constant in int8, one scale per output channel or one"
        )
    if np.any(quant.zero_point) or weight.integers.min() < -WEIGHT_LIMIT:
        raise InputError(f"{where}: weight {weight.name!r} must be symmetric: zero point 0, integers in [-127, 127]")
    if x.quant is None:
        raise InputError(f"{where}: input {x.name!r} stays float")
    wanted, own = BIAS_OF[x.quant.dtype], bias.quant
    if bias.integers is None or own is None or own.dtype != wanted or own.axis != quant.axis:
        raise InputError(
            f"{where}: bias {bias.name!r} must be a constant in {wanted} with as many scales as the weight"
        )
    product = x.quant.scale.astype(np.float64) * quant.scale
    if np.any(own.zero_point) or not np.allclose(own.scale, product, rtol=BIAS_TOLERANCE, atol=0):
        raise InputError(f"{where}: bias {bias.name!r} must have zero point 0 and scale s_in * s_w")
