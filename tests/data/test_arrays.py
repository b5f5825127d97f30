"""Images that are no folder: the demo data, numpy archives, and samples that fit no network."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgecnn.data import demo, open_images
from edgecnn.data.decode import resize_arrays
from edgecnn.data.feed import Feed
from edgecnn.data.synthetic import SyntheticImages
from edgecnn.data.training import open_training, training_parts
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess

SMALL = Preprocess(resize=(8, 10))


def for_training(where):
    return open_training(str(where), SMALL, seed=0, drawn=(4, 4))


def everything(images, preprocess=SMALL, size=5):
    pixels, labels = zip(*images.batches(preprocess, size), strict=True)
    return np.concatenate(pixels), None if labels[0] is None else np.concatenate(labels)


GOLDEN = {
    "train": "eb8fff5e4ef04370",
    "val": "2db5597a22c3b8dd",
    "test": "453f95015599fd1e",
    "calibration": "c191782dbafe6f27",
}  # of the first eight images


@pytest.mark.parametrize("split", GOLDEN)
def test_the_demo_data_is_the_same_everywhere(split):
    pixels, labels = demo.images(split, range(8))
    np.testing.assert_array_equal(labels, demo.labels(split, range(8)))
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == GOLDEN[split]


def test_the_demo_data_differs_by_split_index_and_seed():
    parts = [demo.images(s, [i], seed)[0].tobytes() for s in demo.SPLITS for i in (0, 1) for seed in (0, 1)]
    assert len(set(parts)) == len(parts)
    with pytest.raises(InputError, match="unknown demo split 'tset'"):
        demo.images("tset", [0])


def test_the_demo_data_has_all_its_classes_evenly():
    counts = np.bincount(demo.labels("test", range(demo.TEST_IMAGES)), minlength=len(demo.CLASSES))
    assert len(demo.CLASSES) == 16
    assert counts.min() > demo.TEST_IMAGES / 16 * 0.7


def test_the_demo_data_opens_like_a_folder():
    images = open_images("demo", demo_split="test", labelled=True, limit=20)
    pixels, labels = everything(images, Preprocess(resize=(96, 96)))
    assert pixels.shape == (20, 96, 96, 3)
    assert len(labels) == len(images) == 20
    assert everything(open_images("demo", demo_split="calibration", labelled=False, limit=3))[1] is None
    assert len(open_images("demo", demo_split="test", labelled=True)) == 2000


def archive(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_a_numpy_archive_is_a_set_of_images(tmp_path):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (7, 8, 8, 3)).astype(np.uint8), np.arange(7, dtype=np.uint8)
    where = archive(tmp_path / "a.npz", x_test=pixels, y_test=labels, x_train=pixels[:3])
    images = open_images(f"{where}:test", demo_split="test", labelled=True)
    got = list(images.batches(Preprocess(resize=(8, 8)), 4))
    np.testing.assert_array_equal(np.concatenate([p for p, _ in got]), pixels)
    np.testing.assert_array_equal(np.concatenate([y for _, y in got]), labels)
    np.testing.assert_array_equal(images.labels, labels)
    assert len(open_images(f"{where}:train", demo_split="test", labelled=False, limit=2)) == 2
    fewer = open_images(f"{where}:test", demo_split="test", labelled=True, limit=3)
    assert fewer.digest != images.digest
    assert len(fewer.labels) == 3


def test_training_takes_the_parts_of_a_numpy_archive_or_a_tenth_of_one(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 10, 3)).astype(np.uint8)
    both = {"x_train": pixels, "y_train": np.arange(12) % 3, "x_test": pixels[:4], "y_test": np.arange(4) % 2}
    where = archive(tmp_path / "a.npz", **both)
    training, held_out = for_training(where)
    np.testing.assert_array_equal(training.pixels(np.array([3, 1])), pixels[[3, 1]])
    assert training.classes == held_out.classes == ("0", "1", "2")
    assert (training.labels.tolist(), held_out.labels.tolist()) == ([0, 1, 2] * 4, [0, 1, 0, 1])
    with_val = archive(tmp_path / "b.npz", **both, x_val=pixels, y_val=np.arange(12) % 3)
    assert training_parts(with_val) == (f"{with_val}:train", f"{with_val}:val")
    parts = for_training(f"{where}:train")
    assert [len(part.labels) for part in parts] == [11, 1]
    seen = np.concatenate([part.pixels(np.arange(len(part.labels))) for part in parts])
    np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(pixels, axis=0))
    alone = archive(tmp_path / "c.npz", x_train=pixels)
    with pytest.raises(InputError, match="unknown split ''; allowed: train"):
        for_training(alone)
    with pytest.raises(InputError, match="has no labels"):
        for_training(f"{alone}:train")
    with pytest.raises(InputError, match="8x10 pixels are less than the crop of 9x9; give --preprocess"):
        resize_arrays(pixels, Preprocess(resize=None, crop=(9, 9)))


def test_a_numpy_archive_that_does_not_serve_is_one_line(tmp_path):
    good = np.zeros((2, 8, 8, 3), np.uint8)
    plain = archive(tmp_path / "a.npz", x_test=good, y_test=np.zeros(3, int), x_float=good * 0.5, x_bare=good)
    (tmp_path / "text.npz").write_text("hello")
    np.save(tmp_path / "one.npy", good)
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    for where, message in (
        (plain, "unknown split ''; allowed: bare, float, test"),
        (f"{plain}:tset", "unknown split 'tset'.*did you mean 'test'"),
        (f"{plain}:test", "y_test is .* it must be 2 class indices"),
        (f"{plain}:float", "x_float is float64"),
        (f"{plain}:bare", "has no labels"),
        (str(tmp_path / "none.npz"), "no file at"),
        (f"{tmp_path / 'text.npz'}:test", "not a numpy archive"),
        (f"{tmp_path / 'one.npz'}:test", "holds one array; give an archive of arrays, as np.savez writes it"),
    ):
        with pytest.raises(InputError, match=message) as error:
            open_images(where, demo_split="test", labelled=True)
        assert "\n" not in str(error.value)


def test_samples_that_are_no_inputs_of_the_network_are_one_line():
    feed = Feed(preprocess=Preprocess(resize=(8, 8)), shapes={"image": (8, 8, 3), "state": (4,)})
    images, states = np.zeros((2, 8, 8, 3), np.uint8), np.zeros((2, 4), np.float32)
    both = {"image": images, "state": states}
    for samples, message in (
        ({"image": images}, "the network's inputs are image, state; got image"),
        ({**both, "more": states}, "the network's inputs are image, state; got image, state"),
        (images, "the network has inputs image, state: give an array for each"),
    ):
        with pytest.raises(InputError, match=message):
            feed.taken(samples)
    taken = feed.taken(both)
    assert list(taken) == ["image", "state"]
    with pytest.raises(InputError, match="preprocessing is of images; of the inputs image, state, 'state' is none"):
        Feed(preprocess=Preprocess(), others={"state": Preprocess()}, shapes=feed.shapes)


def test_what_cannot_be_resized_or_made_is_one_line():
    with pytest.raises(InputError, match="arrays of 5 channels are not resized; give them in the network's size"):
        resize_arrays(np.zeros((2, 8, 8, 5), np.uint8), Preprocess(resize=(4, 4)))
    for shape, fed in (((8, 8, 4), Preprocess(resize=(8, 8))), ((10,), Preprocess.as_is())):
        feed = Feed(preprocess=fed, shapes={"x": shape})
        with pytest.raises(InputError, match="makes images, grey or RGB; this network takes others: give some"):
            next(SyntheticImages(count=2).batches(feed, 2))
