"""The rows that architectures are written in: one dataclass per kind of stage. No torch here.

A row knows how it changes the side of the image (``side_after``), so that an impossible resolution is found before
anything is built. Channels stand in it as they are built: multipliers and rounding are the family's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

ACTIVATIONS = ("none", "relu", "relu6", "silu", "hard_swish")
SAME, SYMMETRIC = "same", "symmetric"


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Return the nearest multiple of ``divisor``, at least one, and never more than 10 % below.

    Source: the channel rounding of the MobileNetV2 reference implementation (TensorFlow models, slim); EfficientNet's
    ``round_filters`` is the same.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class _Windowed:
    """A row whose first convolution alone has a stride.

    Attributes:
        kernel: side of its window, in pixels.
        stride: of its window.
        padding: pixels on each side; ``None`` is as the model's spec says, ``SAME`` by TensorFlow's rule.
    """

    kernel: int = 3
    stride: int
    padding: int | None = None

    def side_after(self, side: int, padding: str) -> int:
        """Return the side of the output of a square image, in pixels."""
        if padding == SAME and self.padding is None:
            return math.ceil(side / self.stride)
        pixels = self.kernel // 2 if self.padding is None else self.padding
        return (side + 2 * pixels - self.kernel) // self.stride + 1


@dataclass(frozen=True, kw_only=True)
class ConvRow(_Windowed):
    """A convolution, batch norm and an activation.

    Attributes:
        norm: with batch norm; without, the convolution has a bias.
        bias: the convolution has a bias all the same.
    """

    kernel: int
    stride: int = 1
    channels: int
    activation: str = "relu6"
    norm: bool = True
    bias: bool = False
    padding: int | None = None


@dataclass(frozen=True, kw_only=True)
class PoolRow:
    """Max pooling.

    Attributes:
        padding: pixels on each side.
        ceil: the last window may reach outside (``ceil_mode``).
    """

    kernel: int
    stride: int
    padding: int = 0
    ceil: bool = False

    def side_after(self, side: int, padding: str) -> int:
        """Return the side of the output of a square image, in pixels."""
        reach = side + 2 * self.padding - self.kernel
        if not self.ceil:
            return reach // self.stride + 1
        windows = math.ceil(reach / self.stride) + 1  # the last must start inside the image or its padding
        return windows - 1 if (windows - 1) * self.stride >= side + self.padding else windows


@dataclass(frozen=True, kw_only=True)
class SeparableRow(_Windowed):
    """A depthwise 3x3 convolution and a pointwise one, each with batch norm and ReLU6 (MobileNetV1, fig. 3)."""

    stride: int
    channels: int


@dataclass(frozen=True, kw_only=True)
class Squeeze:
    """Squeeze and excitation (Hu et al. 2018, section 3) inside an inverted residual.

    Attributes:
        channels: inside, from the channels of the block's input and of what is gated.
        activation: of the squeezed channels.
        gate: ``sigmoid`` or ``hard_sigmoid``.
    """

    channels: Callable[[int, int], int]
    activation: str
    gate: str


@dataclass(frozen=True, kw_only=True)
class InvertedRow(_Windowed):
    """``repeats`` inverted residuals; the first has ``stride``, the others 1 (MobileNetV2, table 1).

    Attributes:
        expand: channels inside, as a multiple of the input's, rounded to a multiple of 8.
        channels: output channels.
        repeats: blocks in the row.
        stride: of the first block.
        kernel: of the depthwise convolution.
        activation: after the expansion and after the depthwise convolution.
        squeeze: squeeze and excitation before the projection.
    """

    expand: float
    channels: int
    repeats: int = 1
    stride: int = 1
    kernel: int = 3
    activation: str = "relu6"
    squeeze: Squeeze | None = None


@dataclass(frozen=True, kw_only=True)
class BasicRow(_Windowed):
    """``repeats`` residual blocks of two 3x3 convolutions; the first has ``stride`` (He et al. 2016, fig. 5 left).

    Attributes:
        shortcut: where the shape changes, ``conv`` (1x1, option B of section 3.3) or ``pad`` (every ``stride``-th
            pixel, zeros for the new channels, option A); ``none``: a plain network, no shortcut anywhere.
    """

    channels: int
    repeats: int
    stride: int
    shortcut: str = "conv"


@dataclass(frozen=True, kw_only=True)
class BottleneckRow(_Windowed):
    """``repeats`` residual blocks 1x1, 3x3, 1x1; the first has ``stride`` (He et al. 2016, fig. 5 right).

    Attributes:
        inner: channels of the first two convolutions.
        channels: output channels.
    """

    inner: int
    channels: int
    repeats: int
    stride: int


@dataclass(frozen=True, kw_only=True)
class InceptionRow:
    """Four branches side by side: 1x1; 1x1 then 3x3, twice; 3x3 max pooling then 1x1 (Szegedy et al. 2015, fig. 2b).

    Attributes:
        auxiliary: in training, a classifier of its own reads this row's input.
    """

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int
    auxiliary: bool = False

    @property
    def channels(self) -> int:
        """Return those of the branches together."""
        return self.one + self.three + self.five + self.pool

    def side_after(self, side: int, padding: str) -> int:
        """Return the side of the output of a square image, in pixels."""
        return side


@dataclass(frozen=True, kw_only=True)
class LinearRow:
    """A hidden linear layer of the head, after pooling.

    Attributes:
        dropout_first: dropout before the layer (AlexNet) or after its activation (VGG).
    """

    features: int
    activation: str
    dropout: float = 0.0
    dropout_first: bool = False


Stage = ConvRow | PoolRow | SeparableRow | InvertedRow | BasicRow | BottleneckRow | InceptionRow
Row = Stage | LinearRow
