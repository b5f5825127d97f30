"""The torch modules that rows are built of. Inputs and outputs are NCHW float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from edgecnn.graph.ops import same_padding
from edgecnn.models.rows import SAME, BasicRow, BottleneckRow, InceptionRow, InvertedRow, Squeeze, make_divisible
from edgecnn.models.spec import ModelSpec

ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "relu6": nn.ReLU6, "silu": nn.SiLU, "hard_swish": nn.Hardswish}
GATES = {"sigmoid": nn.Sigmoid, "hard_sigmoid": nn.Hardsigmoid}


class ConvBlock(nn.Sequential):
    """Padding, convolution, batch norm (unless folded, or without) and an activation: (N, inputs, size, size) to
    (N, outputs, self.size, self.size).

    ``size`` is the input's side in pixels: TensorFlow ``SAME`` padding depends on it, and is asymmetric where the
    stride is 2 and the side is even. ``padding`` in pixels goes before the spec's.
    """

    def __init__(
        self, spec: ModelSpec, size: int, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1,
        activation: str = "relu6", norm: bool = True, bias: bool = False, padding: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        before = after = kernel // 2 if padding is None else padding
        if spec.padding == SAME and padding is None:
            before, after = same_padding(size, kernel, stride)
        self.pad = nn.Identity() if before == after else nn.ZeroPad2d((before, after, before, after))
        normed = norm and not spec.folded
        inside = before if before == after else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, inside, groups=groups, bias=bias or not normed)
        self.bn = nn.BatchNorm2d(outputs, eps=spec.bn_eps) if normed else nn.Identity()
        self.act = ACTIVATIONS[activation]()
        self.size = (size + before + after - kernel) // stride + 1


class Separable(nn.Sequential):
    """Depthwise 3x3, then pointwise (MobileNetV1, fig. 3): (N, inputs, size, size) to (N, outputs, self.size, …)."""

    def __init__(self, spec: ModelSpec, size: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvBlock(spec, size, inputs, inputs, kernel=3, stride=stride, groups=inputs)
        self.pointwise = ConvBlock(spec, self.depthwise.size, inputs, outputs, kernel=1)
        self.size = self.pointwise.size


class SqueezeExcite(nn.Module):
    """Channels gated by what two 1x1 convolutions make of their means (Hu et al. 2018, section 3)."""

    def __init__(self, squeeze: Squeeze, inputs: int, channels: int) -> None:
        super().__init__()
        inside = squeeze.channels(inputs, channels)
        self.reduce = nn.Conv2d(channels, inside, 1)
        self.act = ACTIVATIONS[squeeze.activation]()
        self.expand = nn.Conv2d(inside, channels, 1)
        self.gate = GATES[squeeze.gate]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, channels, H, W) to the same."""
        gate: torch.Tensor = self.gate(self.expand(self.act(self.reduce(x.mean(dim=(2, 3), keepdim=True)))))
        return x * gate


