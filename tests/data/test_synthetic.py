"""Synthesised images: the same for the same seed, like photographs to the lint, and enough to calibrate on."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.data.lint import CalibrationLint
from edgecnn.data.synthetic import SyntheticImages, image
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess

INPUT = Preprocess(resize=(48, 64))


def pixels(images, preprocess=INPUT):
    return np.concatenate([batch for batch, _ in images.batches(preprocess, 7)])


def test_as_many_as_asked_for_and_the_same_again():
    first, again, other = (pixels(SyntheticImages(count=10, seed=s)) for s in (0, 0, 1))
    assert first.shape == (10, 48, 64, 3)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(first[3], image(48, 64, 0, 3))
    digests = {SyntheticImages(count=n, seed=s).digest for n, s in ((10, 0), (10, 1), (11, 0))}
    assert len(digests) == 3


def test_the_lint_takes_them_for_photographs():
    lint = CalibrationLint()
    lint.update(pixels(SyntheticImages(count=40)))
    assert lint.findings(INPUT) == ()


def test_the_size_is_what_the_preprocessing_leaves():
    assert pixels(SyntheticImages(count=1), Preprocess(resize=(40,), crop=(32, 24))).shape == (1, 32, 24, 3)
    with pytest.raises(InputError, match="needs the input size"):
        pixels(SyntheticImages(count=1), Preprocess(resize=(40,)))
