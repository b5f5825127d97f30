"""Lower convolutions so that OpenVINO's CPU plugin rounds their sums as runtimes of integers do.

The plugin of 2026.4 makes one kernel of a convolution and what follows it, and computes all that follows in float32:
the sum's scale, the bias, the zero point. Each loses up to 1e-5 of a step, and sums lie as near to halves, beyond them
(``edgecnn.graph.rounding``). Where all integers of the output lie on one side of its zero point, beyond is one
direction, and a quarter of a sum's step, added to the bias, keeps sums on that side. Where they lie on both sides, sums
are rounded to parts of a step first: those next to halves then are halves, which go away from zero. Everywhere else
weights and bias have a scale with which each sum is a whole number; the multiplier comes after the bias, and the zero
point after a rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from openvino import opset8 as ops

from edgecnn.graph.ir import Node, QParams, QuantizedConstant
from edgecnn_converters import layout
from edgecnn_converters.layout import OHWI_TO_OIHW, pads
from edgecnn_converters.names import part
from edgecnn_converters.openvino import format as facts
from edgecnn_converters.openvino.emitter import Emitter, between_zeros, in_steps, repeated, rounded

QUARTER = 0.25  # of a bias's step
LEAST = -(2.0**31)  # below every sum


def convolution(e: Emitter, node: Node) -> Any:
    """Return a convolution with its bias, in real values."""
    lead = 0.0
    if facts.is_narrow(e.graph, node):
        lead = QUARTER * facts.SIDES.get(int(e.graph.quant(node.output).zero_point[0]), 0)
    return _real(e, node, lead)


def _real(e: Emitter, node: Node, lead: float) -> Any:
    count = e.graph.tensors[node.inputs[1]].shape[0]
    made = _sums(e, node, lambda shape: e.constant(node.inputs[1], shape, OHWI_TO_OIHW))
    return ops.add(made, e.bias(node, (1, count, 1, 1), lead), name=part(node.output, facts.WITH_BIAS))


def convolution_in_steps(e: Emitter, node: Node) -> Any:
    """Return a convolution of integers on the grid of its output, its activation included."""
    parts, activation, name = facts.parts_of_a_step(e.graph, node), layout.needed_activation(e.graph, node), node.output
    value = _whole(e, node) if parts is None else _rounded_twice(e, node, parts)
    if activation == "relu" and parts is not None:
        value = ops.relu(value, name=part(name, "relu"))
    return e.on_grid(name, e.at_most_six(node, value) if activation == "relu6" else value, in_steps=True)


def _rounded_twice(e: Emitter, node: Node, parts: float) -> Any:
    """Return the sums in whole steps: rounded to parts of one, in which halves are exact; these go away from zero."""
    name = node.output
    in_parts = e.plain(np.float32(parts) / e.graph.quant(name).scale[0], part(name, "parts"))
    value = ops.multiply(_real(e, node, 0), in_parts, name=part(name, f"{facts.SCALED}_parts"))
    away = e.plain(np.float32((1 + facts.AWAY) / parts), part(name, "part"))
    return in_steps(name, rounded(value, part(name, facts.WHOLE)), away)


def _whole(e: Emitter, node: Node) -> Any:
    """Return the sums in whole steps: a whole number, its ReLU included, and one multiplication."""
    source, weight, made = (e.graph.quant(name) for name in (*node.inputs[:2], node.output))
    held, bias = e.graph.constant(node.inputs[1]), e.graph.constant(node.inputs[2])
    assert isinstance(held, QuantizedConstant)
    assert isinstance(bias, QuantizedConstant)
    name, per_channel = node.output, (1, held.shape[0], 1, 1)
    unit, count = unit_of(source)

    def weights(shape: tuple[int, ...]) -> Any:
        integers = e.steps(held.integers.transpose(OHWI_TO_OIHW).reshape(shape), held.name)
        return ops.multiply(integers, e.plain(unit, part(held.name, facts.UNIT)), name=held.name)

    integers = e.steps(bias.integers.reshape(per_channel), bias.name)
    if count != 1:
        integers = ops.multiply(integers, e.plain(count, part(bias.name, facts.UNIT)), name=bias.name)
    value = ops.add(_sums(e, node, weights), integers, name=part(name, facts.WITH_BIAS))
    activation = layout.needed_activation(e.graph, node)
    # Without an operation between, the multiplication would be moved before the addition of the bias. Whole numbers may
    # be rounded as well.
    if held.shape[3] > 1 and node.attrs["groups"] != 1:
        # Of groups of several channels, the plugin's convolution gives some the multiplier of others. It takes no
        # maximum into its kernel, so what follows is one of its own.
        least = 0.0 if activation == "relu" else LEAST
        value = ops.maximum(value, e.plain(np.float32(least), part(name, "least")), name=part(name, facts.WHOLE))
    elif activation == "relu":
        value = ops.relu(value, name=part(name, "relu"))
    else:
        value = rounded(value, part(name, facts.WHOLE))
    if count != 1:
        # Times a multiplier divided by the count instead, float32 takes sums across halves that others leave there.
        share = e.plain(1 / count, part(name, "share"))
        value = ops.multiply(value, share, name=part(name, f"{facts.SCALED}_sums"))
        value = rounded(value, part(name, f"{facts.ROUNDED}_sums"))
    scale = weight.scale[0] if weight.axis is None else weight.scale.reshape(per_channel)
    factors = (scale, part(held.name, facts.SCALE)), (source.scale[0], part(bias.name, facts.INPUT_SCALE))
    products = ops.multiply(*(e.plain(*factor) for factor in factors), name=part(bias.name, facts.SCALE))
    steps = e.plain(made.scale[0], part(name, "steps"))
    multiplier = ops.divide(products, steps, name=part(name, "multiplier"))  # of constants: done when it is loaded
    return in_steps(name, value, multiplier)


def unit_of(source: QParams) -> tuple[np.float32, np.float32]:
    """Return a scale of weights with which their products with an activation are multiples of a small whole number.

    Args:
        source: of the activation.

    Returns:
        the scale, and the number: that of the plugin's float32 scale of the activation, times the scale, exactly.
    """
    low, high = (np.float32(end) for end in layout.grid_ends(source))
    step = (high - low) / np.float32(facts.LEVELS - 1)  # as the plugin's low-precision transformations compute it
    for count, nudge in product(map(np.float32, range(1, 64, 2)), (0, -1, 1)):
        unit = count / step
        unit = np.nextafter(unit, np.float32(np.inf * nudge)) if nudge else unit
        if step * unit == count:
            return unit, count
    raise AssertionError(f"no multiple of 1 / {step} up to 63 is a float32")


def _sums(e: Emitter, node: Node, weights: Callable[[tuple[int, ...]], Any]) -> Any:
    a: Mapping[str, Any] = node.attrs
    before, after = pads(a)
    out, height, width, depth = e.graph.tensors[node.inputs[1]].shape
    groups, value = a["groups"], e.value(node.inputs[0])
    if e.precision == "int8" and depth == height == 1 < groups and (before[0] or after[0]):
        # The depthwise kernel for AVX-512 of height 1 reads beyond its input above and below: it crashes.
        value = between_zeros(e, node, (before[0], after[0]), 2, part(node.output, "between_rows"))
        before, after = [0, before[1]], [0, after[1]]
    if depth == 1 and 1 < groups < out:
        value, groups = repeated(e, node, value, out // groups), out
    shape = (out, depth, height, width) if groups == 1 else (groups, out // groups, depth, height, width)
    kind = ops.convolution if groups == 1 else ops.group_convolution
    # Of one channel, with a stride over a width that the kernel covers, the plugin's sums are wrong.
    strides, dilation = [facts.stride_over(e.graph, node, axis) for axis in (0, 1)], list(a["dilation"])
    return kind(value, weights(shape), strides, before, after, dilation, name=part(node.output, facts.SUMS))
