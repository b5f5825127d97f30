"""Training sees the same images whichever process prepares them, and labels that fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecnn.data import demo
from edgecnn.train import TrainConfig
from edgecnn.train.augment import OPERATIONS, prepare, rand_augment
from edgecnn.train.batches import order


def config(**fields):
    return TrainConfig(model="mobilenet_v2", data="demo", output=Path("w.safetensors"), **fields)


@pytest.fixture(scope="module")
def pixels():
    return demo.images("train", range(8))[0]


ONE_HOT = np.eye(8, dtype=np.float32)


@pytest.mark.parametrize("fields", [{}, {"flip": True, "rand_augment": 3}, {"mixup": 0.3}])
def test_a_part_of_a_batch_is_prepared_as_in_the_whole(pixels, fields):
    indices = np.array([5, 3, 100, 7, 8, 2, 1, 0])
    whole, targets = prepare(config(**fields), 4, indices, pixels, ONE_HOT)
    for part in (slice(0, 4), slice(4, 8)):
        x, y = prepare(config(**fields), 4, indices[part], pixels[part], ONE_HOT[part])
        np.testing.assert_array_equal(x, whole[part])
        np.testing.assert_array_equal(y, targets[part])
    other, _ = prepare(config(**fields), 5, indices, pixels, ONE_HOT)
    assert not np.array_equal(other, whole)


def test_mixup_mixes_images_as_it_mixes_labels(pixels):
    indices = np.arange(8)
    plain, _ = prepare(config(), 0, indices, pixels, ONE_HOT)
    mixed, targets = prepare(config(mixup=1.0), 0, indices, pixels, ONE_HOT)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    assert all(set(np.flatnonzero(row)) <= {i, i ^ 1} for i, row in enumerate(targets))
    np.testing.assert_allclose(mixed, np.tensordot(targets, plain, 1), atol=1e-3)
    assert len(set(targets.max(1).tolist())) > 4


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [-1, 1])
def test_operations_keep_the_form_and_do_little_at_strength_0(name, sign, pixels):
    picture = Image.fromarray(pixels[0])
    full = OPERATIONS[name](picture, 1.0, sign)
    assert (full.size, full.mode) == (picture.size, "RGB")
    assert name == "identity" or np.any(np.asarray(full) != pixels[0])
    if name not in ("autocontrast", "equalize"):
        np.testing.assert_array_equal(np.asarray(OPERATIONS[name](picture, 0.0, sign)), pixels[0])


def test_rand_augment_draws_every_operation(pixels):
    rng, drawn = np.random.default_rng(0), set()
    with pytest.MonkeyPatch.context() as patch:
        for name, operation in OPERATIONS.items():
            patch.setitem(OPERATIONS, name, lambda *a, n=name, o=operation: drawn.add(n) or o(*a))
        for _ in range(60):
            rand_augment(pixels[0], rng, 2, 9)
    assert drawn == set(OPERATIONS)


def test_an_epoch_sees_each_image_at_most_once():
    batches = order(config(batch=16), 0, 100)
    assert batches.shape == (6, 16)
    assert len(np.unique(batches)) == 96
    assert not np.array_equal(batches, order(config(batch=16), 1, 100))
    assert not np.array_equal(batches, order(config(batch=16, seed=1), 0, 100))
