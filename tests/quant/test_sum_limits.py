"""Integer sums keep half of their bits: biases, and 48-bit sums on their way into 32 bits."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.graph.ir import QParams
from edgecnn.quant.scales.kernel_limits import accumulator_scale, clamp_weight_scales

BITS = {"int8": 32, "int16": 48}


def grid(scale, dtype):
    return QParams(scale=np.array([scale], np.float32), zero_point=np.array([0]), dtype=dtype)


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("per_tensor", [False, True])
def test_a_bias_takes_no_more_than_half_of_a_sum(dtype, per_tensor):
    source, half = grid(2.0**-6, dtype), 2 ** (BITS[dtype] - 2)
    bias = np.array([1.0, -1e3, 1e6, 3e9])
    tiny = np.full(1 if per_tensor else bias.size, 1e-9, np.float32)
    scales = clamp_weight_scales(tiny, source, grid(2.0**-6, dtype), bias)
    integers = np.abs(bias) / (float(source.scale[0]) * scales.astype(np.float64))
    assert integers.max() <= half * (1 + 1e-6)
    raised = scales > tiny * 1.01
    assert raised.any()
    assert (raised == (np.abs(bias) / (float(source.scale[0]) * 1e-9) > half)).all() or per_tensor
    np.testing.assert_allclose(integers[-1], half, rtol=1e-6)  # and no more is given up than needed


def test_the_largest_sum_of_a_16_bit_layer_is_half_of_int32_in_steps_of_its_output():
    rng, source = np.random.default_rng(0), 2.0**-12
    weight, bias = rng.normal(0, 1, (5, 3, 3, 8)).astype(np.float32), rng.normal(0, 10, 5).astype(np.float32)
    scale = accumulator_scale(source, weight, bias)
    extreme = np.sign(weight) * 2.0**15 * source  # the image that drives each channel furthest
    reached = np.abs((extreme * weight).reshape(5, -1).sum(axis=1)) + np.abs(bias)
    assert reached.max() / scale == pytest.approx(2**30, rel=1e-5)
