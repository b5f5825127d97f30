"""Modules as users write them: what must be captured, and what must be refused."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """With statistics that are not the identity."""
    layer = nn.BatchNorm2d(channels)
    for values, low, high in (
        (layer.running_mean, -0.5, 0.5),
        (layer.running_var, 0.5, 2.0),
        (layer.weight.data, 0.5, 1.5),
        (layer.bias.data, -0.5, 0.5),
    ):
        nn.init.uniform_(values, low, high)
    return layer


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.bn = nn.Conv2d(3, 3, 3, padding=1, bias=False), batch_norm(3)

    def forward(self, x):
        return F.relu(self.bn(self.a(x)) + x)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.a(x)
        z = F.relu(y, inplace=True)
        return y + z


class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)

    def forward(self, x):
        x = F.silu(self.stem(x))
        return x * torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


class PaddedShortcut(nn.Module):
    """He et al. 2016, option A."""

    def forward(self, x):
        return F.pad(F.max_pool2d(x, 1, 2), (1, 0, 0, 0, 2, 1))


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 3, padding=1)

    def forward(self, x):
        return torch.cat([self.a(x), F.max_pool2d(self.b(x), 3, 1, 1)], 1)


class FlattenImage(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.fc = nn.Conv2d(3, 6, 5), nn.Linear(6 * 4 * 3, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.c(x)), 2)
        return self.fc(x.view(x.shape[0], -1))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.dead = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 9, 1)

    def forward(self, x):
        self.dead(x)
        return self.c(x)


class SharedLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.c(F.relu(self.c(x)))


class Normalised(nn.Module):
    """Preprocessing inside the network."""

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor([2.0, 1.5, 0.5]).reshape(1, 3, 1, 1))
        self.c = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.c(x * self.scale + 0.25)


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(channels, 5)]


GOOD = {
    "conv_bn_relu6": lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), batch_norm(8), nn.ReLU6(), *head(8)),
    "bn_first": lambda: nn.Sequential(batch_norm(3), nn.Conv2d(3, 4, 3), nn.ReLU()),
    "bn_after_relu": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), batch_norm(4), nn.Conv2d(4, 4, 1)),
    "linear_bn": lambda: nn.Sequential(*head(3), nn.BatchNorm1d(5)),
    "same_padding": lambda: nn.Sequential(nn.Conv2d(3, 4, 4, padding="same"), nn.Hardtanh(0, 6)),
    "zero_pad": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 4, 3, 2), nn.ReLU()),
    "dilated_grouped": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, dilation=2, padding=2), nn.Conv2d(6, 4, 3, groups=2)),
    "depthwise_multiplier": lambda: nn.Sequential(nn.Conv2d(3, 9, (3, 5), (2, 1), (1, 2), groups=3), nn.Hardswish()),
    "hard_sigmoid": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardsigmoid()),
    "avg_pools": lambda: nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)),
    "max_pool_ceil": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, 2, ceil_mode=True)),
    "adaptive_grid": lambda: nn.Sequential(nn.AdaptiveAvgPool2d((4, 2)), nn.Flatten(), nn.Linear(24, 3)),
    "softmax": lambda: nn.Sequential(*head(3), nn.Softmax(1)),
    "residual": Residual,
    "in_place": InPlace,
    "squeeze_excite": SqueezeExcite,
    "padded_shortcut": PaddedShortcut,
    "branches": Branches,
    "flatten_image": FlattenImage,
    "unused": Unused,
    "shared_layer": SharedLayer,
    "normalised": Normalised,
}


class Gelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.t = nn.Conv2d(3, 3, 3), nn.ConvTranspose2d(3, 3, 2)

    def forward(self, x):
        return torch.tanh(self.t(F.gelu(self.c(x))))


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x, x + 1


class Branchy(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


class WrongChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.c(x)


class Transposes(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


BAD = {  # module, what its one line must say
    "gelu": (Gelu, r"gelu.*zoo.py.*conv_transpose2d.*tanh.*Supported: "),
    "two_outputs": (TwoOutputs, "1 inputs and 2 outputs"),
    "control_flow": (Branchy, "control flow must not depend on data"),
    "wrong_channels": (WrongChannels, r"does not run on an input of shape \(1, 3, 12, 10\)"),
    "permute": (Transposes, "permute"),
    "half": (lambda: nn.Conv2d(3, 4, 1).half(), "float16 parameters; give it in float32"),
    "alpha": (lambda: _Lambda(lambda x: torch.add(x, x, alpha=2)), "alpha"),
    "clamp": (lambda: _Lambda(lambda x: x.clamp(-1, 3)), r"clamp to \[-1, 3\]"),
    "reflect": (lambda: nn.ReflectionPad2d(1), "pad"),
    "batch_statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), "batch norm without running statistics"),
}


class _Lambda(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)
