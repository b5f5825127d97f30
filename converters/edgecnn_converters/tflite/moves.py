"""Rows of the ops that move values, or take the nearest of them. They are alike in float and in integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgecnn.graph.ir import Graph, Node, Quantized
from edgecnn_converters.names import part
from edgecnn_converters.tflite.emitter import Emitter

SLICED_RANK = 5  # the most dimensions that LiteRT's kernels of slices take


def _concat(e: Emitter, node: Node) -> None:
    options = e.schema.ConcatenationOptionsT(axis=node.attrs["axis"])
    e.operator("CONCATENATION", None, [e.operand(i) for i in node.inputs], e.activation(node.output), options)


def _pad(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    top, bottom, left, right = a["padding"]
    amounts = e.parameters(part(node.output, "padding"), [[0, 0], [top, bottom], [left, right], a["channels"]])
    inputs = [e.operand(node.inputs[0]), amounts]
    e.operator("PAD", None, inputs, e.activation(node.output), e.schema.PadOptionsT())


def _reshape(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    shape = np.array([-1, *a["shape"][1:]], np.int32)  # any batch
    inputs = [e.operand(node.inputs[0]), e.parameters(part(node.output, "shape"), shape)]
    e.operator("RESHAPE", None, inputs, e.activation(node.output), e.schema.ReshapeOptionsT(newShape=shape))


def _transpose(e: Emitter, node: Node) -> None:
    rank = len(e.graph.tensors[node.output].shape)
    inputs = [e.operand(node.inputs[0]), e.parameters(part(node.output, "perm"), node.attrs["perm"])]
    variant = {5: "rank 5", 6: "rank 6"}.get(rank)
    e.operator("TRANSPOSE", variant, inputs, e.activation(node.output), e.schema.TransposeOptionsT())


def _slice(e: Emitter, node: Node) -> None:
    """Write STRIDED_SLICE: of the whole batch, however large, where XNNPACK takes SLICE of a known one alone."""
    a: Mapping[str, Any] = node.attrs
    shape = e.graph.tensors[node.output].shape
    places = {"begin": [0, *a["begin"]], "end": [shape[0], *a["end"]], "step": [1, *a["step"]]}
    inputs = [e.operand(node.inputs[0]), *(e.parameters(part(node.output, k), v) for k, v in places.items())]
    options = e.schema.StridedSliceOptionsT(beginMask=1, endMask=1)  # of the batch
    variant = "rank 5" if len(shape) == SLICED_RANK else None
    e.operator("STRIDED_SLICE", variant, inputs, e.activation(node.output), options)


def _gather(e: Emitter, node: Node) -> None:
    indices = e.parameters(part(node.output, "indices"), node.attrs["indices"])
    options = e.schema.GatherOptionsT(axis=node.attrs["axis"])
    e.operator("GATHER", None, [e.operand(node.inputs[0]), indices], e.activation(node.output), options)


def _resize(e: Emitter, node: Node) -> None:
    a: Mapping[str, Any] = node.attrs
    inputs = [e.operand(node.inputs[0]), e.parameters(part(node.output, "size"), a["size"])]
    if a["mode"] == "nearest":
        builtin, options = "RESIZE_NEAREST_NEIGHBOR", e.schema.ResizeNearestNeighborOptionsT()
        newer = a["align_corners"] or a["half_pixel"]
    else:
        builtin, options = "RESIZE_BILINEAR", e.schema.ResizeBilinearOptionsT()
        newer = a["half_pixel"]
    options.alignCorners, options.halfPixelCenters = a["align_corners"], a["half_pixel"]
    variant = "placed" if newer and not e.graph.is_wide(node.output) else None
    e.operator(builtin, variant, inputs, e.activation(node.output), options)


def _blocks(builtin: str) -> Callable[[Emitter, Node], None]:
    def row(e: Emitter, node: Node) -> None:
        if e.graph.is_wide(node.output):
            _blocks_by_transpose(e, node)
            return
        kind = "DepthToSpaceOptionsT" if builtin == "DEPTH_TO_SPACE" else "SpaceToDepthOptionsT"
        options = getattr(e.schema, kind)(blockSize=node.attrs["block"])
        e.operator(builtin, None, [e.operand(node.inputs[0])], e.activation(node.output), options)

    return row


def _blocks_by_transpose(e: Emitter, node: Node) -> None:
    """Write blocks of 16-bit activations, for which LiteRT has no kernel: dimensions 2 and 3 of six are swapped."""
    block: Any = node.attrs["block"]
    made = Quantized.of(e.graph.tensors[node.output])
    n, height, width, channels = e.graph.tensors[node.inputs[0]].shape
    if node.op == "depth_to_space":
        split = (n, height, width, block, block, channels // block**2)
    else:
        split = (n, height // block, block, width // block, block, channels)
    order = (0, 1, 3, 2, 4, 5)
    shapes = (split, tuple(split[k] for k in order))
    before, after = (
        e.model.tensor(part(node.output, name), shape, made.quant.dtype, made.quant)
        for name, shape in zip(("split", "swapped"), shapes, strict=True)
    )
    _shaped(e, node, e.operand(node.inputs[0]), before, split)
    inputs = [before, e.parameters(part(node.output, "perm"), order)]
    e.operator("TRANSPOSE", "rank 6", inputs, after, e.schema.TransposeOptionsT())
    _shaped(e, node, after, e.activation(node.output), made.shape)


def _shaped(e: Emitter, node: Node, source: int, made: int, shape: tuple[int, ...]) -> None:
    wanted = np.array([-1, *shape[1:]], np.int32)  # any batch
    inputs = [source, e.parameters(part(node.output, f"shape{len(shape)}"), wanted)]
    e.operator("RESHAPE", None, inputs, made, e.schema.ReshapeOptionsT(newShape=wanted))


def slice_fits(graph: Graph, node: Node) -> str | None:
    """Return why LiteRT has no kernel for a slice; ``None`` where it has one."""
    rank = len(graph.tensors[node.output].shape)
    return f"a slice of {rank} dimensions; LiteRT takes up to {SLICED_RANK}" if rank > SLICED_RANK else None


LOWERINGS: Mapping[str, Callable[[Emitter, Node], None]] = {
    "concat": _concat,
    "pad": _pad,
    "reshape": _reshape,
    "transpose": _transpose,
    "slice": _slice,
    "gather": _gather,
    "resize": _resize,
    "depth_to_space": _blocks("DEPTH_TO_SPACE"),
    "space_to_depth": _blocks("SPACE_TO_DEPTH"),
}
