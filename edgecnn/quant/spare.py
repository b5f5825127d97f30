"""Channels that no image reaches carry copies of others, which a grid then rounds finer than it is.

Training with weight decay leaves channels whose weights are nothing and whose ReLU never opens: 8 of the first 32 of
Google's MobileNetV2. The rounding of the others is the largest part of its noise there. So a channel ``k`` is made
again in such a place: by the weights of ``k``, through the depthwise layers that follow, up to the layer that reads
them all, which takes the mean of the ``n`` places where ``k`` is now. Before they are rounded, they are moved against
one another by ``1 / n`` of a step of the grid: their mean is what a grid with ``n`` times as many steps would hold, and
the noise is ``1 / n**2`` of what it was. The moves add up to nothing, so that the mean is right also where all of them
are clipped, and on the border that a padding makes.

The network computes the same on the same channels: its shapes, its operations and its latency stay.

Source: Zhao et al. 2019, "Improving Neural Network Quantization without Retraining using Outlier Channel Splitting",
section 3.3 (halves that are moved by a quarter of a step, of new channels there). Which channels: those whose rounding
the logits feel most (``felt.py``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node
from edgecnn.quant.felt import Reals, felt


@dataclass(frozen=True, kw_only=True)
class Lane:
    """Channels that stay apart from the layer that makes them to those that read them all.

    Attributes:
        layers: a convolution without groups, and the depthwise ones behind it.
        readers: convolutions without groups.
    """

    layers: tuple[Node, ...]
    readers: tuple[Node, ...]


def copy_into_spare(graph: Graph, images: NDArray[np.float32]) -> Graph:
    """The float graph with copies of its most felt channels in those that are always zero.

    Args:
        graph: float values, activations with their grids.
        images: (N, H, W, C) network inputs, on which the gradients are taken; some ``felt.IMAGES``.
    """
    for lane in lanes(graph):
        spare = np.flatnonzero(_highest(graph, lane) <= 0)
        if len(spare):
            (weight,) = felt(graph, [lane.layers[0].output], images).values()
            graph = _copied(graph, lane, _places(weight, spare))
    return graph


def lanes(graph: Graph) -> Iterator[Lane]:
    """Lanes of int8 activations that end in a ReLU or ReLU6."""
    for node in graph:
        if node.op != "conv2d" or node.attrs["groups"] != 1:
            continue
        layers = [node]
        while len(after := graph.consumers(layers[-1].output)) == 1 and _is_depthwise(graph, after[0]):
            layers += after
        closes = layers[-1].attrs["activation"] in ("relu", "relu6")
        dense = all(n.op == "conv2d" and n.attrs["groups"] == 1 for n in after)
        quants = [graph.tensors[n.output].quant for n in layers]
        inside = after and layers[-1].output not in graph.outputs
        if inside and closes and dense and all(q is not None and q.dtype == "int8" for q in quants):
            yield Lane(layers=tuple(layers), readers=tuple(after))


def _is_depthwise(graph: Graph, node: Node) -> bool:
    """Whether a convolution makes each channel of its input's alone."""
    return (
        node.op == "conv2d"
        and node.attrs["groups"] == graph.tensors[node.inputs[0]].shape[-1] > 1
        and graph.tensors[node.output].shape[-1] == node.attrs["groups"]
    )


def _highest(graph: Graph, lane: Lane) -> Reals:
    """The largest value that each channel's sums can have in the lane's last layer, whatever the image is."""
    quant = graph.tensors[lane.layers[0].inputs[0]].quant
    assert quant is not None
    low, high = (np.array([[[end]]]) for end in (np.array(quant.limits) - quant.zero_point) * float(quant.scale[0]))
    for node in lane.layers:
        weight, bias = (_value(graph, name) for name in node.inputs[1:])
        rows = weight.reshape(len(weight), -1, weight.shape[-1])
        products = rows * np.minimum(low, 0), rows * np.maximum(high, 0)  # a padding holds zeros
        most: Reals = bias + np.maximum(*products).sum(axis=(1, 2))
        least: Reals = bias + np.minimum(*products).sum(axis=(1, 2))
        positive = node.attrs["activation"] in ("relu", "relu6")
        low, high = (np.maximum(end, 0 if positive else end)[:, None, None] for end in (least, most))
    return most


def _places(weight: Reals, spare: NDArray[np.int64]) -> dict[int, list[int]]:
    """Where each channel that is copied is then, itself first: each spare place goes to where it takes most noise."""
    weight = weight.copy()
    weight[spare] = 0
    count, places = np.ones(len(weight)), dict[int, list[int]]()
    for place in spare:
        k = int(np.argmax(weight * (1 / count**2 - 1 / (count + 1) ** 2)))
        count[k] += 1
        places.setdefault(k, [k]).append(int(place))
    return places


def _copied(graph: Graph, lane: Lane, places: dict[int, list[int]]) -> Graph:
    values = {name: _value(graph, name) for node in (*lane.layers, *lane.readers) for name in node.inputs[1:]}
    for k, taken in places.items():
        moves = (np.arange(len(taken)) - (len(taken) - 1) / 2) / len(taken)  # of a step
        before = np.zeros(len(taken))
        for node in lane.layers:
            weight, bias = (values[name] for name in node.inputs[1:])
            quant = graph.tensors[node.output].quant
            assert quant is not None
            after = moves * float(quant.scale[0])
            weight[taken], bias[taken] = weight[k], bias[k] + after - before * weight[k].sum()
            before = after
        for node in lane.readers:
            weight = values[node.inputs[1]]
            weight[..., taken] = weight[..., k, None] / len(taken)
    return graph.with_tensors(
        *(replace(graph.tensors[name], value=value.astype(np.float32)) for name, value in values.items())
    )


def _value(graph: Graph, name: str) -> Reals:
    value = graph.tensors[name].value
    assert value is not None
    return value.astype(np.float64)
