"""Quantization-aware training: a quantized graph whose weights, biases and, by option, scales learn.

What is trained is what is exported: the module computes with real values on exactly the grids of the graph's tensors,
batch norm is folded already, and ``quantized`` rounds what was learned by the functions of ``scales/qparams.py``,
as PTQ does. It starts from a graph that PTQ made, at that graph's integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgecnn.errors import InputError
from edgecnn.graph.execution import execute, released
from edgecnn.graph.interpreter import laid_out, run_node
from edgecnn.graph.ir import Graph, Node, QParams, QuantizedConstant
from edgecnn.quant.scales import qparams

CELL = 0.499  # of a step: how far from an integer a weight may start; at 0.5 it would belong to the next
FLOAT64 = 2**53  # largest integer up to which float64 holds every one


class RoundToGrid(torch.autograd.Function):
    """``scale * clamp(round(x / scale), low, high)``, with gradients for ``x`` and ``scale``.

    Straight through for ``x`` where it is inside the grid, none outside (Bengio et al. 2013; Jacob et al. 2018, section
    3); for ``scale``, ``round(x / scale) - x / scale`` inside and the nearest end outside (Esser et al. 2020, "Learned
    Step Size Quantization", eq. 3).
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: int, high: int) -> torch.Tensor:
        """``scale`` broadcasts against ``x``; halves go to even."""
        steps = x / scale
        nearest = steps.round()
        integers = nearest.clamp(low, high)
        inside = nearest == integers
        learned = ctx.needs_input_grad[1]
        ctx.save_for_backward(inside, integers - steps * inside if learned else None)
        ctx.shape = scale.shape
        return integers * scale

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None, None]:
        """Return the gradients of ``x`` and of ``scale``, where it learns."""
        (gradient,) = gradients
        inside, slope = ctx.saved_tensors
        of_scale = None if slope is None else (gradient * slope).sum_to_size(ctx.shape)
        return gradient * inside, of_scale, None, None


def rounded(x: torch.Tensor, scale: torch.Tensor, low: float, high: float) -> torch.Tensor:
    out: torch.Tensor = RoundToGrid.apply(x, scale, low, high)  # type: ignore[no-untyped-call]  # torch's stub
    return out