class DropConnect(nn.Module):
    """In training, whole images are zero with probability ``p``, others over 1 - p (Huang et al. 2016, section 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.p = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Take any shape whose first dimension is the batch."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand((x.shape[0], *[1] * (x.ndim - 1)), device=x.device) >= self.p
        return x * kept / (1 - self.p)


def set_drop_connect(module: nn.Module, probability: float) -> None:
    """Drop the last residual branch with ``probability``, the others in proportion to their place, 0 for none.

    Source: Huang et al. 2016, "Deep Networks with Stochastic Depth", equation 4.
    """
    branches = [m for m in module.modules() if isinstance(m, DropConnect)]
    for place, branch in enumerate(branches):
        branch.p = probability * place / len(branches)


class InvertedResidual(nn.Module):
    """Expand 1x1 (unless by 1), depthwise, squeeze and excitation (if wanted), linear project 1x1; plus the input where
    shapes allow (V2, fig. 4; EfficientNet's MBConv)."""

    def __init__(self, spec: ModelSpec, size: int, inputs: int, row: InvertedRow, stride: int) -> None:
        super().__init__()
        hidden = inputs if row.expand == 1 else make_divisible(inputs * row.expand)
        act = row.activation
        self.expand: nn.Module = nn.Identity()
        if row.expand != 1:
            self.expand = ConvBlock(spec, size, inputs, hidden, kernel=1, activation=act)
        self.depthwise = ConvBlock(
            spec, size, hidden, hidden, kernel=row.kernel, stride=stride, groups=hidden, activation=act
        )
        self.squeeze = nn.Identity() if row.squeeze is None else SqueezeExcite(row.squeeze, inputs, hidden)
        self.project = ConvBlock(spec, self.depthwise.size, hidden, row.channels, kernel=1, activation="none")
        self.residual = stride == 1 and inputs == row.channels
        self.drop = DropConnect() if self.residual else nn.Identity()
        self.size = self.project.size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, size, size) to (N, outputs, self.size, self.size)."""
        out: torch.Tensor = self.drop(self.project(self.squeeze(self.depthwise(self.expand(x)))))
        return x + out if self.residual else out


class PadShortcut(nn.Module):
    """Every ``stride``-th pixel, and zeros for the new channels, half of them in front (He et al. 2016, option A).

    Taking every second pixel is a pooling of one pixel: the op set, and every target, has a word for it.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.front = stride, (outputs - inputs) // 2
        self.back = outputs - inputs - self.front

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, H, W) to (N, outputs, ceil(H / stride), ceil(W / stride))."""
        return F.pad(F.max_pool2d(x, 1, self.stride), (0, 0, 0, 0, self.front, self.back))


class Residual(nn.Module):
    """A branch of convolutions plus a shortcut, then ReLU (He et al. 2016, equation 1)."""

    def __init__(self, spec: ModelSpec, size: int, inputs: int, row: BasicRow | BottleneckRow, stride: int) -> None:
        super().__init__()
        blocks = self._branch(spec, size, inputs, row, stride)
        self.branch, self.size = nn.ModuleList(blocks), blocks[-1].size
        self.drop = DropConnect()
        self.shortcut: nn.Module = nn.Identity()
        self.plain = isinstance(row, BasicRow) and row.shortcut == "none"
        if (stride != 1 or inputs != row.channels) and not self.plain:
            if isinstance(row, BasicRow) and row.shortcut == "pad":
                self.shortcut = PadShortcut(inputs, row.channels, stride)
            else:
                self.shortcut = ConvBlock(spec, size, inputs, row.channels, kernel=1, stride=stride, activation="none")

    @staticmethod
    def _branch(spec: ModelSpec, size: int, inputs: int, row: BasicRow | BottleneckRow, stride: int) -> list[ConvBlock]:
        if isinstance(row, BasicRow):
            first = ConvBlock(spec, size, inputs, row.channels, kernel=3, stride=stride, activation="relu")
            return [first, ConvBlock(spec, first.size, row.channels, row.channels, kernel=3, activation="none")]
        early, late = (stride, 1) if spec.stride_in == "1x1" else (1, stride)
        reduce = ConvBlock(spec, size, inputs, row.inner, kernel=1, stride=early, activation="relu")
        middle = ConvBlock(spec, reduce.size, row.inner, row.inner, kernel=3, stride=late, activation="relu")
        return [reduce, middle, ConvBlock(spec, middle.size, row.inner, row.channels, kernel=1, activation="none")]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, size, size) to (N, outputs, self.size, self.size)."""
        out = x
        for block in self.branch:
            out = block(out)
        return F.relu(out if self.plain else self.drop(out) + self.shortcut(x))


class Inception(nn.Module):
    """Four branches side by side (Szegedy et al. 2015, fig. 2b; the second 3x3 is the paper's 5x5)."""

    def __init__(self, spec: ModelSpec, size: int, inputs: int, row: InceptionRow) -> None:
        super().__init__()

        def conv(channels: int, outputs: int, kernel: int) -> ConvBlock:
            return ConvBlock(spec, size, channels, outputs, kernel=kernel, activation="relu")

        self.one = conv(inputs, row.one, 1)
        self.three = nn.Sequential(conv(inputs, row.three_reduce, 1), conv(row.three_reduce, row.three, 3))
        self.five = nn.Sequential(conv(inputs, row.five_reduce, 1), conv(row.five_reduce, row.five, 3))
        self.pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, row.pool, 1))
        self.size = size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, size, size) to (N, row.channels, size, size)."""
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pool(x)], 1)


class Auxiliary(nn.Module):
    """A classifier on an inner map, for training: 4x4 means, 1x1 to 128, 1024, dropout (Szegedy 2015, section 5)."""

    def __init__(self, spec: ModelSpec, size: int, inputs: int) -> None:
        super().__init__()
        self.grid = min(4, size)
        self.conv = ConvBlock(spec, self.grid, inputs, 128, kernel=1, activation="relu")
        self.hidden = nn.Linear(128 * self.grid**2, 1024)
        self.dropout = nn.Dropout(0.7)
        self.classifier = nn.Linear(1024, spec.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs, size, size) to logits (N, num_classes)."""
        flat = self.conv(F.adaptive_avg_pool2d(x, self.grid)).flatten(1)
        out: torch.Tensor = self.classifier(self.dropout(F.relu(self.hidden(flat))))
        return out
