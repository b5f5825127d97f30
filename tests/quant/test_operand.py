"""Constants of products have scales that kernels take, whatever the product's own scale is."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.quant.scales.kernel_limits import operand_qparams
from edgecnn.quant.scales.qparams import activation_qparams


@pytest.mark.parametrize("number", [1.0, -2.0, 1 / 6])
@pytest.mark.parametrize("high", [1.0, 640.0])
def test_one_number_is_exact_and_its_multiplier_is_one_that_kernels_take(number, high):
    value, made = np.array([number], np.float32), activation_qparams(0.0, high)
    sigmoid = activation_qparams(0.0, 255 / 256)
    quant = operand_qparams("mul", value, made, sigmoid)
    np.testing.assert_allclose(quant.dequantize(quant.quantize(value)), value, rtol=1e-6)
    assert sigmoid.scale[0] * quant.scale[0] / made.scale[0] > 2**-16


def test_one_number_is_no_smaller_an_integer_than_kernels_need():
    """Products of the integer 1 would be rounded to halves first, by kernels that round twice."""
    value, made, given = np.array([0.41], np.float32), activation_qparams(0.0, 2040.0), activation_qparams(0.0, 2300.0)
    quant = operand_qparams("mul", value, made, given)
    assert abs(int(quant.quantize(value)[0]) - int(quant.zero_point[0])) >= 127
