"""Random programs of ops in place, views and copies: the graph computes what the module does, or there is none."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import nn
from user_modules import batch_norm, conv

from edgecnn.errors import UnsupportedError
from edgecnn.graph.capture import capture
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata

SHAPE = (3, 6, 5)


def assigned(x, y):
    x[:, :1, 2:] = y[:, 1:2, :4]
    return x


PROGRAMS = 150
STEPS = (
    lambda m, x, y: F.relu_(x),
    lambda m, x, y: F.relu6(x, inplace=True),
    lambda m, x, y: F.hardswish(x, inplace=True),
    lambda m, x, y: x.add_(y),
    lambda m, x, y: x.mul_(0.5),
    lambda m, x, y: x + y,
    lambda m, x, y: x * m.scale,
    lambda m, x, y: x.clone(),
    lambda m, x, y: x.detach(),
    lambda m, x, y: x.data,
    lambda m, x, y: x.view(1, *SHAPE),
    lambda m, x, y: F.relu_(x.view_as(y)),
    lambda m, x, y: F.dropout(x, training=False),
    lambda m, x, y: (x[:, 1:].mul_(0.5), x)[1],
    lambda m, x, y: assigned(x.clone(), y),
    lambda m, x, y: assigned(x, y),
    lambda m, x, y: (x[:, :, 2:4, 1:].relu_(), x)[1],
    lambda m, x, y: m.conv(x),
    lambda m, x, y: m.norm(x),
    lambda m, x, y: m.norm(m.conv(x)),
)


class Program(nn.Module):
    def __init__(self, seed):
        super().__init__()
        self.seed, self.conv, self.norm = seed, conv(), batch_norm(3)
        self.scale = nn.Parameter(torch.rand(1, 3, 1, 1))

    def forward(self, x):
        dice = random.Random(self.seed)
        made = [x.clone(), self.conv(x)]
        for _ in range(dice.randrange(3, 10)):
            made.append(dice.choice(STEPS)(self, dice.choice(made), dice.choice(made)))
        return dice.choice(made) + dice.choice(made)


def test_programs_in_place_are_captured_right_or_refused():
    right = 0
    for seed in range(PROGRAMS):
        torch.manual_seed(seed)
        module, x = Program(seed).eval(), torch.randn(1, *SHAPE)
        with torch.inference_mode():
            want = module(x)
        try:
            graph = capture(module, SHAPE, Metadata())
        except UnsupportedError as error:
            assert "shares memory with one changed in place" in str(error)
            continue
        got = TorchGraph(graph)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4, msg=lambda text, seed=seed: f"seed {seed}: {text}")
        right += 1
    assert right > PROGRAMS / 3
