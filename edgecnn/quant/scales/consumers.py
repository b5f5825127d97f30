"""Consumers that saturate: ranges and biases are chosen by the error after them.

A swish is nearly 0 far below 0, a sigmoid nearly constant at both ends. Steps of a grid spent there are lost, so where
nothing else reads an activation, its range is chosen by the error after that function (``observers.clipping``), and its
layer's bias is corrected by the error after it (``bias_shift``). A sum with a ReLU saturates too: an operand that is so
far beyond its ends that the other cannot bring it back may be clipped (``visible``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from edgecnn.graph.ir import Graph

if TYPE_CHECKING:
    from edgecnn.quant.observers.histogram import Range

Nonlinearity = Callable[[torch.Tensor], torch.Tensor]
SWISHES: tuple[Nonlinearity, ...] = (F.silu, F.hardswish, F.gelu, F.mish)
"""What saturates below zero alone. GELU by tanh is GELU here."""
ENDS = {"none": (-math.inf, math.inf), "relu": (0.0, math.inf), "relu6": (0.0, 6.0)}


def saturating_consumer(graph: Graph, name: str) -> Nonlinearity | None:
    """Return the saturating function through which alone the network sees an activation; ``None`` where there is none.

    They are ``sigmoid``, ``tanh``, a hard sigmoid or clamp that ends on both sides, and a swish: ``hard_swish``,
    ``gelu``, ``mish``, or ``mul`` of the activation and its ``sigmoid``. A hard sigmoid of slope 1/6 is the ReLU6 of
    its layer (``passes.fold_constants``).
    """
    consumers = sorted(graph.consumers(name), key=lambda node: node.op)
    attrs: Mapping[str, Any] = consumers[0].attrs if consumers else {}
    match [node.op for node in consumers]:
        case ["gelu"]:
            return F.gelu
        case ["mish"]:
            return F.mish
        case ["tanh"]:
            return torch.tanh
        case ["clamp"] if math.isfinite(attrs["low"]) and math.isfinite(attrs["high"]):
            return partial(torch.clamp, min=attrs["low"], max=attrs["high"])
        case ["hard_sigmoid"]:
            return lambda x: (x * attrs["alpha"] + attrs["beta"]).clamp(0, 1)
        case ["hard_swish"]:
            return F.hardswish
        case ["sigmoid"]:
            return torch.sigmoid
        case ["mul", "sigmoid"]:  # a value times its own sigmoid, which nothing else reads
            mul, sigmoid = consumers
            if set(mul.inputs) == {name, sigmoid.output} and graph.consumers(sigmoid.output) == [mul]:
                return F.silu
    return None


def visible(graph: Graph, name: str, ranges: Mapping[str, Range]) -> tuple[float, float]:
    """Return between which bounds the network tells values of an activation apart; infinite where all are told apart.

    A sum with a ReLU6 is in [0, 6]. Where its other operand is in [a, b], an operand of -b and less makes it 0, one of
    6 - a and more makes it 6, whatever the other is. That holds for both operands at once.

    Args:
        graph: float.
        name: of an activation.
        ranges: of all activations, whole.
    """
    consumers = graph.consumers(name)
    if len(consumers) == 1 and consumers[0].op == "add":
        low, high = ENDS[str(consumers[0].attrs["activation"])]
        others = [i for i in consumers[0].inputs if i != name]
        if len(others) == 1 and others[0] in ranges:
            return low - ranges[others[0]].high, high - ranges[others[0]].low
    return -math.inf, math.inf


def around_swishes(graph: Graph) -> set[str]:
    """Return the activations that a swish alone reads, and those that it makes."""
    found = set()
    for tensor in graph.activations():
        if saturating_consumer(graph, tensor.name) in SWISHES:
            made = (n.output for n in graph.consumers(tensor.name) if n.op in ("hard_swish", "gelu", "mish", "mul"))
            found |= {tensor.name, *made}
    return found


def positions_summed(graph: Graph, names: set[str]) -> int:
    """Return how many positions of a map one sum adds up: of the layers and means that read some activations.

    Through operations without weights, such as additions, the readers behind them count. 1 where none sums positions.

    Args:
        graph: float.
        names: of activations.
    """
    most, pending, seen = 1, sorted(names), set(names)
    while pending:
        name = pending.pop()
        for node in graph.consumers(name):
            attrs: Mapping[str, Any] = node.attrs
            if node.weighted:
                most = max(most, math.prod(graph.tensors[node.inputs[1]].shape[1:-1]))
            elif node.op == "mean":
                most = max(most, math.prod(graph.tensors[name].shape[1:-1]))
            elif node.op == "avg_pool2d":
                most = max(most, math.prod(attrs["kernel"]))
            elif node.output not in seen:
                seen.add(node.output)
                pending.append(node.output)
    return most
