"""The solver of adaptive rounding: each layer's integers and bias, by least squares over the images.

A layer learns from the quantized prefix's input ``x`` and the float prefix's output ``y``: it minimizes
``sum |y - (W x + b)|^2`` over integers ``W`` that are either neighbour of the float weight, and over ``b``. Later
layers so compensate errors of earlier ones as far as rounding can. Integers aim at ``COMPENSATED`` of the way only from
what the float weights make of ``x`` to ``y``: all the way, they learn the images. Last, ``b`` moves by how wrong the
mean is after the activation.

With ``b`` eliminated this is a quadratic in each row of ``W``, and its coefficients, the covariances of ``x`` with
itself and with ``y``, are all that is kept of the images: no step size, no random choice. It is solved as GPTQ does,
column by column, each column's rounding error spread over those that follow; then by coordinate descent, up to
``SWEEPS`` times over all weights, until no single one is better at its other neighbour.

Sources: see ``steps/adaptive_rounding.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from edgecnn.graph.interpreter import run_node, without_activation
from edgecnn.graph.ir import Constant, Node, Quantized, QuantizedConstant, Tensor
from edgecnn.quant.executor import SideBySide
from edgecnn.quant.scales.consumers import activation_of, bias_shift
from edgecnn.quant.scales.kernel_limits import clamp_weight_scales
from edgecnn.quant.scales.qparams import bias_scales, quantize_bias
from edgecnn.quant.scales.rounding_safe import weight_trials

RIDGE = 3.0  # pull towards the float weights, in units of (unknowns / equations) of the mean variance
SMALLEST_RIDGE = 1e-3  # of the mean variance
CONSTANT = 1e-5  # of the mean square: inputs that hardly vary say nothing
SWEEPS = 4
FEW = 9  # taps of a channel that chooses its scale too
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
    for j in chunks:
        y = run_node(before, [both.real(source.name, j), float_weight, float_bias])
        moments.add(patches(node, both.coarse(source.name, j), float_weight), y)
    rows = float_weight.reshape(groups, -1, taps).double()
    integers, scales = _chosen(node, tensors, *moments.problem(rows), rows, limit)
    mean_x, mean_y = moments.means()
    learned = (mean_y - ((integers * scales) @ mean_x[:, :, None])[:, :, 0]).reshape(-1)
    if (activation := activation_of(node)) is not None:
        rounded, shifted = (integers * scales).reshape(float_weight.shape).float(), learned.float()
        wanted = (run_node(before, [both.real(source.name, j), float_weight, float_bias]) for j in chunks)
        made = (run_node(before, [both.coarse(source.name, j), rounded, shifted]) for j in chunks)
        learned = learned + bias_shift(zip(wanted, made, strict=True), activation)
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

    def solved(given: NDArray[np.float32]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        scales = torch.from_numpy(np.broadcast_to(given, rows.shape[0] * rows.shape[1]).astype(np.float64))
        scales = scales.reshape(*rows.shape[:2], 1)
        integers = round_rows(covariance, cross, rows, scales, limit)
        real = integers * scales
        return integers, scales, ((real @ covariance - 2 * cross) * real).sum(2, keepdim=True)

    integers, scales, least = solved(weight.scale)
    if rows.shape[2] <= FEW and weight.scale.size > 1 and source.dtype == made.dtype == "int8":
        peaks = (rows.abs().amax(2).reshape(-1) / limit).float().numpy()
        smallest = np.where(peaks > 0, np.minimum(peaks, weight.scale), weight.scale)
        smallest = clamp_weight_scales(smallest, source, made, Constant.of(tensors[node.inputs[2]]).value)
        for trial in weight_trials(node, source, made, smallest):
            others, of_others, error = solved(trial)
            better = error < least
            integers, scales = torch.where(better, others, integers), torch.where(better, of_others, scales)
            least = torch.where(better, error, least)
    return integers, scales


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
    """Hold sums over positions: of inputs, outputs and their products, group by group, float64."""

    def __init__(self, groups: int, taps: int, rows: int) -> None:
        self.groups, self.rows, self.count = groups, rows, 0
        self.x = torch.zeros(groups, taps, dtype=torch.float64)
        self.y = torch.zeros(groups, rows, dtype=torch.float64)
        self.xx = torch.zeros(groups, taps, taps, dtype=torch.float64)
        self.yx = torch.zeros(groups, rows, taps, dtype=torch.float64)

    def add(self, patches: torch.Tensor, made: torch.Tensor) -> None:
        """Add more positions: inputs ``(groups, taps, n)``, outputs NCHW or NC."""
        y = made.transpose(0, 1).reshape(self.groups, self.rows, -1)
        if self.groups > 1:  # few taps: exact sums cost nothing, and single channels may hardly vary
            patches, y = patches.double(), y.double()
        self.count += patches.shape[2]
        self.x += patches.sum(2, dtype=torch.float64)
        self.y += y.sum(2, dtype=torch.float64)
        self.xx += patches @ patches.mT
        self.yx += y @ patches.mT

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the means of inputs ``(groups, taps)`` and outputs ``(groups, rows)``."""
        return self.x / self.count, self.y / self.count

    def problem(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return covariances: of the inputs, made definite by a ridge, and with the outputs that are aimed at.

        Args:
            weights: float, ``(groups, rows, taps)``; the ridge pulls to them.
        """
        mean_x, mean_y = self.means()
        xx = self.xx / self.count - mean_x[:, :, None] * mean_x[:, None]
        yx = self.yx / self.count - mean_y[:, :, None] * mean_x[:, None]
        variance = xx.diagonal(dim1=1, dim2=2).mean(1, keepdim=True).clamp(min=0)
        square = self.xx.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) / self.count
        share = max(SMALLEST_RIDGE, RIDGE * xx.shape[1] / self.count)
        ridge = share * variance + CONSTANT * square + 1e-12
        covariance = (xx + xx.mT) / 2
        same = weights @ covariance  # what the float weights make of the quantized prefix's input
        cross = same + COMPENSATED * (yx - same) + ridge[:, :, None] * weights
        return covariance + torch.diag_embed(ridge.expand(-1, weights.shape[2])), cross


def round_rows(
    covariance: torch.Tensor, cross: torch.Tensor, weights: torch.Tensor, scales: torch.Tensor, limit: int
) -> torch.Tensor:
    """Return integers ``(groups, rows, taps)``, each a neighbour of its float weight.

    Args:
        covariance, cross: from ``Moments.problem``.
        weights: float64, the shape of the result.
        scales: float64, ``(groups, rows, 1)``.
        limit: the largest magnitude.
    """
    taps = weights.shape[2]
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance))
    spread = torch.linalg.cholesky(inverse, upper=True)
    low = torch.floor(weights / scales).clamp(-limit, limit)
    high = torch.ceil(weights / scales).clamp(-limit, limit)
    wanted, integers = cross @ inverse, torch.empty_like(weights)
    for k in range(taps):
        integers[:, :, k] = torch.round(wanted[:, :, k] / scales[:, :, 0]).clamp(low[:, :, k], high[:, :, k])
        error = (wanted[:, :, k] - integers[:, :, k] * scales[:, :, 0]) / spread[:, k, k, None]
        wanted[:, :, k:] -= error[:, :, None] * spread[:, None, k, k:]
    gradient = cross - (integers * scales) @ covariance
    for _ in range(SWEEPS):
        for k in range(taps):
            step = gradient[:, :, k] / covariance[:, k, k, None] / scales[:, :, 0]
            better = torch.round(integers[:, :, k] + step).clamp(low[:, :, k], high[:, :, k])
            moved = (better - integers[:, :, k]) * scales[:, :, 0]
            if moved.any():
                gradient -= moved[:, :, None] * covariance[:, None, k]
                integers[:, :, k] = better
    return integers
