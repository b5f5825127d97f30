"""Integer least squares: neighbours of the float weights that are never worse than the nearest ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.quant import integer_least_squares as module

LIMIT = 127


def problem(seed, *, groups=1, rows=6, taps=30, condition=1e3, bits=8, compensated=0.0):
    """Covariance, cross covariance, weights and scales; the steps are those of a grid of some bits."""
    rng = np.random.default_rng(seed)
    turned = np.linalg.qr(rng.normal(0, 1, (groups, taps, taps)))[0]
    covariance = turned * np.geomspace(1, 1 / condition, taps) @ turned.swapaxes(1, 2)
    covariance = (covariance + covariance.swapaxes(1, 2)) / 2 + 1e-12 * np.eye(taps)
    weights = rng.normal(0, 1, (groups, rows, taps))
    cross = weights @ covariance + compensated * rng.normal(0, 1, weights.shape) @ covariance
    scales = np.abs(weights).max(axis=2, keepdims=True) / (2 ** (bits - 1) - 1)
    return tuple(map(torch.from_numpy, (covariance, cross, weights, scales)))


def costs(covariance, cross, integers, scales):
    real = integers * scales
    return ((real @ covariance - 2 * cross) * real).sum(2)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31), groups=st.integers(1, 4), taps=st.integers(1, 150), bits=st.integers(3, 8),
    condition=st.floats(0, 7).map(lambda e: 10.0**e),
)  # fmt: skip
def test_it_is_never_worse_than_rounding_to_nearest(seed, groups, taps, bits, condition):
    given_ = covariance, cross, weights, scales = problem(
        seed, groups=groups, taps=taps, bits=bits, condition=condition
    )
    found, nearest = module.round_rows(*given_, LIMIT), torch.round(weights / scales)
    reference = costs(covariance, cross, weights / scales, scales)  # the least there is, without rounding
    made, plain = (costs(covariance, cross, x, scales) - reference for x in (found, nearest))
    assert (made <= plain * 1.0001 + 1e-9 * reference.abs()).all(), f"{float((made / plain).max()):.3f} of the nearest"


@pytest.mark.parametrize("condition", [1, 1e3, 1e6])
def test_integers_are_neighbours_within_the_limit(condition):
    given_ = _, _, weights, scales = problem(3, groups=2, taps=70, condition=condition, compensated=0.3)
    found = module.round_rows(*given_, 100)
    exact = (weights / scales).clamp(-100, 100)
    assert (found == found.round()).all()
    assert ((found - exact).abs() < 1 + 1e-6).all()
    assert found.abs().max() <= 100


@pytest.mark.parametrize("condition", [1, 1e2, 1e4])
@pytest.mark.parametrize("block", [1, 7, 32, 1000])
def test_blocks_are_a_matter_of_speed_alone(block, condition, monkeypatch):
    given_ = problem(5, groups=2, taps=130, condition=condition)
    covariance, cross, weights, scales = given_
    whole = module.round_rows(*given_, LIMIT)
    monkeypatch.setattr(module, "BLOCK", block)
    other = module.round_rows(*given_, LIMIT)
    apart = float((whole != other).double().mean())
    assert apart <= (0 if condition == 1 else 0.02), f"{apart:.2%} of the integers differ"  # float32: ties may part
    reference = costs(covariance, cross, weights / scales, scales)
    errors = [costs(covariance, cross, x, scales) - reference for x in (whole, other)]
    torch.testing.assert_close(errors[0].sum(), errors[1].sum(), rtol=0.02, atol=0)


def test_it_gains_where_inputs_go_together():
    given_ = covariance, cross, weights, scales = problem(7, taps=100, condition=1e4, bits=4)
    reference = costs(covariance, cross, weights / scales, scales)
    made, plain = (
        (costs(covariance, cross, x, scales) - reference).sum()
        for x in (module.round_rows(*given_, LIMIT), torch.round(weights / scales))
    )
    assert made < 0.3 * plain


def test_a_covariance_that_is_not_quite_positive_definite_is_solved():
    inputs = torch.randn(1, 12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    covariance = inputs @ inputs.mT - 1e-6 * torch.eye(12, dtype=torch.float64)
    assert torch.linalg.eigvalsh(covariance).min() < 0
    weights = torch.randn(1, 3, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    scales = torch.full((1, 3, 1), 0.1, dtype=torch.float64)
    found = module.round_rows(covariance, weights @ covariance, weights, scales, 127)
    assert bool(((found - weights / scales).abs() <= 1).all())
    with pytest.raises(ValueError, match="not finite"):
        module.round_rows(covariance * torch.nan, weights, weights, scales, 127)
