"""The solver of adaptive rounding: each layer's integers and bias, by least squares over the images.

A layer learns from the quantized prefix's input ``x`` and the float prefix's output ``y``: it minimizes
``sum |y - (W x + b)|^2`` over integers ``W`` that are either neighbour of the float weight, and over ``b``. Later
layers so compensate errors of earlier ones as far as rounding can. Integers aim at ``COMPENSATED`` of the way only from
what the float weights make of ``x`` to ``y``: all the way, they learn the images. Last, ``b`` moves by how wrong the
mean is after the activation.

With ``b`` eliminated this is a quadratic in each row of ``W``, and its coefficients, the covariances of ``x`` with
itself and with ``y``, are all that is kept of the images: no step size, no random choice (``integer_least_squares``).

Sources: see ``steps/adaptive_rounding.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from edgecnn.graph.interpreter import run_node, without_activation
from edgecnn.graph.ir import Constant, Graph, Node, Quantized, QuantizedConstant, Tensor
from edgecnn.quant.executor import CHUNK, SideBySide
from edgecnn.quant.integer_least_squares import round_rows
from edgecnn.quant.scales.bias_shift import bias_shift, function_behind
from edgecnn.quant.scales.kernel_limits import clamp_weight_scales
from edgecnn.quant.scales.qparams import bias_scales, quantize_bias
from edgecnn.quant.scales.rounding_safe import weight_trials

RIDGE = 3.0  # pull towards the float weights, in units of (unknowns / equations) of the mean variance
SMALLEST_RIDGE = 1e-3  # of the mean variance
CONSTANT = 1e-5  # of the mean square: inputs that hardly vary say nothing
FEW = 9  # taps of a channel that chooses its scale too
POSITIONS, EACH = 1 << 11, 32  # of a layer's output that are looked at: at least, and for each tap
LEAP = 37  # rows from one chunk's band to the next one's
COMPENSATED = 0.5  # of what earlier layers got wrong: that much of it is the same on other images


def solve_layer(node: Node, both: SideBySide, limit: int) -> tuple[QuantizedConstant, QuantizedConstant]:
    """Return the layer's weight and bias with the integers that make its output nearest the float network's.

    The weights are chosen by the layer's sums, the bias then by the mean of what the activation makes of them.

    Args:
        node: weighted.
        both: at this node.
        limit: the largest weight integer.
    """
    tensors = both.tensors
    source = Quantized.of(tensors[node.inputs[0]])
    weight, bias = (QuantizedConstant.of(tensors[i]) for i in node.inputs[1:])
    float_weight = both.exact[weight.name]
    attrs: Mapping[str, Any] = node.attrs
    groups, taps = attrs.get("groups", 1), float_weight[0].numel()
    moments = Moments(groups, taps, len(float_weight) // groups)
    before = without_activation(node)
    chunks, float_bias = range(len(both.floats[source.name])), both.exact[bias.name]
    positions = max(POSITIONS, EACH * taps) / (len(chunks) * CHUNK)
    seen = []
    for j in chunks:
        part, rows, beyond = band(before, float_weight, both.graph, positions, j)
        x, coarse = (F.pad(make(source.name, j, rows), beyond) for make in (both.real, both.coarse))
        seen.append((coarse, run_node(part, [x, float_weight, float_bias])))
        moments.add(patches(part, coarse, float_weight), seen[-1][1])
    weights = float_weight.reshape(groups, -1, taps).double()
    integers, scales = _chosen(node, tensors, *moments.problem(weights), weights, limit)
    mean_x, mean_y = moments.means()
    learned = (mean_y - ((integers * scales) @ mean_x[:, :, None])[:, :, 0]).reshape(-1)
    if (function := function_behind(both.graph, node)) is not None:
        rounded, shifted = (integers * scales).reshape(float_weight.shape).float(), learned.float()
        pairs = [(wanted, run_node(part, [coarse, rounded, shifted])) for coarse, wanted in seen]
        learned = learned + bias_shift(pairs, function)
    placed = integers.reshape(float_weight.shape).to(torch.int8)
    placed = placed.permute(0, 2, 3, 1).contiguous() if placed.ndim == 4 else placed
    quant = weight.quant
    found = quant.scale if quant.scale.size == 1 else scales.reshape(-1).float().numpy()
    products = bias_scales(source.quant.scale, found)
    return (
        replace(weight, integers=placed.numpy(), quant=replace(quant, scale=found)),
        quantize_bias(bias, products, learned.numpy(), bias.quant.dtype),
    )


def _chosen(
    node: Node,
    tensors: Mapping[str, Tensor],
    covariance: torch.Tensor,
    cross: torch.Tensor,
    rows: torch.Tensor,
    limit: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a layer's integers ``(groups, rows, taps)`` and their scales ``(groups, rows, 1)``.

    Each channel with ``FEW`` taps takes the best of the scales with which all runtimes round alike: so few roundings
    seldom make up for one another, and their sum differs much from scale to scale.
    """
    source, weight, made = (Quantized.of(tensors[i]).quant for i in (*node.inputs[:2], node.output))

    trials = weight.scale[None]
    if rows.shape[2] <= FEW and weight.scale.size > 1 and source.dtype == made.dtype == "int8":
        peaks = (rows.abs().amax(2).reshape(-1) / limit).float().numpy()
        smallest = np.where(peaks > 0, np.minimum(peaks, weight.scale), weight.scale)
        smallest = clamp_weight_scales(smallest, source, made, Constant.of(tensors[node.inputs[2]]).value)
        trials = np.concatenate([trials, weight_trials(node, source, made, smallest)])
    count, groups, channels = len(trials), *rows.shape[:2]
    scales = torch.from_numpy(np.broadcast_to(trials, (count, groups * channels)).astype(np.float64))
    scales = scales.reshape(count * groups, channels, 1)
    covariance, cross, rows = (x.repeat(count, 1, 1) for x in (covariance, cross, rows))
    integers = round_rows(covariance, cross, rows, scales, limit)
    real = integers * scales
    errors = ((real @ covariance - 2 * cross) * real).sum(2).reshape(count, groups, channels)
    best = errors.argmin(0)[None, ..., None]  # the first of equals
    integers, scales = (x.reshape(count, groups, channels, -1) for x in (integers, scales))
    return torch.take_along_dim(integers, best, 0)[0], torch.take_along_dim(scales, best, 0)[0]