class QatGraph(nn.Module):
    """Train a full int8 graph: NCHW float32 in, logits on the output's grid out.

    A learned scale is the graph's times ``exp(step)``, and ``step`` starts at 0: so it stays above 0, and Adam changes
    it by a share of itself (Jain et al. 2020, section 4.1, learn its logarithm too). Zero points stay. For the
    same reason weights are parameters in shares of their channel's range and biases of their output's range: folding
    batch norm leaves channels of any size, and one learning rate must suit them all.

    Args:
        graph: quantized by ``pipeline.quantize``.
        weight_limit: the largest weight integer; ``recipe.weight_limit``.
        learn_steps: whether scales of activations and weights learn.

    Raises:
        InputError: the graph has no integers, or no weights.
    """

    def __init__(self, graph: Graph, *, weight_limit: int, learn_steps: bool) -> None:
        super().__init__()
        if graph.precision not in ("int8", "int16x8"):
            raise InputError(f"the graph is {graph.precision}; quantization-aware training starts from an int8 graph")
        self.graph, self.weight_limit = graph, weight_limit
        self._layers = {node.output: k for k, node in enumerate(n for n in graph if n.weighted)}
        if not self._layers:
            raise InputError("the graph has no convolution and no linear layer: nothing in it could learn")
        self._groups = {name: k for k, group in enumerate(qparams.scale_groups(graph)) for name in group}
        fixed = {self._groups[node.output] for node in graph if node.spec.scale == "fixed"}
        self.weights, self.biases, self.weight_steps = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for node in graph:
            if node.weighted:
                weight, bias = (QuantizedConstant.of(graph.tensors[i]) for i in node.inputs[1:])
                made = graph.quant(node.output)
                reach = (made.limits[1] - made.limits[0]) * float(made.scale[0])
                ranges = _steps(weight) * weight_limit
                self.weights.append(nn.Parameter(torch.from_numpy(_start(weight) / ranges)))
                self.biases.append(nn.Parameter(torch.from_numpy(_real(bias) / reach)))
                k = self._layers[node.output]
                self.register_buffer(f"weight_scales_{k}", torch.from_numpy(weight.quant.scale), persistent=False)
                self.register_buffer(f"weight_ranges_{k}", torch.from_numpy(ranges), persistent=False)
                self.register_buffer(f"bias_range_{k}", torch.tensor(reach, dtype=torch.float64), persistent=False)
                steps = torch.zeros(weight.quant.scale.size)
                self.weight_steps.append(nn.Parameter(steps, requires_grad=learn_steps))
        self.activation_steps = nn.Parameter(torch.zeros(len(set(self._groups.values()))), requires_grad=learn_steps)
        scales = torch.zeros(len(self.activation_steps))
        for name, k in self._groups.items():
            scales[k] = float(graph.quant(name).scale[0])
        self.activation_scales: torch.Tensor
        self.register_buffer("activation_scales", scales, persistent=False)
        learned = torch.tensor([float(k not in fixed) for k in range(len(scales))])
        self.learned: torch.Tensor
        self.register_buffer("learned", learned, persistent=False)
        self._constants: dict[str, str] = {}  # the buffer of each constant, by tensor
        for name in dict.fromkeys(i for node in graph if not node.weighted for i in node.inputs):
            constant = graph.tensors[name]
            if not isinstance(constant, QuantizedConstant):
                continue
            value = laid_out(constant.quant.dequantize(constant.integers))
            self._constants[name] = f"constant_{len(self._constants)}"
            self.register_buffer(self._constants[name], value, persistent=False)
        self._expired = released(graph)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) network inputs to (N, classes)."""
        scales = self._activation_scales()
        (name,) = self.graph.inputs

        def compute(node: Node, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
            if node.weighted:
                arguments = [values[node.inputs[0]], *self._layer(node, scales)]
            else:
                arguments = [values[i] if i in values else getattr(self, self._constants[i]) for i in node.inputs]
            return self._on_grid(node.output, run_node(node, arguments), scales)

        values = execute(self.graph, {name: self._on_grid(name, x, scales)}, compute, self._expired)
        return values[self.graph.outputs[0]].flatten(1)

    def _activation_scales(self) -> torch.Tensor:
        """Return one per group of activations that share it; those the contract fixes stay what they are."""
        return _scales(self.activation_scales, self.activation_steps * self.learned)

    def _weight_scales(self, layer: int) -> torch.Tensor:
        return _scales(getattr(self, f"weight_scales_{layer}"), self.weight_steps[layer])

    def _learned(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight (laid out as the graph's) and bias of a layer before rounding, float64."""
        weight: torch.Tensor = self.weights[layer] * getattr(self, f"weight_ranges_{layer}")
        bias: torch.Tensor = self.biases[layer] * getattr(self, f"bias_range_{layer}")
        return weight, bias

    def _on_grid(self, name: str, x: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        quant = self.graph.quant(name)
        (low, high), zero = quant.limits, int(quant.zero_point[0])
        return rounded(x, scales[self._groups[name]], low - zero, high - zero)

    def _layer(self, node: Node, activation_scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight (OIHW, or as it is) and bias of a layer, on their grids; rounded in float64, as PTQ does."""
        k = self._layers[node.output]
        scales, (weight, learned) = self._weight_scales(k), self._learned(k)
        wide = scales.double().reshape(-1, *[1] * (weight.ndim - 1))
        real = rounded(weight, wide, -self.weight_limit, self.weight_limit).to(activation_scales.dtype)
        of_input = activation_scales[self._groups[node.inputs[0]]]
        exact = (of_input.double() * scales.double()).detach()
        product = exact.float().double()  # as files hold it; its integers then count in what the sums count in
        limit = _bias_limit(self.graph.quant(node.inputs[2]))
        bias = (rounded(learned, product, -limit, limit) * (exact / product)).to(activation_scales.dtype)
        return (real.permute(0, 3, 1, 2) if real.ndim == 4 else real), bias

    @torch.no_grad()
    def quantized(self) -> Graph:
        """Return the graph with the learned integers and scales; its float values stay those that it started from."""
        scales = self._activation_scales().cpu().numpy()
        grids = {n: replace(self.graph.quant(n), scale=scales[[group]]) for n, group in self._groups.items()}
        changed = []
        for node in self.graph:
            if node.weighted:
                weight, bias = (QuantizedConstant.of(self.graph.tensors[i]) for i in node.inputs[1:])
                k = self._layers[node.output]
                found = self._weight_scales(k).cpu().numpy()
                value, learned = (t.cpu().numpy() for t in self._learned(k))
                made = qparams.quantize_weight(replace(weight, value=value), found, self.weight_limit)
                products = qparams.bias_scales(scales[[self._groups[node.inputs[0]]]], found)
                limit = _bias_limit(bias.quant) * products.astype(np.float64)
                changed.append(replace(made, value=weight.value))
                learned = np.clip(learned, -limit, limit)
                changed.append(qparams.quantize_bias(bias, products, learned, bias.quant.dtype))
        return qparams.with_parameters(self.graph.with_tensors(*changed), grids)


def _bias_limit(bias: QParams) -> int:
    return min(bias.limits[1], FLOAT64)


def _scales(start: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """``start * exp(steps)`` in float32, as files hold scales, also in a module that computes in float64."""
    return (start.float() * torch.exp(steps.float())).to(start.dtype)


def _steps(tensor: QuantizedConstant) -> NDArray[np.float64]:
    """Return the scales of a weight or bias, shaped to broadcast against it."""
    return tensor.quant.scale.astype(np.float64).reshape(-1, *[1] * (len(tensor.shape) - 1))


def _real(tensor: QuantizedConstant) -> NDArray[np.float64]:
    """Return real values of the integers in float64: an int32 does not fit into float32."""
    return tensor.integers * _steps(tensor)


def _start(weight: QuantizedConstant) -> NDArray[np.float64]:
    """Return the float weights, moved so far that each rounds to its integer, whichever way that was chosen."""
    reach = CELL * _steps(weight)
    start: NDArray[np.float64] = np.clip(weight.value.astype(np.float64), _real(weight) - reach, _real(weight) + reach)
    return start
