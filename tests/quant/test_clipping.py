"""Clipping: ranges chosen on bins are as good as ranges chosen on all values."""

from __future__ import annotations

import numpy as np
import pytest
from seen import range_of, statistics_of

from edgecnn.quant.observers.clipping import mse_range, percentile_range
from edgecnn.quant.scales.qparams import activation_qparams

COUNT = 40_000
SHARES = np.linspace(1, 0.02, 50)


def drawn(name, seed):
    rng = np.random.default_rng(seed)
    normal = rng.normal(0, 1, COUNT)
    values = {
        "normal": normal,
        "rectified": np.maximum(normal, 0),
        "relu6": np.clip(3 * normal + 2, 0, 6),
        "laplace": rng.laplace(0, 1, COUNT),
        "outlier": np.append(normal[1:], 30.0),
        "outliers below": np.append(np.abs(normal[9:]), np.full(9, -20.0)),
        "uniform": rng.uniform(-1, 2, COUNT),
        "skewed": rng.lognormal(0, 1, COUNT),
        "tiny": 1e-6 * rng.laplace(0, 1, COUNT),
        "huge": 1e6 * normal,
        "constant": np.full(COUNT, 3.7),
        "two": np.where(normal > 2, 5.0, 0.5),
    }[name]
    return values.astype(np.float32)


NAMES = ("normal", "rectified", "relu6", "laplace", "outlier", "outliers below", "uniform", "skewed", "tiny", "huge",
         "constant", "two")  # fmt: skip


def error(values, low, high):
    quant = activation_qparams(low, high)
    return float(np.square(quant.dequantize(quant.quantize(values)) - values, dtype=np.float64).mean())


@pytest.mark.parametrize("name", NAMES)
def test_bins_choose_as_well_as_the_values_themselves(name):
    values = drawn(name, 0)
    low, high = min(values.min(), 0), max(values.max(), 0)
    lows, highs = (low * SHARES if low < 0 else [0.0]), (high * SHARES if high > 0 else [0.0])
    least = min(error(values, a, b) for a in lows for b in highs)
    chosen = mse_range(statistics_of(*np.split(values, 10)).range())
    assert low * 1.0001 <= chosen[0] <= 0 <= chosen[1] <= high * 1.0001
    noise = (high - low) ** 2 / 255**2 / 12  # of a single value, errors may be 0
    assert error(values, *chosen) <= max(1.05 * least, 0.05 * noise if name in ("constant", "two") else 0)
    assert error(values, *chosen) <= 1.05 * error(values, *mse_range(range_of(values)))


@pytest.mark.parametrize("percentile", [90, 99, 99.9, 100])
def test_percentiles_of_bins_are_those_of_the_values(percentile):
    values = drawn("normal", 0)
    found = percentile_range(statistics_of(*np.split(values, 10)).range(), percentile)
    wanted = np.percentile(values, [100 - percentile, percentile])
    np.testing.assert_allclose(found, wanted, rtol=0.13)  # a bin


def test_a_dead_activation_has_an_empty_range():
    seen = statistics_of(np.zeros((5, 2))).range()
    assert mse_range(seen) == (0, 0)
    assert percentile_range(seen, 99) == (0, 0)