def band(
    node: Node, weight: torch.Tensor, graph: Graph, positions: float, turn: int
) -> tuple[Node, slice | None, tuple[int, ...]]:
    """Return what makes some rows of a layer's output: few positions of every image tell enough.

    Args:
        node: weighted.
        weight: OIHW, or OI.
        graph: of both networks.
        positions: of the output, of each image, at least; all where there are no more.
        turn: rows begin elsewhere in each turn.

    Returns:
        The node without padding, the rows of its input, and the zeros that they are padded by.
    """
    shape = graph.tensors[node.output].shape
    if len(shape) == 2:
        return node, None, ()
    attrs: Mapping[str, Any] = node.attrs
    (top, _, left, right), down = attrs["padding"], attrs["stride"][0]
    height = min(math.ceil(positions / shape[2]), shape[1])
    low = turn * LEAP % (shape[1] - height + 1) * down - top
    high = low + (height - 1) * down + (weight.shape[2] - 1) * attrs["dilation"][0] + 1
    rows = graph.tensors[node.inputs[0]].shape[1]
    beyond = (left, right, max(-low, 0), max(high - rows, 0))
    return replace(node, attrs={**attrs, "padding": (0, 0, 0, 0)}), slice(max(low, 0), min(high, rows)), beyond


def patches(node: Node, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return what output positions read: ``(groups, taps, positions)``, taps in the order of a row of ``weight``."""
    if x.ndim == 2:
        return x.T[None]
    attrs: Mapping[str, Any] = node.attrs
    top, bottom, left, right = attrs["padding"]
    padded = F.pad(x, (left, right, top, bottom))
    if weight.shape[2:] == (1, 1):
        down, across = attrs["stride"]
        columns = padded[:, :, ::down, ::across].flatten(2)
    else:
        size = (weight.shape[2], weight.shape[3])
        columns = F.unfold(padded, size, stride=attrs["stride"], dilation=attrs["dilation"])
    return columns.permute(1, 0, 2).reshape(attrs["groups"], -1, columns.shape[0] * columns.shape[2])


class Moments:
    """Hold sums over positions: of inputs, outputs and their products, group by group, float64.

    Inputs are taken from ``origin``, their mean in the positions that come first. Products are float32: of inputs that
    vary little around a large mean they would hold the square of the mean and little else.

    Source: Chan, Golub and LeVeque 1983, "Algorithms for Computing the Sample Variance", section 3 (shifted data).
    """

    def __init__(self, groups: int, taps: int, rows: int) -> None:
        self.groups, self.rows, self.count = groups, rows, 0
        self.origin: torch.Tensor | None = None  # (groups, taps)
        self.x = torch.zeros(groups, taps, dtype=torch.float64)
        self.y = torch.zeros(groups, rows, dtype=torch.float64)
        self.xx = torch.zeros(groups, taps, taps, dtype=torch.float64)
        self.yx = torch.zeros(groups, rows, taps, dtype=torch.float64)

    def add(self, patches: torch.Tensor, made: torch.Tensor) -> None:
        """Add more positions: inputs ``(groups, taps, n)``, outputs NCHW or NC."""
        y = made.transpose(0, 1).reshape(self.groups, self.rows, -1)
        if self.groups > 1:  # few taps: exact sums cost nothing, and single channels may hardly vary
            patches, y = patches.double(), y.double()
        if self.origin is None:
            self.origin = patches.mean(2)
        patches = patches - self.origin[:, :, None]
        self.count += patches.shape[2]
        self.x += patches.sum(2, dtype=torch.float64)
        self.y += y.sum(2, dtype=torch.float64)
        self.xx += patches @ patches.mT
        self.yx += y @ patches.mT

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the means of inputs ``(groups, taps)`` and outputs ``(groups, rows)``."""
        assert self.origin is not None
        return self.origin + self.x / self.count, self.y / self.count

    def problem(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return covariances: of the inputs, made definite by a ridge, and with the outputs that are aimed at.

        Args:
            weights: float, ``(groups, rows, taps)``; the ridge pulls to them.
        """
        mean_x, mean_y = self.x / self.count, self.y / self.count
        xx = self.xx / self.count - mean_x[:, :, None] * mean_x[:, None]
        yx = self.yx / self.count - mean_y[:, :, None] * mean_x[:, None]
        variance = xx.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).clamp(min=0)
        square = variance + self.means()[0].square().mean(1, keepdim=True)
        share = max(SMALLEST_RIDGE, RIDGE * xx.shape[1] / self.count)
        ridge = share * variance + CONSTANT * square + 1e-12
        covariance = (xx + xx.mT) / 2
        same = weights @ covariance  # what the float weights make of the quantized prefix's input
        cross = same + COMPENSATED * (yx - same) + ridge[:, :, None] * weights
        return covariance + torch.diag_embed(ridge.expand(-1, weights.shape[2])), cross
