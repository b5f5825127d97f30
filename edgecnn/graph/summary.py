"""Describe a graph layer by layer, for ``edgecnn inspect``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgecnn.graph.ir import Constant, Graph, Node, Quantized, QuantizedConstant


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One op of a graph or of an artifact."""

    op: str
    name: str  # of the tensor it makes
    output: tuple[int, ...]  # shape, NHWC or NC in a graph
    dtype: str  # of the output
    scale: float | None  # of the output; ``None`` where it is float
    zero_point: int | None
    weight: str = ""  # dtype and shape of the weights
    weight_scales: tuple[float, float, int] | None = None  # (smallest, largest, count)
    weight_bytes: int = 0  # of all its constants, as they are stored
    macs: int = 0  # multiply-accumulates for one image
    details: str = ""  # attributes that are not the default


def layers(graph: Graph) -> list[Layer]:
    """Describe every node, in order."""
    return [_layer(graph, node) for node in graph]


def _layer(graph: Graph, node: Node) -> Layer:
    made = graph.tensors[node.output]
    constants = [t for i in node.inputs if isinstance(t := graph.tensors[i], Constant)]
    stored = [t.integers if isinstance(t, QuantizedConstant) else t.value for t in constants]
    weight = constants[0] if constants else None
    quant = made.quant if isinstance(made, Quantized) else None
    of_weight = weight.quant if isinstance(weight, Quantized) else None
    return Layer(
        op=node.op,
        name=node.output,
        output=made.shape,
        dtype=quant.dtype if quant else "float32",
        scale=float(quant.scale[0]) if quant else None,
        zero_point=int(quant.zero_point[0]) if quant else None,
        weight=f"{of_weight.dtype if of_weight else 'float32'} {_x(weight.shape)}" if weight else "",
        weight_scales=scale_span(of_weight.scale if of_weight else None),
        weight_bytes=sum(a.nbytes for a in stored),
        macs=graph.macs(node),
        details=_details(node),
    )


def scale_span(scales: NDArray[Any] | None) -> tuple[float, float, int] | None:
    """Return (smallest scale, largest scale, how many)."""
    return None if scales is None else (float(scales.min()), float(scales.max()), scales.size)


def _details(node: Node) -> str:
    changed = {k: v for k, v in node.attrs.items() if v != node.spec.attrs[k]}
    return " ".join(f"{k}={_x(v) if isinstance(v, tuple) else v}" for k, v in changed.items())


def _x(values: tuple[int, ...]) -> str:
    return "x".join(map(str, values))
