"""Consumers that saturate: ranges and biases are chosen by the error after them.

A swish is nearly 0 far below 0, a sigmoid nearly constant at both ends. Steps of a grid spent there are lost, so where
nothing else reads an activation, its range is chosen by the error after that function (``observers.clipping``). A bias
is corrected by the mean error after a ReLU: what a ReLU makes zero of is no error (``bias_shift``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from edgecnn.graph.ir import Constant, Graph, Node

Nonlinearity = Callable[[torch.Tensor], torch.Tensor]
NUDGE = 2**-6  # over which an activation's slope is taken
RARE = 1e-3  # a mean slope that counts as small
SWISHES: tuple[Nonlinearity, ...] = (F.silu, F.hardswish)


def saturating_consumer(graph: Graph, name: str) -> Nonlinearity | None:
    """Return the saturating function through which alone the network sees an activation; ``None`` where there is none.

    They are ``sigmoid``; a swish: ``hard_swish``, or ``mul`` of the activation and its ``sigmoid``; and a hard sigmoid:
    ``relu6`` of the activation plus a number.
    """
    consumers = sorted(graph.consumers(name), key=lambda node: node.op)
    match [node.op for node in consumers]:
        case ["hard_swish"]:
            return F.hardswish
        case ["sigmoid"]:
            return torch.sigmoid
        case ["mul", "sigmoid"]:  # a value times its own sigmoid, which nothing else reads
            mul, sigmoid = consumers
            if set(mul.inputs) == {name, sigmoid.output} and graph.consumers(sigmoid.output) == [mul]:
                return F.silu
        case ["add"] if _clipped(graph, consumers[0]):
            added = [graph.tensors[other] for other in consumers[0].inputs if other != name]
            if len(added) == 1 and isinstance(added[0], Constant) and added[0].value.size == 1:
                shift = float(added[0].value.reshape(()))
                return lambda x: F.relu6(x + shift)
    return None


def around_swishes(graph: Graph) -> set[str]:
    """Return the activations that a swish alone reads, and those that it makes."""
    found = set()
    for tensor in graph.activations():
        if saturating_consumer(graph, tensor.name) in SWISHES:
            made = (n.output for n in graph.consumers(tensor.name) if n.op in ("hard_swish", "mul"))
            found |= {tensor.name, *made}
    return found


def _clipped(graph: Graph, node: Node) -> bool:
    """Tell whether a relu6 is all that follows a node, fused or not."""
    return node.attrs.get("activation") == "relu6" or [n.op for n in graph.consumers(node.output)] == ["relu6"]


def activation_of(node: Node) -> Nonlinearity | None:
    """Return the ReLU or ReLU6 that a weighted layer's sums go through; ``None`` without one.

    A swish is none of them: where its slope is nearly 0, or negative, one step of Newton's method leads anywhere.
    """
    return {"relu": F.relu, "relu6": F.relu6}.get(str(node.attrs.get("activation", "none")))


def bias_shift(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]], activation: Nonlinearity | None) -> torch.Tensor:
    """Return by how much a layer's biases move so that its mean output is the wanted one: float64 ``(channels,)``.

    With an activation in between it is one step of Newton's method: the mean error after the activation, over the mean
    slope. A channel that passes hardly anywhere moves less.

    Args:
        pairs: wanted and made sums, NCHW or NC, chunk by chunk.
        activation: what the sums go through.
    """
    error, slope, count = torch.zeros(()), torch.zeros(()), 0
    for wanted, made in pairs:
        over = (0, 2, 3) if wanted.ndim == 4 else (0,)
        count += wanted.numel() // wanted.shape[1]
        if activation is None:
            error = error + (wanted - made).sum(over, dtype=torch.float64)
        else:
            error = error + (activation(wanted) - activation(made)).sum(over, dtype=torch.float64)
            rise = activation(wanted + NUDGE) - activation(wanted - NUDGE)
            slope = slope + rise.sum(over, dtype=torch.float64) / (2 * NUDGE)
    return error / count if activation is None else error / (slope.clamp(min=0) + RARE * count)
