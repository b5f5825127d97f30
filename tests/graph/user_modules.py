"""Modules as users write them, which must be captured."""

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


class Function(nn.Module):
    """``function(self, x)``, on parts given by name: modules, parameters, plain tensors; ``buffers`` are registered."""

    def __init__(self, function, buffers=None, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)
        for name, value in (buffers or {}).items():
            self.register_buffer(name, value)

    def forward(self, x):
        return self.function(self, x)


def conv() -> nn.Conv2d:
    return nn.Conv2d(3, 3, 3, padding=1)


def relu_of_a_copy(m, x):
    y = m.c(x)
    z = y.clone()
    return F.relu_(y) + z


def in_place_chain(m, x):
    y = m.c(x)
    z = y
    y += m.c(y)
    F.relu_(y)
    y.mul_(0.5)
    return m.bn(y) + z


def relu_of_a_view(m, x):
    """The view is read on, what it is a view of is not."""
    y = m.c(x).flatten(1)
    F.relu_(y)
    return m.fc(y)


def tensorflow_padding(m, x):
    pads = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in x.shape[:1:-1]]
    return F.conv2d(F.pad(x, [p // 2 + p % 2 * i for p in pads for i in (0, 1)]), m.c.weight, m.c.bias, 2)


def functional(m, x):
    x = F.batch_norm(F.conv2d(x, m.c.weight, m.c.bias, padding="same"), m.bn.running_mean, m.bn.running_var)
    return F.linear(F.adaptive_avg_pool2d(F.hardswish(x), 1).flatten(1), m.fc.weight)


def hooked() -> nn.Module:
    layer = conv()
    layer.register_forward_pre_hook(lambda module, given: (given[0] * 2,))
    layer.register_forward_hook(lambda module, given, made: F.relu(made))
    return nn.Sequential(layer)


def tied() -> nn.Module:
    a, b = conv(), conv()
    b.weight = a.weight
    return nn.Sequential(a, nn.ReLU(), b)


def two_names() -> nn.Module:
    shared = conv()
    return nn.Sequential(nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared, nn.ReLU()))


def keeps_a_result(m, x):
    m.last = m.c(x)
    return m.last + 1


def norm_beside_its_input(m, x):
    y = m.c(x)
    return m.bn(y) + y


def first_of_two(m, x):
    return F.max_pool2d(x, 2, return_indices=True)[0]


def moved(m, x):
    return m.c(x.to(m.c.weight.device).cpu().float()) if x.device.type == "cpu" else x


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(channels, 5)]


GOOD = {
    "relu6_first": lambda: nn.Sequential(nn.ReLU6(), *head(3)),
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
    "relu_of_a_copy": lambda: Function(relu_of_a_copy, c=conv()),
    "in_place_chain": lambda: Function(in_place_chain, c=conv(), bn=batch_norm(3)),
    "in_place_on_a_copy": lambda: Function(lambda m, x: m.c(x.clone().mul_(2)) + x, c=conv()),
    "relu_of_a_view": lambda: Function(relu_of_a_view, c=conv(), fc=nn.Linear(360, 4)),
    "tensorflow_padding": lambda: Function(tensorflow_padding, c=conv()),
    "functional": lambda: Function(functional, c=conv(), bn=batch_norm(3), fc=nn.Linear(3, 4)),
    "hooked": hooked,
    "tied": tied,
    "two_names": two_names,
    "keeps_a_result": lambda: Function(keeps_a_result, c=conv()),
    "norm_beside_its_input": lambda: Function(norm_beside_its_input, c=conv(), bn=batch_norm(3)),
    "first_of_two": lambda: Function(first_of_two),
    "moved": lambda: Function(moved, c=conv()),
    "plain_tensor": lambda: Function(lambda m, x: x * m.scale, scale=torch.tensor([2.0, 3.0, 4.0]).reshape(1, 3, 1, 1)),
    "plain_weight": lambda: Function(lambda m, x: F.conv2d(x, m.w), w=torch.randn(4, 3, 3, 3)),
    "plain_number": lambda: Function(lambda m, x: x * float(m.scale), scale=torch.tensor(2.0)),
    "buffer_reshaped": lambda: Function(
        lambda m, x: x * m.scale[:, None, None] + m.shift.view(1, 3, 1, 1),
        buffers={"scale": torch.tensor([2.0, 3.0, 4.0]), "shift": torch.tensor([1.0, 2.0, 3.0])},
    ),
    "literal": lambda: Function(lambda m, x: x * torch.tensor(2.0) + torch.tensor([[[1.0]], [[2.0]], [[3.0]]])),
    "matmul": lambda: Function(lambda m, x: x.mean((2, 3)) @ m.fc.weight.t(), fc=nn.Linear(3, 4)),
    "fed_back": lambda: Function(lambda m, x: F.relu(x, inplace=False).add(x, alpha=1)),
    "channels_last": lambda: nn.Sequential(conv(), *head(3)).to(memory_format=torch.channels_last),
    "pad_of_conv": lambda: nn.Sequential(nn.Conv2d(3, 4, (2, 4), padding="same"), nn.Conv2d(4, 3, 3, padding="valid")),
}
