"""Consumers that saturate: ranges and biases are chosen by the error after them.

A swish is nearly 0 far below 0, a sigmoid nearly constant at both ends. Steps of a grid spent there are lost, so where
nothing else reads an activation, its range is chosen by the error after that function (``observers.clipping``), and its
layer's bias is corrected by the error after it (``bias_shift``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from edgecnn.graph.ir import Graph

Nonlinearity = Callable[[torch.Tensor], torch.Tensor]
SWISHES: tuple[Nonlinearity, ...] = (F.silu, F.hardswish, F.gelu, F.mish)
"""What saturates below zero alone. GELU by tanh is GELU here."""


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


def around_swishes(graph: Graph) -> set[str]:
    """Return the activations that a swish alone reads, and those that it makes."""
    found = set()
    for tensor in graph.activations():
        if saturating_consumer(graph, tensor.name) in SWISHES:
            made = (n.output for n in graph.consumers(tensor.name) if n.op in ("hard_swish", "gelu", "mish", "mul"))
            found |= {tensor.name, *made}
    return found
