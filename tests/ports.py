"""Networks whose inputs and outputs are other than one RGB image and one vector of logits, and samples for them."""

from __future__ import annotations

import numpy as np

from edgecnn.graph import layers, passes, reductions
from edgecnn.graph.batch import Batch
from edgecnn.graph.builder import Builder
from edgecnn.graph.ir import Metadata
from edgecnn.network import Network
from edgecnn.preprocess import Preprocess

FED = Preprocess(mean=127.5, std=127.5)


class _Made:
    """A builder with random weights."""

    def __init__(self):
        self.b, self.rng = Builder(), np.random.default_rng(0)

    def weights(self, *shape):
        return (self.rng.normal(0, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    def conv(self, x, channels, stride=2):
        image = layers.as_image(self.b, x)
        weight = self.weights(channels, 3, 3, self.b.held(image)[3])
        return self.b.weighted(
            "conv2d",
            image,
            weight,
            self.rng.normal(0, 0.1, channels).astype(np.float32),
            image.axes,
            stride=(stride, stride),
            padding=(1, 1, 1, 1),
            activation="relu",
        )

    def linear(self, x, features):
        size = self.b.shape(x)[-1]
        return layers.linear(
            self.b, x, self.weights(features, size), self.rng.normal(0, 0.1, features).astype(np.float32)
        )

    def pooled(self, x):
        return reductions.mean(self.b, x, (2, 3), keepdims=False)

    def network(self, name, outputs, preprocess=FED):
        graph = passes.simplify(self.b.graph(outputs, Metadata(model=name, preprocess=preprocess)))
        return Network(graph=graph, name=name)


def detector():
    """An image and a vector in; boxes, a hundred times as large, and scores out."""
    m = _Made()
    image, meta = m.b.input("image", (1, 3, 12, 12)), m.b.input("meta", (1, 4))
    seen = m.conv(m.conv(image, 8), 8)
    both = m.b.concat([m.pooled(seen), m.linear(meta, 6)], 1)
    boxes = m.b.reshape(m.b.binary("mul", m.linear(both, 12), 100.0), (1, 3, 4))
    return m.network("detector", [boxes, m.b.unary("sigmoid", m.linear(both, 3))])


def on_the_way():
    """Outputs that are read inside too, and one that only moves what another op makes."""
    m = _Made()
    image = m.b.input("image", (1, 3, 12, 12))
    first = m.conv(image, 8)
    pooled = m.pooled(m.conv(first, 8))
    return m.network("on_the_way", [first, pooled, m.b.reshape(pooled, (1, 2, 4)), m.linear(pooled, 3)])


def grey():
    """One channel in."""
    m = _Made()
    x = m.b.input("image", (1, 1, 16, 16))
    return m.network("grey", [m.linear(m.pooled(m.conv(m.conv(x, 8), 8)), 5)])


def four_channels():
    """Four channels in, an image out."""
    m = _Made()
    x = m.b.input("image", (1, 4, 12, 12))
    return m.network(
        "four_channels", [m.conv(m.conv(x, 8, 1), 2, 1)], Preprocess(mean=(1, 2, 3, 4), std=(50, 60, 70, 80))
    )


def audio():
    """A window of sound in: 1 channel, 64 samples."""
    m = _Made()
    x = m.b.input("audio", (1, 1, 64))
    made = layers.conv(m.b, x, m.weights(4, 1, 5, 1), None, stride=(1, 2), padding=(0, 0, 2, 2))
    made = layers.conv(m.b, m.b.unary("relu", made), m.weights(8, 1, 32, 4), None)
    return m.network("audio", [m.linear(m.b.reshape(made, (1, 8)), 3)], None)


def vector():
    """A vector in."""
    m = _Made()
    x = m.b.input("x", (1, 10))
    return m.network("vector", [m.linear(m.b.unary("relu", m.linear(x, 12)), 2)], None)


NETWORKS = {made.__name__: made for made in (detector, on_the_way, grey, four_channels, audio, vector)}


def samples(network, count=40, seed=1):
    """What a user gives: uint8 levels of images, float32 of others, by input."""
    rng, graph = np.random.default_rng(seed), network.graph
    return {
        name: rng.integers(0, 256, (count, *shape)).astype(np.uint8)
        if name == graph.image_input
        else rng.normal(0, 1, (count, *shape)).astype(np.float32)
        for name, shape in network.inputs.items()
    }


def inputs(network, count=16, seed=2):
    """Network inputs, float32."""
    from edgecnn.data.feed import Feed

    feed = Feed.of(network.graph)
    return Batch.of(network.graph.inputs, feed.inputs(feed.taken(samples(network, count, seed))))
