"""Find what OpenVINO's CPU plugin cannot compute exactly, before a file is written."""

from __future__ import annotations

import numpy as np

from edgecnn.graph.ir import Graph, Quantized
from edgecnn_converters.openvino.format import WIDEST, in_steps, is_narrow, stride_over
from edgecnn_converters.preconditions import Fault, KernelLimits, beyond_float16, beyond_kernels

LIMITS = KernelLimits(
    runtime="OpenVINO", multipliers={"fully_connected": (0.0, 2.0**6), "mean": (0.0, 2.0**8)}, scale=1000.0
)
"""Measured: beyond them its int8 linear layers, means and sigmoids are wrong by a step and more (OpenVINO 2026.4)."""
WIDE = 28  # pixels that the depthwise kernel for AVX-512 makes at once
SMALLEST = 2e-8  # below 7e-9 its integers are wrong, by 40 of them and more
FLOAT32_STEP, MOST_LOST = 2.0**-23, 0.25  # of the larger of two terms of a sum; of a step of the output
LARGEST_PRODUCT = 255.0**2
LARGEST = 256.0  # of a sigmoid's input: 255 of such steps less 255 are 0 to 1 / 128, a quarter of the output's step


def unsupported(graph: Graph, precision: str) -> list[Fault]:
    """List what of the graph OpenVINO IR cannot express, as (node, reason), in order."""
    found = beyond_float16(graph, precision)
    if precision != "int8":
        return found
    return [*found, *_faulty(graph), *beyond_kernels(graph, LIMITS), *_beyond_float32(graph)]


def _faulty(graph: Graph) -> list[Fault]:
    """List convolutions with which the plugin comes to no end, or whose sums are wrong: see the reasons."""
    found = []
    for node in graph:
        if node.op == "conv2d" and is_narrow(graph, node):
            _, _, width, depth = graph.tensors[node.inputs[1]].shape
            made = graph.tensors[node.output].shape[2]
            if depth == 1 and node.attrs["groups"] != 1 and width > WIDEST and made > WIDE:
                allowed = f"above {WIDE} pixels of output OpenVINO's int8 kernels take up to {WIDEST}; use fp32"
                found.append((node.output, f"a depthwise kernel {width} pixels wide; {allowed}"))
            if depth == node.attrs["groups"] == made == 1 < stride_over(graph, node, 1):
                wrong = "OpenVINO's int8 kernels are wrong there; use a stride of 1 over the width"
                found.append((node.output, f"one channel in, and one pixel out in width of several: {wrong}"))
    return found


def _beyond_float32(graph: Graph) -> list[Fault]:
    """List activations whose scales OpenVINO's FakeQuantize or what reads it cannot carry, as (node, reason)."""
    grids = {t.name: t.quant for t in graph.activations() if isinstance(t, Quantized) and t.quant.dtype == "int8"}
    small = (
        f"{{:.3g}} is below the smallest scale that OpenVINO's FakeQuantize keeps, {SMALLEST:g}; rescale the network"
    )
    large = (
        f"its input's scale, {{:.3g}}, is above {LARGEST:g}: OpenVINO's float32 then loses where zero is; rescale it"
    )
    found = [(name, small.format(quant.scale[0])) for name, quant in grids.items() if quant.scale[0] < SMALLEST]
    read = [(n.output, grids[n.inputs[0]].scale[0]) for n in graph if n.op == "sigmoid" and n.inputs[0] in grids]
    found += [(name, large.format(scale)) for name, scale in read if scale > LARGEST]
    lost = (
        "float32 loses {:.3g} steps of the output where a bias of {:.3g} steps cancels; give the output a larger scale"
    )
    for node in (n for n in graph if n.weighted and not in_steps(graph, n) and {n.inputs[0], n.output} <= set(grids)):
        bias = graph.constant(node.inputs[2]).value
        steps = float(np.abs(bias).max(initial=0) / grids[node.output].scale[0])
        if steps * FLOAT32_STEP > MOST_LOST:
            found.append((node.output, lost.format(steps * FLOAT32_STEP, steps)))
    return [*found, *_long_sums(graph)]


def _long_sums(graph: Graph) -> list[Fault]:
    """List products of two activations whose sums, of integers without zero points, float32 does not hold."""
    found = []
    for node in graph:
        if node.op == "batch_matmul" and is_narrow(graph, node):
            count = graph.tensors[node.inputs[0]].shape[-1]
            first, second, made = (float(graph.quant(name).scale[0]) for name in (*node.inputs, node.output))
            lost = count * LARGEST_PRODUCT * FLOAT32_STEP * first * second / made
            if lost > MOST_LOST:
                why = f"int8 MatMul of two activations over {count}: float32 loses {lost:.3g} steps of the output"
                found.append((node.output, f"{why}; give the output a larger scale, or split what is summed"))
    return found
