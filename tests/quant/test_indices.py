"""Networks that end in argmax: quantized by what is compared, equal in every format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import edgecnn
from edgecnn.errors import UnsupportedError

QUIET = edgecnn.Progress()
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)


class Segmenter(nn.Module):
    def __init__(self, classes=6):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, classes, 1)

    def forward(self, x):
        return self.head(self.conv(x).relu()).argmax(1)


class Both(Segmenter):
    """Logits, and the place of the largest."""

    def forward(self, x):
        logits = self.head(self.conv(x).relu()).mean((2, 3))
        return logits.argmax(1, keepdim=True), logits


class Computing(Segmenter):
    def forward(self, x):
        return super().forward(x) * 2.0


def loaded(module):
    torch.manual_seed(0)
    return edgecnn.load(module.eval(), input_shape=(3, 16, 16), preprocess="mean=0,std=255")


@pytest.mark.parametrize(("module", "shapes"), [(Segmenter, [(1, 8, 8)]), (Both, [(1, 1), (1, 6)])])
def test_places_are_equal_in_every_format(module, shapes):
    network = loaded(module())
    assert [network.graph.tensors[name].shape for name in network.graph.outputs] == shapes
    int8 = edgecnn.quantize(network, IMAGES, progress=QUIET)
    for target in ("tflite", "onnx", "openvino", "c"):
        report = edgecnn.validate(edgecnn.convert(int8, target), IMAGES, exact_kernels=target != "c", progress=QUIET)
        assert report.passed, report.failures
        (entry,) = report.entries
        assert entry.float_ops == ()
        assert [output.max_lsb for output in entry.outputs] == [0] * len(shapes)


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_files_that_end_in_argmax_are_imported(target, tmp_path):
    network = loaded(Segmenter())
    path = edgecnn.convert(network, target).save(tmp_path).path
    again = edgecnn.load(path)
    (mine,), (theirs,) = network.graph.outputs, again.graph.outputs
    assert again.graph.tensors[theirs].shape == network.graph.tensors[mine].shape
    assert [node.op for node in again.graph].count("argmax") == 1


@pytest.mark.parametrize(
    ("module", "precision", "message"),
    [
        (Segmenter(300), "int8", "is over 300 numbers; in int8 at most 256"),
        (Computing(), "int8", "computes with what an argmax made"),
        (Segmenter(), "int16x8", "has no form in int16x8"),
    ],
)
def test_what_8_bits_do_not_hold_is_one_line(module, precision, message):
    with pytest.raises(UnsupportedError, match=message) as error:
        edgecnn.quantize(loaded(module), IMAGES, precision=precision, progress=QUIET)
    assert "\n" not in str(error.value)
