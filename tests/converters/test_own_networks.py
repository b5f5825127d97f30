"""Networks as users bring them, as modules and as ONNX files: every check passes in each format."""

from __future__ import annotations

import pytest
import torch
from golden_files import golden
from own_networks import NETWORKS, made, smooth

import edgecnn

SQNR = golden("sqnr")["own_networks"]
TARGETS = ("tflite", "onnx", "openvino")


def samples(name, count, seed):
    """Return samples as the API takes arrays: images channels last."""
    drawn = smooth(NETWORKS[name][1], count, seed).numpy()
    return drawn.transpose(0, 2, 3, 1) if drawn.ndim == 4 else drawn


def checked(network, name):
    """Quantize a network and hold each of its files to what it must keep."""
    quantized = edgecnn.quantize(network, samples(name, 48, 1))
    for target in TARGETS:
        report = edgecnn.validate(edgecnn.convert(quantized, target), samples(name, 16, 2))
        assert report.passed, report.failures
        if target != "openvino":  # whose bound, which `passed` holds, is 1 where halves are near
            assert report.entries[0].parity.max_lsb == 0
        assert report.entries[0].accuracy.sqnr_db >= SQNR[name]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_module_passes_in_every_format(name):
    fed = edgecnn.Preprocess.as_is()
    checked(edgecnn.load(made(name), name=name, preprocess=fed, input_shape=NETWORKS[name][1]), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::UserWarning")
def test_its_onnx_file_passes_in_every_format(name, tmp_path):
    path = tmp_path / f"{name}.onnx"
    torch.onnx.export(made(name), (smooth(NETWORKS[name][1], 1, 0),), path, dynamo=False, opset_version=17)
    checked(edgecnn.load(path, preprocess=edgecnn.Preprocess.as_is()), name)
