"""Modules of several inputs and outputs, other channels, sound and vectors, from ``edgecnn.load`` to every format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_files import golden
from torch import nn

import edgecnn
from edgecnn.data.feed import Feed
from edgecnn.errors import InputError

SQNR = golden("sqnr")["loaded"]
QUIET = edgecnn.Progress()
FED = edgecnn.Preprocess(mean=127.5, std=127.5)


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.meta = nn.Conv2d(1, 8, 3, 2, 1), nn.Linear(4, 4)
        self.boxes, self.scores = nn.Linear(12, 5), nn.Linear(12, 3)

    def forward(self, image, meta):
        both = torch.cat([self.conv(image).relu().mean((2, 3)), self.meta(meta)], 1)
        return {"boxes": self.boxes(both) * 100, "scores": self.scores(both).sigmoid()}


class Stereo(nn.Module):
    """An image in colour and one of depth, each with levels of its own."""

    def __init__(self):
        super().__init__()
        self.colour, self.depth = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(1, 6, 3, 2, 1)

    def forward(self, colour, depth):
        return self.colour(colour).relu() + self.depth(depth).relu()


STEREO = {"colour": (3, 16, 16), "depth": (1, 16, 16)}


def levels(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def numbers(*shape):
    return np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)


CASES = {
    "two inputs": (
        Detector,
        {"image": (1, 16, 16), "meta": (4,)},
        {"image": levels(40, 16, 16, 1), "meta": numbers(40, 4)},
        FED,
        ["boxes", "scores"],
    ),
    "two images": (
        Stereo,
        STEREO,
        {"colour": levels(40, 16, 16, 3), "depth": levels(40, 16, 16, 1)},
        {"colour": FED, "depth": "mean=0,std=64"},
        None,
    ),
    "grey": (
        lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
        (1, 16, 16),
        levels(40, 16, 16, 1),
        FED,
        None,
    ),
    "four channels": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU()),
        (4, 12, 12),
        levels(40, 12, 12, 4),
        FED,
        None,
    ),
    "sound": (
        lambda: nn.Sequential(nn.Conv1d(1, 8, 5, 2), nn.ReLU(), nn.Conv1d(8, 4, 30), nn.Flatten(), nn.Linear(4, 3)),
        (1, 64),
        numbers(40, 1, 64),
        None,
        None,
    ),
    "a vector": (
        lambda: nn.Sequential(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 2)),
        (10,),
        numbers(40, 10),
        None,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_module_is_loaded_quantized_and_equal_in_every_format(name):
    make, shape, data, preprocess, outputs = CASES[name]
    torch.manual_seed(0)
    network = edgecnn.load(make().eval(), input_shape=shape, preprocess=preprocess)
    assert outputs is None or list(network.outputs) == outputs
    int8 = edgecnn.quantize(network, data, progress=QUIET)
    for target in ("tflite", "onnx", "openvino", "c"):
        report = edgecnn.validate(edgecnn.convert(int8, target), data, exact_kernels=True, progress=QUIET)
        assert report.passed, report.failures
        found = report.entries[0].outputs
        assert [output.name for output in found] == list(network.outputs)
        assert all(output.max_lsb == 0 and output.sqnr_db >= SQNR[name] for output in found)


def test_each_image_is_normalised_by_its_own_preprocessing_also_from_files(tmp_path):
    data = CASES["two images"][2]
    text = "mean=127.5,std=127.5;depth:mean=0,std=64"
    module = Stereo().eval()
    network = edgecnn.load(module, input_shape=STEREO, preprocess=text)
    fed = Feed.of(network.graph).inputs(Feed.of(network.graph).taken(data)).arrays
    assert np.allclose(fed["colour"], (data["colour"] - 127.5) / 127.5, atol=1e-6)
    assert np.allclose(fed["depth"], data["depth"] / 64, atol=1e-6)
    int8 = edgecnn.quantize(network, data, progress=QUIET)
    path = edgecnn.convert(int8, "tflite").save(tmp_path).path
    found = edgecnn.validate(path, data, progress=QUIET).entries[0].accuracy
    assert found.sqnr_db >= SQNR["two images, of files"]
    other = edgecnn.validate(path, data, preprocess="depth:mean=64", limits=edgecnn.Limits(min_sqnr=1), progress=QUIET)
    assert other.entries[0].parity.max_lsb == 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("mean=0,std=1;rigth:mean=0", "unknown image input 'rigth'; allowed: colour, depth"),
        ("mean=0,std=1;depth:mean=0;depth:std=1", "depth twice"),
        ({"colour": FED, "depth": edgecnn.Preprocess(resize=(8, 8))}, "'depth' takes 16x16 pixels"),
        (
            {"colour": FED, "depth": edgecnn.Preprocess(mean=(1, 2, 3), std=1)},
            "3 channels, but the network's image has 1",
        ),
    ],
)
def test_preprocessing_that_fits_no_input_is_one_line(how, message):
    with pytest.raises(InputError, match=message) as error:
        edgecnn.load(Stereo().eval(), input_shape=STEREO, preprocess=how)
    assert "\n" not in str(error.value)


REFUSED = {
    "preprocessing of a vector": ((10,), FED, "preprocessing is of images"),
    "no preprocessing of an image": ((1, 8, 8), None, "does not say how images become its input"),
    "other channels": (
        (1, 8, 8),
        edgecnn.Preprocess(mean=(1, 2, 3), std=1),
        "3 channels, but the network's image has 1",
    ),
    "no number": ((1, 8, "x"), FED, "whole numbers above 0"),
    "another size": ((1, 8, 8), edgecnn.Preprocess(resize=(4, 4)), "leaves 4x4 pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_shapes_that_do_not_fit_are_one_line(name):
    shape, preprocess, message = REFUSED[name]
    with pytest.raises(InputError, match=message) as error:
        edgecnn.load(nn.Flatten().eval(), input_shape=shape, preprocess=preprocess)
    assert "\n" not in str(error.value)
