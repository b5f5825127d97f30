"""Modules as users write them: what must be captured, and what must be refused."""

from __future__ import annotations

import numpy as np
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


class Gelu(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.t = nn.Conv2d(3, 3, 3), nn.ConvTranspose2d(3, 3, 2)

    def forward(self, x):
        return torch.tanh(self.t(F.gelu(self.c(x))))


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x, x + 1


class WrongChannels(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.c(x)


def looks_and_hides_it(m, x):
    try:
        return x * float(x.max())
    except RuntimeError:
        return x


def base_read_after_a_view_changed(m, x):
    y = m.c(x)
    F.relu_(y.flatten(1))
    return y + 1


def view_read_after_its_base_changed(m, x):
    y = m.c(x)
    z = y.flatten(1)
    F.relu_(y)
    return m.fc(z)


def counts(m, x):
    m.seen += 1
    return m.c(x)


def replaces_its_weight(m, x):
    m.c.weight.data = m.c.weight.data * 2
    return m.c(x)


def into_an_argument(m, x):
    made = torch.empty_like(x)
    torch.add(x, x, out=made)
    return made


def autocast(m, x):
    with torch.autocast("cpu"):
        return m.c(x)


def standardised(m, x):
    return F.conv2d(x, m.c.weight - m.c.weight.mean((1, 2, 3), keepdim=True), m.c.bias)


READS = "looks at the data of a tensor.*user_modules.py:.*control flow must not depend on data"
COMPUTED = "a weight that is computed while the network runs.*user_modules.py:"
SHARES = "shares memory with one changed in place"


def wants_32(m, x):
    assert x.shape[-1] == 32, "32 pixels a side"
    return x


BAD = {  # module, what its one line must say
    "gelu": (Gelu, r"gelu.*user_modules.py.*conv_transpose2d.*tanh.*Supported: "),
    "two_outputs": (TwoOutputs, "1 input and 2 outputs"),
    "bool": (lambda: Function(lambda m, x: x + 1 if x.sum() > 0 else x - 1), READS),
    "item": (lambda: Function(lambda m, x: x * x.max().item()), READS),
    "numpy": (lambda: Function(lambda m, x: x * float(x.numpy().max())), READS),
    "array": (lambda: Function(lambda m, x: x * float(np.asarray(x).max())), READS),
    "dlpack": (lambda: Function(lambda m, x: x * float(np.from_dlpack(x).max())), READS),
    "tolist": (lambda: Function(lambda m, x: x * x.flatten().tolist()[0]), READS),
    "equal": (lambda: Function(lambda m, x: x if torch.equal(x, x) else x + 1), READS),
    "nonzero": (lambda: Function(lambda m, x: x[x > 0]), READS),
    "parameter_item": (lambda: Function(lambda m, x: x * m.p.item(), p=nn.Parameter(torch.ones(1))), READS),
    "looks_and_hides_it": (lambda: Function(looks_and_hides_it), READS),
    "base_of_a_view": (
        lambda: Function(base_read_after_a_view_changed, c=conv()),
        f"add: .*{SHARES}.*user_modules.py:",
    ),
    "view_of_a_base": (
        lambda: Function(view_read_after_its_base_changed, c=conv(), fc=nn.Linear(360, 2)),
        f"linear: .*{SHARES} in fc at .*user_modules.py:",
    ),
    "stale_output": (lambda: Function(lambda m, x: (y := m.c(x), F.relu_(y.flatten(1)))[0], c=conv()), SHARES),
    "buffer_written": (
        lambda: Function(counts, buffers={"seen": torch.zeros(1)}, c=conv()),
        "add: writes into a param",
    ),
    "plain_written": (lambda: Function(counts, seen=torch.zeros(1), c=conv()), "add: writes into .* or a constant"),
    "data_replaced": (
        lambda: Function(replaces_its_weight, c=conv()),
        "conv2d: reads a tensor whose data was replaced",
    ),
    "out": (lambda: Function(into_an_argument), "add: writes into an argument"),
    "reshaped_in_place": (lambda: Function(lambda m, x: m.c(x).unsqueeze_(0), c=conv()), "changes a shape in place"),
    "weight_computed": (lambda: Function(standardised, c=conv()), f"conv2d: {COMPUTED}"),
    "weight_of_an_image": (lambda: Function(lambda m, x: F.conv2d(x, x)), f"conv2d: {COMPUTED}"),
    "zeros": (lambda: Function(lambda m, x: x + torch.zeros_like(x)), f"add: {COMPUTED}"),
    "dropout": (
        lambda: Function(lambda m, x: F.dropout(x, 0.5, training=True)),
        "dropout: random numbers.*user_modules.py:",
    ),
    "random": (lambda: Function(lambda m, x: x if torch.rand(1).item() < 2 else x + 1), "rand: random numbers"),
    "second_output": (
        lambda: Function(lambda m, x: F.max_pool2d(x, 2, return_indices=True)[1]),
        "the second output of an op",
    ),
    "no_image": (lambda: Function(lambda m, x: m.c.weight, c=conv()), "output does not depend on its input"),
    "flattened": (nn.Flatten, "returns a flattened image"),
    "two_inputs": (lambda: nn.Bilinear(3, 3, 3), "does not run on an input of shape .* missing 1 required positional"),
    "wrong_size": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), "mat1 and mat2 shapes cannot be multiplied"),
    "wrong_kernel": (
        lambda: nn.Conv2d(3, 3, 13),
        "does not run .* Kernel size can't be greater than actual input size",
    ),
    "linear_on_an_image": (
        lambda: nn.Sequential(nn.Linear(10, 4)),
        r"reshape: .*flattening an image.* in 0 at nn/modules",
    ),
    "other_bias": (lambda: Function(lambda m, x: torch.addmm(x.mean((2, 3)), x.mean((2, 3)), torch.eye(3))), COMPUTED),
    "scaled_bias": (
        lambda: Function(
            lambda m, x: torch.addmm(m.b, x.mean((2, 3)), torch.eye(3), beta=2), b=nn.Parameter(torch.ones(3))
        ),
        "linear: a",
    ),
    "autocast": (lambda: Function(autocast, c=conv()), "to in c at .*user_modules.py:"),
    "asserts": (lambda: Function(wants_32), r"does not run on an input of shape \(1, 3, 12, 10\): 32 pixels a side"),
    "no_such_key": (lambda: Function(lambda m, x: x * {"a": 1}["b"]), "does not run .* 'b'"),
    "divides_by_zero": (lambda: Function(lambda m, x: x * (1 // (x.shape[1] - 3))), "does not run .* by zero"),
    "wrong_channels": (WrongChannels, r"does not run on an input of shape \(1, 3, 12, 10\): .*to have 4 channels"),
    "permute": (lambda: Function(lambda m, x: x.permute(0, 2, 3, 1)), "permute"),
    "half": (lambda: nn.Conv2d(3, 4, 1).half(), "float16 parameters; give it in float32"),
    "alpha": (lambda: Function(lambda m, x: torch.add(x, x, alpha=2)), "alpha"),
    "reflect": (lambda: nn.ReflectionPad2d(1), "pad"),
    "batch_statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), "batch norm without running statistics"),
}
