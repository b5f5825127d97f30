"""Layouts that several formats share: a graph's NHWC shapes, axes and weights in NCHW, and int8 carried as uint8."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecnn.artifact import Port, layout_of
from edgecnn.graph.ir import Graph, Node, QParams, Quantized, Tensor

OHWI_TO_OIHW = (0, 3, 1, 2)
OIHW_TO_OHWI = (0, 2, 3, 1)
NHWC_TO_NCHW, NCHW_TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
UINT8_OFFSET = 128  # uint8 carries an int8 tensor: integers and zero point are higher by this, the scale is the same


def nchw(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape with channels first; shapes of other than four dimensions are as they are."""
    return (shape[0], shape[3], shape[1], shape[2]) if len(shape) == 4 else shape


def broadcast(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """Return the shape, channels first, with ones in front up to a rank."""
    return nchw((1,) * (rank - len(shape)) + shape)


def concat_axis(graph: Graph, node: Node) -> int:
    """Return the axis of a concat, channels first."""
    axis: Any = node.attrs["axis"]
    return placed_axis(int(axis), len(graph.tensors[node.output].shape))


def placed_axis(axis: int, rank: int) -> int:
    """Return where an axis is with channels first."""
    return NCHW_TO_NHWC[axis] if rank == 4 else axis


def placed_order(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return the permutation, of tensors with channels first, that a permutation of tensors with channels last is."""
    return tuple(NCHW_TO_NHWC[order[k]] for k in NHWC_TO_NCHW) if len(order) == 4 else order


def order_matters(shape: tuple[int, ...]) -> bool:
    """Whether the elements of a shape have another order with channels first; then a reshape needs them last."""
    return len(shape) == 4 and shape[1] * shape[2] > 1 and shape[3] > 1


def is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether a conv2d has one group per input channel (and more than one channel)."""
    return bool(node.attrs["groups"] == graph.tensors[node.inputs[0]].shape[3] > 1)


def kernel_of(graph: Graph, node: Node) -> tuple[int, int]:
    """Return the height and width of its window."""
    own: Any = node.attrs.get("kernel", (1, 1))
    height, width = graph.tensors[node.inputs[1]].shape[1:3] if node.op == "conv2d" else own
    return height, width


def needed_activation(graph: Graph, node: Node) -> str:
    """Return ``none`` where the output's integers already end where its activation does; else the activation."""
    wanted: Any = node.attrs.get("activation", "none")
    made = graph.tensors[node.output]
    if wanted == "none" or not isinstance(made, Quantized):
        return str(wanted)
    low, high = grid_ends(made.quant)
    if low < 0:
        return str(wanted)
    return "none" if wanted == "relu" or high <= 6 + float(made.quant.scale[0]) / 2 else "relu6"


def grid_ends(quant: QParams) -> tuple[float, float]:
    """Return the real values of the smallest and the largest integer, per tensor."""
    scale, zero = float(quant.scale[0]), int(quant.zero_point[0])
    low, high = quant.limits
    return (low - zero) * scale, (high - zero) * scale


def ports(graph: Graph, layout: str, dtype: str) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return how a file takes a graph's inputs, and how it gives its outputs; see ``port``."""
    inputs, outputs = (
        tuple(port(graph.tensors[name], layout, dtype) for name in names) for names in (graph.inputs, graph.outputs)
    )
    return inputs, outputs


def port(tensor: Tensor, layout: str, dtype: str) -> Port:
    """Return how a file takes or gives a tensor: in ``NHWC`` or ``NCHW``, as float32 or as its integers."""
    shape = nchw(tensor.shape) if layout == "NCHW" else tensor.shape
    scale = zero = None
    if dtype != "float32":
        quant, offset = Quantized.of(tensor).quant, UINT8_OFFSET if dtype == "uint8" else 0
        scale, zero = float(quant.scale[0]), int(quant.zero_point[0]) + offset
    placed = layout_of(shape, layout)
    return Port(name=tensor.name, shape=shape, layout=placed, dtype=dtype, scale=scale, zero_point=zero)


def pads(attrs: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the padding as (begins, ends), each (height, width)."""
    top, bottom, left, right = attrs["padding"]
    return [top, left], [bottom, right]
