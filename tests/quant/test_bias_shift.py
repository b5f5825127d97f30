"""Bias shifts: the mean output comes nearer, no channel is worse for it, and noise moves nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from seen import conv_of

from edgecnn.quant.scales.bias_shift import bias_shift, function_behind

FUNCTIONS = {
    "nothing": None,
    "relu": F.relu,
    "relu6": F.relu6,
    "hard_swish": F.hardswish,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
}
MEANS = {"usual": 0.5, "hardly open": -3.0, "dead": -30.0, "saturated": 9.0, "at the bend": -1.5, "far above": 60.0}


def function_of(function):
    graph, name = conv_of(function)
    return function_behind(graph, graph.producer(name))


@pytest.mark.parametrize(
    ("function", "same"),
    [(F.relu, F.relu), (F.relu6, F.relu6), (F.silu, F.silu), (F.hardswish, F.hardswish), (lambda x: x * 2, None)],
    ids=["relu", "relu6", "silu", "hard_swish", "nothing"],
)
def test_what_stands_behind_a_layer(function, same):
    found = function_of(function)
    assert (found is None) == (same is None)
    if same is not None:
        x = torch.linspace(-9, 9, 37)
        torch.testing.assert_close(found(x), same(x))


@pytest.mark.parametrize("function", [F.relu, F.relu6], ids=["relu", "relu6"])
def test_a_bias_moves_by_the_error_that_gets_through(function):
    """Sums that are wrong by 0.1 where they pass and by 5 where nothing comes of them."""
    wanted = torch.from_numpy(np.random.default_rng(0).uniform(-30, 30, (8, 4, 32, 32)).astype(np.float32))
    made = torch.where(wanted < -15, wanted - 5, wanted - 0.1)
    moved = bias_shift([(wanted[:3], made[:3]), (wanted[3:], made[3:])], function)
    assert moved.shape == (4,)
    torch.testing.assert_close(moved, torch.full((4,), 0.1).double(), rtol=0.05, atol=0)
    after = [function(x).mean((0, 2, 3)) for x in (wanted, made, made + moved.reshape(1, -1, 1, 1).float())]
    assert (after[0] - after[2]).abs().max() < 0.1 * (after[0] - after[1]).abs().min()


@pytest.mark.parametrize("rank", [2, 4])
def test_a_bias_that_nothing_follows_moves_by_the_mean_error(rank):
    shape = (16, 5) if rank == 2 else (16, 5, 6, 6)
    rng, error = np.random.default_rng(0), torch.tensor([0.3, -0.2, 4, -1e-2, 7])
    wanted = torch.from_numpy(rng.normal(0, 1, shape).astype(np.float32))
    made = wanted - error.reshape(1, -1, *[1] * (rank - 2))
    moved = bias_shift([(wanted[:4], made[:4]), (wanted[4:], made[4:])], None)
    torch.testing.assert_close(moved.float(), error, rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_channel_that_never_passes_keeps_its_bias(name):
    wanted = torch.full((3, 4, 5, 5), -50.0)
    moved = bias_shift([(wanted, wanted + 3)], FUNCTIONS[name])
    assert moved.tolist() == [0 if name != "nothing" else -3] * 4


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**31), name=st.sampled_from(sorted(FUNCTIONS)), images=st.integers(1, 20),
    size=st.sampled_from([0.01, 0.1, 1.0, 10.0]), noise=st.sampled_from([0.01, 0.3, 3.0]), rank=st.sampled_from([2, 4]),
)  # fmt: skip
def test_no_channel_is_worse_on_its_own_images(seed, name, images, size, noise, rank):
    """Neither the mean error behind the function nor its mean square grows, whatever the channel does."""
    rng, function = np.random.default_rng(seed), FUNCTIONS[name]
    means = np.array(list(MEANS.values()))
    shape = (images, len(means), *([4, 4] if rank == 4 else []))
    along = (1, -1, *[1] * (rank - 2))
    wanted = rng.normal(0, 1, shape) + means.reshape(along)
    offset = size * rng.normal(0, 1, (1, len(means), *along[2:]))
    made = wanted + offset + noise * rng.normal(0, 1, shape)
    wanted, made = (torch.from_numpy(x.astype(np.float32)) for x in (wanted, made))
    chunks = range(0, images, 4)
    moved = bias_shift([(wanted[i : i + 4], made[i : i + 4]) for i in chunks], function)
    assert torch.isfinite(moved).all()

    def errors(sums):
        seen = (lambda x: x) if function is None else function
        apart = (seen(wanted) - seen(sums)).double()
        over = (0, 2, 3) if rank == 4 else (0,)
        return apart.mean(over).abs(), apart.square().mean(over)

    before, after = errors(made), errors(made + moved.float().reshape(along))
    for old, new in zip(before, after, strict=True):
        assert (new <= old * (1 + 1e-4) + 1e-6).all(), f"{name}: {old.tolist()} became {new.tolist()}"


@pytest.mark.parametrize("name", ["nothing", "relu", "hard_swish"])
def test_noise_moves_no_bias(name):
    """An error whose mean is within its standard error, over the images, is not corrected; of others less is."""
    rng, images = np.random.default_rng(0), 16
    wanted = torch.full((images, 2000), 4.0)
    made = wanted - torch.from_numpy(rng.normal(0, 0.1, wanted.shape).astype(np.float32))
    moved, mean = bias_shift([(wanted, made)], FUNCTIONS[name]), (wanted - made).double().mean(0)
    error = (wanted - made).double().std(0) / images**0.5
    assert moved[mean.abs() < 0.99 * error].abs().max() == 0
    assert moved.square().mean().sqrt() < 0.7 * mean.square().mean().sqrt()


@pytest.mark.parametrize("name", ["nothing", "relu", "hard_swish"])
def test_a_certain_error_is_corrected(name):
    rng = np.random.default_rng(0)
    wanted = torch.full((16, 200), 4.0)
    made = wanted - 0.3 - torch.from_numpy(rng.normal(0, 0.02, wanted.shape).astype(np.float32))
    moved = bias_shift([(wanted, made)], FUNCTIONS[name])
    torch.testing.assert_close(moved, torch.full((200,), 0.3).double(), rtol=0.2, atol=0)
    assert float(moved.mean()) == pytest.approx(0.3, rel=0.05)


def test_the_order_of_chunks_is_no_matter():
    rng = np.random.default_rng(0)
    wanted, made = (torch.from_numpy(rng.normal(0, 1, (12, 5, 3, 3)).astype(np.float32)) for _ in range(2))
    pairs = [(wanted[i : i + 4], made[i : i + 4]) for i in (0, 4, 8)]
    torch.testing.assert_close(bias_shift(pairs, F.relu), bias_shift([(wanted, made)], F.relu))
    torch.testing.assert_close(bias_shift(pairs, F.relu), bias_shift(pairs[::-1], F.relu))
