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
    quant = operand_qparams("mul", value, made)
    np.testing.assert_allclose(quant.dequantize(quant.quantize(value)), value, rtol=1e-6)
    sigmoid = 1 / 256
    assert sigmoid * quant.scale[0] / made.scale[0] > 2**-16
