"""The lint of calibration sets."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import edgecnn
from edgecnn.data import demo, open_images
from edgecnn.data.lint import CalibrationLint
from edgecnn.preprocess import Preprocess

SHARED = Path(__file__).parents[3] / "shared" / "data"
SMALL = Preprocess(resize=(8, 10))


def lint(pixels, preprocess=SMALL):
    found = CalibrationLint()
    for i in range(0, len(pixels), 7):
        found.update(pixels[i : i + 7])
    return found.findings(preprocess)


PHOTOS = demo.images("calibration", range(40))[0]


def scenes(count):
    """Warm ground under a blue sky, with smooth shapes: the statistics of colour that photographs have."""
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[0:48, 0:48] / 48
    made = []
    for _ in range(count):
        horizon, tilt = rng.uniform(0.2, 0.5), rng.uniform(-0.2, 0.2)
        ground = (rows > horizon + tilt * (columns - 0.5))[..., None]
        x, y, size = rng.uniform(0.2, 0.8, 3)
        thing = (np.hypot(rows - y, columns - x) < size / 3)[..., None]
        light = rng.uniform(0.6, 1.2) * (0.8 + 0.4 * columns[..., None])
        scene = np.where(ground, rng.normal((140, 115, 85), 12), rng.normal((135, 150, 175), 12))
        scene = np.where(thing, rng.normal((150, 120, 100), 30), scene) * light
        made.append(np.clip(scene + rng.normal(0, 3, scene.shape), 0, 255))
    return np.array(made).astype(np.uint8)


SCENES = scenes(60)


NOISY = np.clip(PHOTOS[:1] + np.random.default_rng(0).normal(0, 6, (40, *PHOTOS.shape[1:])), 0, 255).astype(np.uint8)


def frames(count):
    """One scene, through which a lighter square moves, of a brightness that changes."""
    made = np.repeat(SCENES[:1].astype(np.float32), count, axis=0)
    for k, frame in enumerate(made):
        frame[20:30, k % 38 : k % 38 + 10] += 60
        frame *= 0.8 + 0.01 * (k % 40)
    return np.clip(made, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (SCENES[:40].mean(axis=(1, 2), keepdims=True).repeat(48, 1).repeat(48, 2), "40 of 40 .* are of one colour"),
        (np.concatenate([SCENES[:40], np.full((20, 48, 48, 3), 90)]), "20 of 60 .* are of one colour"),
        (SCENES[:1].repeat(40, axis=0), "39 of 40 calibration images are copies"),
        (np.concatenate([SCENES, SCENES]), "60 of 120 calibration images are copies"),
        (NOISY, "much alike: 1 of 40 differ"),
        (frames(40), r"much alike: 1?\d of 40 differ"),
    ],
    ids=["one colour", "a third of one colour", "one image", "each twice", "noise on one image", "a video"],
)
def test_images_that_are_all_one_say_how_many_differ(pixels, said):
    (line,) = lint(pixels.astype(np.uint8))
    assert re.search(said, line)


def test_some_copies_and_some_plain_images_are_not_odd():
    plain = np.full((6, 48, 48, 3), 90, np.uint8)
    assert lint(np.concatenate([SCENES, SCENES[:15], plain])) == ()


def test_network_inputs_are_looked_at_too():
    inputs = (SCENES / 127.5 - 1).astype(np.float32)
    as_is = Preprocess.as_is()
    assert lint(inputs, as_is) == ()
    assert "59 of 60 calibration images are copies" in lint(inputs[:1].repeat(60, axis=0), as_is)[0]
    assert "40 of 40 calibration images are of one colour" in lint(np.full((40, 9, 9, 3), 0.3, np.float32), as_is)[0]
    assert "only 5 calibration images" in lint(inputs[:5], as_is)[0]


def test_photographs_raise_nothing():
    assert lint(PHOTOS) == ()


def test_noise_says_why():
    (line,) = lint(np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8))
    assert "look like noise" in line
    assert "neighbouring pixels correlate" in line


@pytest.mark.parametrize(
    "spoilt",
    [PHOTOS // 128, (PHOTOS.astype(np.float32) / 255).astype(np.uint8), PHOTOS // 60 + 100],
    ids=["bits", "fractions", "flat"],
)
def test_images_normalised_before_saving_say_why(spoilt):
    (line,) = lint(spoilt.astype(np.uint8))
    assert "normalised twice" in line


@pytest.mark.parametrize("channels", ["RGB", "GREY"])
def test_photographs_of_every_kind_are_not_odd(channels):
    pixels = SCENES if channels == "RGB" else SCENES.mean(axis=3, keepdims=True).repeat(3, axis=3).astype(np.uint8)
    assert lint(pixels) == ()


def test_blue_for_red_says_why():
    (line,) = lint(SCENES[..., ::-1])
    assert "look like BGR: blue exceeds red by" in line


def test_channels_first_saved_as_channels_last_says_why():
    (line,) = lint(np.ascontiguousarray(SCENES.transpose(0, 3, 1, 2)).reshape(SCENES.shape))
    assert "repeat after a third of their width" in line
    assert "channels-first" in line


def photographs(name):
    if name == "cifar10":
        with np.load(SHARED / "cifar10" / "cifar10_train4000_test500.npz") as arrays:
            return arrays["x_train"][:300]
    images = open_images(str(SHARED / name), demo_split="test", labelled=False, limit=100)
    return np.concatenate([batch for batch, _ in images.batches(Preprocess(resize=(96, 96)), 20)])


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data (real images) is not there")
@pytest.mark.parametrize("name", ["imagenet_sample500", "imagenet_val650", "cifar10"])
def test_real_photographs_are_not_odd_and_spoilt_ones_are(name):
    pixels = photographs(name)
    assert lint(pixels) == ()
    assert "copies" in lint(pixels[:1].repeat(60, axis=0))[0]
    assert "look like BGR" in lint(pixels[..., ::-1])[0]
    first = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(pixels.shape)
    assert "channels-first" in lint(first)[0]
    assert "normalised twice" in lint(pixels // 128)[0]


@pytest.mark.parametrize(("classes", "outputs", "odd"), [(9, 100, True), (10, 100, False), (1, 2, True), (2, 2, False)])
def test_few_classes_say_why(classes, outputs, odd):
    found = CalibrationLint()
    found.update(PHOTOS)
    lines = found.findings(SMALL, classes=classes, outputs=outputs)
    assert [f"of {classes} of the network's {outputs} classes" in line for line in lines] == [True] * odd


def test_ranges_that_still_grow_say_why():
    found = CalibrationLint()
    found.update(PHOTOS)
    assert found.findings(SMALL, growth={"a": 0.2, "b": 0.0, "c": 0.0, "d": 0.0}) == ()
    (line,) = found.findings(SMALL, growth={"a": 0.2, "b": 0.3, "c": 0.0, "d": 0.0})
    assert "the ranges of 2 of 4 activations grew by more than 10 %" in line


def test_quantize_names_ranges_that_grow_and_images_that_do_not_differ():
    network = edgecnn.load("mobilenet_v2_0.35_96", weights="demo")
    dim_first = iter([*(PHOTOS // 8 + 100), *PHOTOS[:12]])  # what is read one by one keeps its order
    for images, said in (
        (dim_first, "activations grew by more than 10 %"),
        (PHOTOS[:1].repeat(60, axis=0), "59 of 60 calibration images are copies of others"),
    ):
        made = edgecnn.quantize(network, images, recipe="minmax")
        assert [f.code for f in made.findings] == ["calibration"]
        assert said in made.findings[0].text


def test_few_images_and_fractions_say_why():
    assert "only 5 calibration images" in lint(PHOTOS[:5])[0]
    fractions = Preprocess(resize=(8, 8), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert "multiply both by 255" in lint(PHOTOS, fractions)[0]
    assert lint(PHOTOS, Preprocess(resize=(8, 8), mean=(0, 0, 0), std=(1, 1, 1))) == ()
