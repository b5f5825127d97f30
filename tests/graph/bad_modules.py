"""Modules as users write them, which must be refused, and what must be said of them."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from user_modules import Function, conv


class Unsupported(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.l = nn.Conv2d(3, 3, 3), nn.LSTM(8, 8)

    def forward(self, x):
        x = self.c(x).sin()
        return torch.cumsum(x, 1) + x.argsort(1)


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


READS = "looks at the data of a tensor.*bad_modules.py:.*control flow must not depend on data"
COMPUTED = "a weight that is computed from the input while the network runs.*bad_modules.py:"
SHARES = "shares memory with one changed in place"


def wants_32(m, x):
    assert x.shape[-1] == 32, "32 pixels a side"
    return x


BAD = {  # module, what its one line must say
    "unsupported": (
        Unsupported,
        r"sin in .*bad_modules.py.*cumsum.*a product with a triangular.*sort.*ops are supported.*models ops torch",
    ),
    "recurrent": (
        lambda: Function(lambda m, x: m.r(x.mean(2).mT)[0][:, -1], r=nn.GRU(3, 4, batch_first=True)),
        "GRU: a recurrent layer; convolutions over time are supported in r at .*bad_modules.py:",
    ),
    "passed_on": (lambda: Function(lambda m, x: (x, x + 1)), "returns its input 'input' as it came"),
    "one_output_twice": (lambda: Function(lambda m, x: {"a": x + 1, "b": 2}), "b is no tensor"),
    "zeros_added": (lambda: Function(lambda m, x: x + torch.zeros_like(x)), "returns its input 'input' as it came"),
    "compared": (lambda: Function(lambda m, x: (x > 1) * x), "gt in .*write it with clamp"),
    "masked": (
        lambda: Function(lambda m, x: torch.where(x > 0, x, 1)),
        "gt in .*where: a condition that depends on the inp",
    ),
    "causal": (
        lambda: Function(lambda m, x: F.scaled_dot_product_attention(x, x, x, is_causal=True)),
        "causal attention",
    ),
    "integers": (lambda: Function(lambda m, x: x.round().long()), "round in .*to: a tensor that becomes int64"),
    "bool": (lambda: Function(lambda m, x: x + 1 if x.sum() > 0 else x - 1), READS),
    "item": (lambda: Function(lambda m, x: x * x.max().item()), READS),
    "numpy": (lambda: Function(lambda m, x: x * float(x.numpy().max())), READS),
    "array": (lambda: Function(lambda m, x: x * float(np.asarray(x).max())), READS),
    "dlpack": (lambda: Function(lambda m, x: x * float(np.from_dlpack(x).max())), READS),
    "tolist": (lambda: Function(lambda m, x: x * x.flatten().tolist()[0]), READS),
    "equal": (lambda: Function(lambda m, x: x if torch.equal(x, x) else x + 1), READS),
    "nonzero": (lambda: Function(lambda m, x: x[x > 0]), READS),
    "looks_and_hides_it": (lambda: Function(looks_and_hides_it), READS),
    "base_of_a_view": (
        lambda: Function(base_read_after_a_view_changed, c=conv()),
        f"add: .*{SHARES}.*bad_modules.py:",
    ),
    "view_of_a_base": (
        lambda: Function(view_read_after_its_base_changed, c=conv(), fc=nn.Linear(360, 2)),
        f"linear: .*{SHARES} in fc at .*bad_modules.py:",
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
    "weight_of_an_image": (lambda: Function(lambda m, x: F.conv2d(x, x)), f"conv2d: {COMPUTED}"),
    "dropout": (
        lambda: Function(lambda m, x: F.dropout(x, 0.5, training=True)),
        "dropout: random numbers.*bad_modules.py:",
    ),
    "random": (lambda: Function(lambda m, x: x if torch.rand(1).item() < 2 else x + 1), "rand: random numbers"),
    "second_output": (
        lambda: Function(lambda m, x: F.max_pool2d(x, 2, return_indices=True)[1]),
        "the second output of an op",
    ),
    "no_image": (lambda: Function(lambda m, x: m.c.weight, c=conv()), "output does not depend on the module's input"),
    "two_inputs": (lambda: nn.Bilinear(3, 3, 3), "does not run on an input of shape .* missing 1 required positional"),
    "wrong_size": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), "mat1 and mat2 shapes cannot be multiplied"),
    "wrong_kernel": (
        lambda: nn.Conv2d(3, 3, 13),
        "does not run .* Kernel size can't be greater than actual input size",
    ),
    "autocast": (lambda: Function(autocast, c=conv()), "to: a tensor that becomes bfloat16 in c at .*bad_modules.py:"),
    "asserts": (lambda: Function(wants_32), r"does not run on an input of shape \(1, 3, 12, 10\): 32 pixels a side"),
    "no_such_key": (lambda: Function(lambda m, x: x * {"a": 1}["b"]), "does not run .* 'b'"),
    "divides_by_zero": (lambda: Function(lambda m, x: x * (1 // (x.shape[1] - 3))), "does not run .* by zero"),
    "wrong_channels": (WrongChannels, r"does not run on an input of shape \(1, 3, 12, 10\): .*to have 4 channels"),
    "half": (lambda: nn.Conv2d(3, 4, 1).half(), "float16 parameters; give it in float32"),
    "batch_statistics": (lambda: nn.BatchNorm2d(3, track_running_stats=False), "batch norm without running statistics"),
}
