"""Channel splitting: channels that are always zero carry copies of others, which a grid then rounds finer than it is.

Training with weight decay leaves channels whose weights are nothing and whose ReLU never opens: 8 of the first 32 of
Google's MobileNetV2. The rounding of the others is the largest part of its noise there. So a channel ``k`` is made
again in such a place: by the weights of ``k``, through the depthwise layers that follow, up to the layer that reads
them all, which takes the mean of the ``n`` places where ``k`` is now. Before they are rounded, they are moved against
one another by ``1 / n`` of a step of the grid: their mean is what a grid with ``n`` times as many steps would hold, and
the noise is ``1 / n**2`` of what it was. The moves add up to nothing, so that the mean is right also where all of them
are clipped, and on the border that a padding makes.

The network computes the same on the same channels: its shapes, its operations and its latency stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Graph, Node, Quantized
from edgecnn.quant.step import Stage, Step, Work, setting

Reals = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class ChannelSplitting(Step):
    """Split the most sensitive channels over channels that are always zero, whatever the image is.

    Source: Zhao et al. 2019, "Improving Neural Network Quantization without Retraining using Outlier Channel
    Splitting", section 3.3 (halves that are moved by a quarter of a step, of new channels there). Which channels: those
    of largest gradient sensitivity.
    """

    before, after = Stage.FINAL, Stage.FINAL
    limitable = True

    images: int = setting(16, "calibration images on which gradients are taken", low=1)

    def apply(self, work: Work) -> Work:
        from edgecnn.quant.observers.gradient_sensitivity import gradient_sensitivity

        graph, images = work.graph, work.images[: self.images]
        for chain in chains(graph):
            dead = np.flatnonzero(_highest(graph, chain) <= 0)
            if len(dead) and self.selects(chain.layers[0]):
                (weight,) = gradient_sensitivity(graph, [chain.layers[0].output], images).values()
                graph = _copied(graph, chain, _places(weight, dead))
        return replace(work, graph=graph)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Name layers through which channels stay apart, from the layer that makes them to those that read them all.

    Attributes:
        layers: a convolution without groups, and the depthwise ones behind it.
        consumers: convolutions without groups.
    """

    layers: tuple[Node, ...]
    consumers: tuple[Node, ...]


def chains(graph: Graph) -> Iterator[Chain]:
    """Yield chains of int8 activations that end in a ReLU or ReLU6."""
    for node in graph:
        if node.op != "conv2d" or node.attrs["groups"] != 1:
            continue
        layers = [node]
        while len(after := graph.consumers(layers[-1].output)) == 1 and _is_depthwise(graph, after[0]):
            layers += after
        closes = layers[-1].attrs["activation"] in ("relu", "relu6")
        dense = all(n.op == "conv2d" and n.attrs["groups"] == 1 for n in after)
        made = [graph.tensors[n.output] for n in layers]
        inside = after and layers[-1].output not in graph.outputs
        if inside and closes and dense and all(isinstance(t, Quantized) and t.quant.dtype == "int8" for t in made):
            yield Chain(layers=tuple(layers), consumers=tuple(after))


def _is_depthwise(graph: Graph, node: Node) -> bool:
    """Tell whether a convolution makes each channel of its input's alone."""
    return (
        node.op == "conv2d"
        and node.attrs["groups"] == graph.tensors[node.inputs[0]].shape[-1] > 1
        and graph.tensors[node.output].shape[-1] == node.attrs["groups"]
    )


def _highest(graph: Graph, chain: Chain) -> Reals:
    """Return the largest value that each channel's sums can have in the chain's last layer, whatever the image is."""
    quant = graph.quant(chain.layers[0].inputs[0])
    low, high = (np.array([[[end]]]) for end in (np.array(quant.limits) - quant.zero_point) * float(quant.scale[0]))
    for node in chain.layers:
        weight, bias = (graph.constant(name).value.astype(np.float64) for name in node.inputs[1:])
        rows = weight.reshape(len(weight), -1, weight.shape[-1])
        products = rows * np.minimum(low, 0), rows * np.maximum(high, 0)  # a padding holds zeros
        most: Reals = bias + np.maximum(*products).sum(axis=(1, 2))
        least: Reals = bias + np.minimum(*products).sum(axis=(1, 2))
        positive = node.attrs["activation"] in ("relu", "relu6")
        low, high = (np.maximum(end, 0 if positive else end)[:, None, None] for end in (least, most))
    return most


def _places(weight: Reals, dead: NDArray[np.int64]) -> dict[int, list[int]]:
    """Return the places of each copied channel, itself first: a dead one goes to where it takes most noise."""
    weight = weight.copy()
    weight[dead] = 0
    count, places = np.ones(len(weight)), dict[int, list[int]]()
    for place in dead:
        k = int(np.argmax(weight * (1 / count**2 - 1 / (count + 1) ** 2)))
        count[k] += 1
        places.setdefault(k, [k]).append(int(place))
    return places


def _copied(graph: Graph, chain: Chain, places: dict[int, list[int]]) -> Graph:
    values = {
        name: graph.constant(name).value.astype(np.float64)
        for node in (*chain.layers, *chain.consumers)
        for name in node.inputs[1:]
    }
    for k, taken in places.items():
        moves = (np.arange(len(taken)) - (len(taken) - 1) / 2) / len(taken)  # of a step
        before = np.zeros(len(taken))
        for node in chain.layers:
            weight, bias = (values[name] for name in node.inputs[1:])
            after = moves * float(graph.quant(node.output).scale[0])
            weight[taken], bias[taken] = weight[k], bias[k] + after - before * weight[k].sum()
            before = after
        for node in chain.consumers:
            weight = values[node.inputs[1]]
            weight[..., taken] = weight[..., k, None] / len(taken)
    return graph.with_tensors(
        *(replace(graph.constant(name), value=value.astype(np.float32)) for name, value in values.items())
    )
