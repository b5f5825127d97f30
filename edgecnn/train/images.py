"""Training images by index, and the order in which an epoch sees them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgecnn import demo
from edgecnn.data import open_training_folder, resize_arrays
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess
from edgecnn.progress import track
from edgecnn.train.config import TrainConfig


class TrainingImages(Protocol):
    """Images by index, decoded to the model's resolution."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """One class index per image."""

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8 of the images at ``indices``."""


class DemoImages:
    """A part of the demo data, drawn once."""

    def __init__(self, split: str, count: int, preprocess: Preprocess, seed: int = 0) -> None:
        self.classes = demo.CLASSES
        parts = [
            demo.images(split, range(i, min(i + 256, count)), seed)
            for i in track(range(0, count, 256), f"draw {split}", math.ceil(count / 256))
        ]
        self._pixels = resize_arrays(np.concatenate([pixels for pixels, _ in parts]), preprocess)
        self.labels = np.concatenate([labels for _, labels in parts])

    def pixels(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(N, H, W, 3) uint8."""
        return self._pixels[indices]


def open_both(config: TrainConfig, preprocess: Preprocess) -> tuple[TrainingImages, TrainingImages]:
    """Training and held-out images.

    Raises:
        InputError: as ``edgecnn.data.open_training_folder``; or a batch is more than there are training images.
    """
    training: TrainingImages
    held_out: TrainingImages
    if config.data == "demo":
        _fits(config, config.images)
        training = DemoImages("train", config.images, preprocess)
        held_out = DemoImages("val", config.val_images, preprocess)
    else:
        training, held_out = open_training_folder(Path(config.data), preprocess, config.seed)
        _fits(config, len(training.labels))
    return training, held_out


def _fits(config: TrainConfig, count: int) -> None:
    if config.batch > count:
        raise InputError(f"--batch {config.batch} is more than the {count} training images of {config.data}")


def order(config: TrainConfig, epoch: int, count: int) -> NDArray[np.int64]:
    """Image indices of an epoch, (steps, batch): every image at most once, what fills no batch left out."""
    steps = count // config.batch
    shuffled = np.random.default_rng([config.seed, epoch]).permutation(count)
    return shuffled[: steps * config.batch].reshape(steps, config.batch)
