"""The blocks as torch modules. Inputs and outputs are NCHW float32."""

from __future__ import annotations

import math

import torch
from torch import nn

from edgecnn.graph.ops import same_padding
from edgecnn.models.spec import FAMILIES, ConvRow, InvertedRow, ModelSpec, SeparableRow


class ConvBlock(nn.Module):
    """Padding, convolution, batch norm (unless folded) and ReLU6 (unless linear).

    ``size`` is the input's side in pixels: TensorFlow ``SAME`` padding depends on it, and is asymmetric where the
    stride is 2 and the side is even.
    """

    def __init__(
        self, spec: ModelSpec, size: int, inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1,
        linear: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        before, after = same_padding(size, kernel, stride) if spec.padding == "same" else (kernel // 2, kernel // 2)
        self.pad = nn.Identity() if before == after else nn.ZeroPad2d((before, after, before, after))
        padding = before if before == after else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=spec.folded)
        self.bn = nn.Identity() if spec.folded else nn.BatchNorm2d(outputs, eps=spec.bn_eps)
        self.act = nn.Identity() if linear else nn.ReLU6()
        self.size = (size + before + after - kernel) // stride + 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, size, size) to (N, outputs, self.size, self.size)."""
        out: torch.Tensor = self.act(self.bn(self.conv(self.pad(x))))
        return out


class Separable(nn.Module):
    """Depthwise 3x3, then pointwise (MobileNetV1, fig. 3)."""

    def __init__(self, spec: ModelSpec, size: int, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvBlock(spec, size, inputs, inputs, kernel=3, stride=stride, groups=inputs)
        self.pointwise = ConvBlock(spec, self.depthwise.size, inputs, outputs, kernel=1)
        self.size = self.pointwise.size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, size, size) to (N, outputs, self.size, self.size)."""
        out: torch.Tensor = self.pointwise(self.depthwise(x))
        return out


class InvertedResidual(nn.Module):
    """Expand 1x1 (unless by 1), depthwise 3x3, linear project 1x1; plus the input where shapes allow (V2, fig. 4)."""

    def __init__(self, spec: ModelSpec, size: int, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = nn.Identity() if expand == 1 else ConvBlock(spec, size, inputs, hidden, kernel=1)
        self.depthwise = ConvBlock(spec, size, hidden, hidden, kernel=3, stride=stride, groups=hidden)
        self.project = ConvBlock(spec, self.depthwise.size, hidden, outputs, kernel=1, linear=True)
        self.residual = stride == 1 and inputs == outputs
        self.size = self.project.size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, size, size) to (N, outputs, self.size, self.size)."""
        out: torch.Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class Classifier(nn.Module):
    """Rows, global average pooling, dropout, one linear layer. (N, 3, R, R) to logits (N, num_classes)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        blocks: list[nn.Module] = []
        size, channels = spec.resolution, 3
        for row in spec.rows:
            for block in _blocks(spec, row, size, channels):
                blocks.append(block)
                size = block.size
                channels = row.channels
        self.features = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(FAMILIES[spec.family].dropout)
        self.classifier = nn.Linear(channels, spec.num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, R, R) to logits (N, num_classes)."""
        out: torch.Tensor = self.classifier(self.dropout(self.features(x).mean(dim=(2, 3))))
        return out


def _blocks(
    spec: ModelSpec, row: ConvRow | SeparableRow | InvertedRow, size: int, channels: int
) -> list[ConvBlock | Separable | InvertedResidual]:
    match row:
        case ConvRow():
            return [ConvBlock(spec, size, channels, row.channels, kernel=row.kernel, stride=row.stride)]
        case SeparableRow():
            return [Separable(spec, size, channels, row.channels, row.stride)]
        case InvertedRow():
            first = InvertedResidual(spec, size, channels, row.channels, row.stride, row.expand)
            out: list[ConvBlock | Separable | InvertedResidual] = [first]
            for _ in range(row.repeats - 1):
                out.append(InvertedResidual(spec, first.size, row.channels, row.channels, 1, row.expand))
            return out


def build(spec: ModelSpec) -> Classifier:
    """The module of a spec, in evaluation mode, with torch's present random state.

    He initialisation by fan out (He et al. 2015, section 2.2), counted within a group: torch's own counts a depthwise
    kernel's outputs over all groups, and activations would vanish.
    """
    model = Classifier(spec)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = math.prod(module.kernel_size) * module.out_channels / module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return model.eval()
