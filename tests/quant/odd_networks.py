"""Small float networks with the channels, weights and calibration images that break quantizers.

Weights are random; biases and gains are set from images, so that every layer is at work, as after batch normalization.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.interpreter import laid_out, run_node
from edgecnn.graph.ir import Constant, Graph, Metadata, Tensor
from edgecnn.graph.ops import make_node, output_shape

SIZE, PATTERNS, DRAWN = 12, 10, 128
CHANNELS = ("nothing", "dead", "rare", "constant", "outlier", "saturated", "on_grid")
IMAGES = ("few", "equal", "one_pattern")
ODD = CHANNELS + IMAGES
ACTIVATIONS = ("relu", "relu6", "hard_swish")

Images = NDArray[np.float32]


def network(odd: str, seed: int) -> Graph:
    """Return a network of inverted residual blocks, some with squeeze-excite, that has an odd kind of channels."""
    rng = np.random.default_rng([seed, 1])
    activation = "relu6" if odd == "saturated" else ACTIVATIONS[seed % 3]
    b = _Builder(rng, images(seed, DRAWN, 2), activation, odd)
    x, channels = b.conv(b.input, 8, kernel=3, stride=2, activated=True), 8
    for _ in range(2):
        made = int(rng.choice([channels, channels + 4]))
        wide = b.conv(x, 3 * channels, activated=True)
        wide = b.conv(wide, 3 * channels, kernel=3, groups=3 * channels, activated=True)
        if rng.random() < 0.3:
            wide = b.squeeze_excite(wide)
        out = b.conv(wide, made)
        x, channels = (b.op("add", x, out) if made == channels else out), made
    b.fully_connected(b.op("mean", b.conv(x, 24, activated=True)), 10)
    return b.graph()


def images(seed: int, count: int, part: int, *, patterns: int = PATTERNS) -> Images:
    """Return network inputs (count, H, W, 3): smooth, of several patterns; each ``part`` of a seed has others."""
    kinds, rng = np.random.default_rng([seed, 0]), np.random.default_rng([seed, part, 3])
    smooth = _smooth(kinds, PATTERNS)[rng.integers(0, patterns, count)] + 0.5 * _smooth(rng, count)
    contrast = np.exp(rng.normal(0, 0.4, (count, 1, 1, 1)))
    return (contrast * (smooth + 0.1 * rng.normal(0, 1, smooth.shape))).astype(np.float32)


def calibration(odd: str, seed: int, count: int = 48) -> Images:
    """Return the calibration images of a network."""
    if odd == "few":
        return images(seed, 8, 4)
    if odd == "equal":
        return np.repeat(images(seed, 1, 4), count, axis=0)
    return images(seed, count, 4, patterns=1 if odd == "one_pattern" else PATTERNS)


def _smooth(rng: np.random.Generator, count: int) -> Images:
    drawn = np.cumsum(np.cumsum(rng.normal(0, 1, (count, SIZE, SIZE, 3)), axis=1), axis=2)
    return np.asarray(drawn / np.sqrt(np.square(drawn).mean(axis=(1, 2, 3), keepdims=True)), np.float32)


class _Builder:
    """Hold a network under way, and what images make of it so far."""

    def __init__(self, rng: np.random.Generator, x: Images, activation: str, odd: str) -> None:
        self.rng, self.activation, self.odd, self.input = rng, activation, odd, "input"
        self.nodes: list[Any] = []
        self.tensors: dict[str, Tensor] = {"input": Tensor(name="input", shape=(1, *x.shape[1:]))}
        self.values = {"input": laid_out(x)}
        self.sizes: dict[str, NDArray[np.float64]] = {}  # of channels, beside the usual ones

    def op(self, op: str, *inputs: str, **attrs: Any) -> str:
        node = make_node(op, inputs, f"{op}_{len(self.nodes)}", f"odd.{op}_{len(self.nodes)}", **attrs)
        shape = output_shape(node, [self.tensors[i].shape for i in inputs])
        self.nodes.append(node)
        self.tensors[node.output] = Tensor(name=node.output, shape=shape)
        given = [laid_out(t.value) if isinstance(t := self.tensors[i], Constant) else self.values[i] for i in inputs]
        self.values[node.output] = run_node(node, given).clone()
        return node.output

    def conv(self, x: str, channels: int, *, kernel: int = 1, stride: int = 1, groups: int = 1,
             activated: bool = False) -> str:  # fmt: skip
        inside = self.tensors[x].shape[-1] // groups
        weight = self.rng.normal(0, 1, (channels, kernel, kernel, inside)) / math.sqrt(kernel * kernel * inside)
        attrs = {"stride": (stride, stride), "padding": (kernel // 2,) * 4, "groups": groups}
        return self._weighted("conv2d", x, weight, attrs, activated)

    def fully_connected(self, x: str, channels: int) -> str:
        weight = self.rng.normal(0, 1, (channels, self.tensors[x].shape[-1])) / math.sqrt(self.tensors[x].shape[-1])
        return self._weighted("fully_connected", x, weight, {}, activated=False)

    def squeeze_excite(self, x: str) -> str:
        channels = self.tensors[x].shape[-1]
        squeezed = self._weighted(
            "conv2d",
            self.op("mean", x, keepdims=True),
            self.rng.normal(0, 0.3, (4, 1, 1, channels)),
            {},
            activated=True,
        )
        return self.op("mul", x, self.op("sigmoid", self.conv(squeezed, channels)))

    def graph(self) -> Graph:
        outputs = (self.nodes[-1].output,)
        return Graph(nodes=tuple(self.nodes), tensors=self.tensors, inputs=("input",), outputs=outputs,
                     metadata=Metadata(model="odd"))  # fmt: skip

    def _weighted(self, op: str, x: str, weight: Any, attrs: dict[str, Any], activated: bool) -> str:
        """Add a layer whose sums have random means and deviations near 1, and the odd channel behind an activation."""
        depthwise = attrs.get("groups", 1) > 1
        if x in self.sizes and not depthwise:
            weight = weight / self.sizes[x]
        node = make_node(op, (x, "w", "b"), "y", "odd", **attrs)
        made = run_node(node, [self.values[x], laid_out(weight.astype(np.float32)), torch.zeros(len(weight))])
        over = (0, 2, 3) if made.ndim == 4 else (0,)
        mean, deviation = made.mean(over).double().numpy(), made.std(over).double().numpy()
        gain = np.exp(self.rng.normal(0, 0.5, len(weight))) / np.maximum(deviation, 1e-2)
        bias = self.rng.normal(0, 0.5, len(weight)) - mean * gain
        sizes = np.ones(len(weight))
        sums = made.double().numpy() * gain.reshape(1, -1, *[1] * (made.ndim - 2))
        if activated and self.rng.random() < 0.7:
            self._plant(int(self.rng.integers(len(weight))), sums, gain, bias, sizes)
        weight = (weight * gain.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.float32)
        if self.odd == "on_grid":
            step = np.abs(weight).reshape(len(weight), -1).max(1).reshape(-1, *[1] * (weight.ndim - 1)) / 127
            weight = (np.rint(weight / step) * step).astype(np.float32)
        names = [f"{op}_{len(self.nodes)}.{part}" for part in ("weight", "bias")]
        for name, value in zip(names, (weight, bias.astype(np.float32)), strict=True):
            self.tensors[name] = Constant(name=name, value=value)
        fused = self.activation if activated and self.activation != "hard_swish" else "none"
        name = self.op(op, x, *names, activation=fused, **attrs)
        if activated and self.activation == "hard_swish":
            name = self.op("hard_swish", name)
        self.sizes[name] = sizes
        return name

    def _plant(self, at: int, sums: Any, gain: Any, bias: Any, sizes: Any) -> None:
        """Make one channel odd, by its gain and bias."""
        highest = np.sort(sums[:, at].reshape(len(sums), -1).max(1))
        if self.odd == "dead":
            bias[at] = -highest[-1] * 2 - 4
        elif self.odd == "rare":  # one image in 64 opens it, and then it is the largest channel
            threshold = highest[-1 - len(highest) // 64]
            more = 20 / max(highest[-1] - threshold, 1e-3)
            gain[at] *= more
            bias[at] = -threshold * more
        elif self.odd == "constant":
            gain[at], bias[at] = 0, self.rng.uniform(0.5, 5)
        elif self.odd == "outlier":
            more = self.rng.uniform(10, 100)
            gain[at], bias[at], sizes[at] = gain[at] * more, bias[at] * more, more ** self.rng.uniform(0.5, 1)
        elif self.odd == "saturated":
            bias[at] += 7
