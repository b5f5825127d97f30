"""Check the numerics contract: what must hold before an oracle runs an integer graph or a converter writes it.

Source: LiteRT 8-bit quantization specification, "Int8 quantized operator specifications"; for int16 activations the
"16x8" mode of the same kernels (int16 activations, int8 weights, int64 biases), whose zero points are 0.
"""

from __future__ import annotations

import numpy as np

from edgecnn.errors import InputError
from edgecnn.graph.ir import Graph, Node, QParams, Quantized, QuantizedConstant, Tensor
from edgecnn.graph.ops import need

FIXED = QParams(scale=np.array([1 / 256], np.float32), zero_point=np.array([-128]), dtype="int8")
FIXED_INT16 = QParams(scale=np.array([1 / 32768], np.float32), zero_point=np.array([0]), dtype="int16")
INDEX = QParams(scale=np.array([1], np.float32), zero_point=np.array([-128]), dtype="int8")
"""Parameters of an argmax: 256 places."""
FIXED_OF = {"int8": FIXED, "int16": FIXED_INT16}  # by type of the activations
TANH = QParams(scale=np.array([1 / 128], np.float32), zero_point=np.array([0]), dtype="int8")
"""Parameters of a tanh that every kernel of it takes; with others it is a table."""
CHOSEN = (FIXED, FIXED_INT16, TANH, INDEX)  # parameters that no step changes
BIAS_OF = {"int8": "int32", "int16": "int64"}
WEIGHT_LIMIT = 127
BIAS_TOLERANCE = 1e-6  # relative; float32 products differ by the order of rounding, nothing more


def check_integers(graph: Graph) -> None:
    """Check that every tensor of the graph is quantized as the contract says.

    - Activations: int8 or int16, per tensor, of one type at a node (but for ``requantize``); int16 has zero point 0. An
      op of scale ``same`` keeps its inputs' parameters, ``fixed`` has those of ``FIXED_OF``, ``index`` has ``INDEX``.
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
    inputs = [graph.tensors[name] for name in node.inputs]
    made = graph.quant(node.output)
    if node.weighted:
        _check_weights(node, *inputs)
        inputs = inputs[:1]
    wanted = node.attrs.get("to", made.dtype)
    need(made.dtype == wanted, f"{node} makes {made.dtype}; it must make {wanted}")
    for tensor in inputs:
        quant = _per_tensor(tensor, f"{node}: input {tensor.name!r}")
        types = f"{node} reads {tensor.name!r} in {quant.dtype} and makes {made.dtype}"
        need(node.op == "requantize" or quant.dtype == made.dtype, f"{types}; put a requantize between")
        grids = f"its output is on another grid than its input {tensor.name!r}"
        remedy = "quantize both with the same scale and zero point"
        same = node.spec.scale != "same" or made.same_as(quant)
        need(same, f"{node} only moves or compares integers, but {grids}; {remedy}")
    fixed = FIXED_OF[made.dtype]
    grid = f"scale 1/{1 / fixed.scale[0]:.0f} and zero point {fixed.zero_point[0]}"
    need(node.spec.scale != "fixed" or made.same_as(fixed), f"{node}: its output must have {grid}")
    index = "its output must have scale 1 and zero point -128 in int8"
    need(node.spec.scale != "index" or made.same_as(INDEX), f"{node}: {index}")


def _per_tensor(tensor: Tensor, what: str) -> QParams:
    if not isinstance(tensor, Quantized):
        raise InputError(f"{what} stays float; in an integer graph every tensor is quantized")
    quant = tensor.quant
    axis = "per tensor" if quant.axis is None else f"per channel of axis {quant.axis}"
    plain = quant.dtype in FIXED_OF and quant.axis is None
    need(plain, f"{what} is {quant.dtype} {axis}; it must be int8 or int16 per tensor")
    zero = quant.zero_point[0]
    need(quant.dtype != "int16" or zero == 0, f"{what} is int16 with zero point {zero}; it must be 0")
    return quant


def _check_weights(node: Node, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    name = f"{node}: weight {weight.name!r}"
    if not isinstance(weight, QuantizedConstant) or weight.quant.dtype != "int8" or weight.quant.axis not in (0, None):
        raise InputError(f"{name} must be a constant in int8, one scale per output channel or one")
    quant = weight.quant
    symmetric = not np.any(quant.zero_point) and weight.integers.min() >= -WEIGHT_LIMIT
    need(symmetric, f"{name} must be symmetric: zero point 0, integers in [-127, 127]")
    read = _per_tensor(x, f"{node}: input {x.name!r}")
    wanted, name = BIAS_OF[read.dtype], f"{node}: bias {bias.name!r}"
    if not isinstance(bias, QuantizedConstant) or bias.quant.dtype != wanted or bias.quant.axis != quant.axis:
        raise InputError(f"{name} must be a constant in {wanted} with as many scales as the weight")
    own, product = bias.quant, read.scale.astype(np.float64) * quant.scale
    scaled = not np.any(own.zero_point) and np.allclose(own.scale, product, rtol=BIAS_TOLERANCE, atol=0)
    need(scaled, f"{name} must have zero point 0 and scale s_in * s_w")
