"""The images of a run, and the order in which an epoch sees them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.training import TrainingImages, open_training
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess
from edgecnn.train.config import TrainConfig


def open_both(config: TrainConfig, preprocess: Preprocess) -> tuple[TrainingImages, TrainingImages]:
    """Open training and held-out images.

    Raises:
        InputError: as ``open_training``; or a batch is more than there are training images.
    """
    if config.data == "demo":
        fits(config, config.images)  # before they are drawn
    drawn = (config.images, config.val_images)
    training, held_out = open_training(config.data, preprocess, seed=config.seed, drawn=drawn)
    fits(config, len(training.labels))
    return training, held_out


def fits(config: TrainConfig, count: int) -> None:
    """Check that so many training images make a batch.

    Raises:
        InputError: they do not.
    """
    if config.batch > count:
        raise InputError(f"--batch {config.batch} is more than the {count} training images of {config.data}")


def order(config: TrainConfig, epoch: int, count: int) -> NDArray[np.int64]:
    """Return the image indices of an epoch, (steps, batch): every image at most once, what fills no batch left out."""
    steps = count // config.batch
    shuffled = np.random.default_rng([config.seed, epoch]).permutation(count)
    return shuffled[: steps * config.batch].reshape(steps, config.batch)
