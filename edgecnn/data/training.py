"""Images for training, by index: a part that is learned from, and one that is held out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.data import demo
from edgecnn.data.arrays import array_splits, is_array_set, load_array_set
from edgecnn.data.decode import WORKERS, BadImageError, Pixels, decode, resize_arrays
from edgecnn.data.folders import listing
from edgecnn.data.stored import Labels, parts
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess
from edgecnn.progress import track
from edgecnn.reading import require_answer

HELD_OUT = 0.1  # of images that are in one part
DRAWN = 256  # demo images at a time

Read = Callable[[NDArray[np.int64]], Pixels]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingImages:
    """Images by index, decoded to the model's resolution when asked for.

    Attributes:
        classes: their names; numbers where they have none.
        labels: one class index per image.
        pixels: (N, H, W, 3) uint8 of the images at N indices; an ``InputError`` where one cannot be read.
    """

    classes: tuple[str, ...]
    labels: Labels
    pixels: Read

    def subset(self, indices: NDArray[np.int64]) -> TrainingImages:
        """Some of them."""
        return replace(self, labels=self.labels[indices], pixels=lambda chosen: self.pixels(indices[chosen]))


def training_parts(where: str) -> tuple[str, str]:
    """Return the names of the training part and the held-out part, as ``open_images`` takes them; or twice the same.

    ``train/`` and ``val/`` (or ``test/``) inside a folder; splits ``train`` and ``val`` (or ``test``) of an archive.
    """
    root = Path(where)
    if folders := parts(root):
        return str(folders["calibration"]), str(folders["test"])
    if is_array_set(where) and root.is_file():
        splits = array_splits(root)
        held_out = next((name for name in ("val", "test") if name in splits), None)
        if "train" in splits and held_out:
            return f"{where}:train", f"{where}:{held_out}"
    return where, where


def open_training(
    where: str, preprocess: Preprocess, *, seed: int, drawn: tuple[int, int]
) -> tuple[TrainingImages, TrainingImages]:
    """Training and held-out images: two parts that ``training_parts`` finds, or nine tenths and the rest.

    Args:
        where: a folder, ``FILE.npz``, ``FILE.npz:SPLIT``, or ``demo``.
        preprocess: how they are resized and cropped.
        seed: of the division into nine tenths and one.
        drawn: how many of the demo data, for either.

    Raises:
        InputError: as ``open_images``; or the two parts have other classes, or fewer than two.
    """
    if where == "demo":
        return _drawn("train", drawn[0], preprocess), _drawn("val", drawn[1], preprocess)
    first, second = training_parts(where)
    training = _opened(first, preprocess)
    if first == second:
        order = np.random.default_rng(seed).permutation(len(training.labels))
        cut = max(1, round(len(order) * HELD_OUT))
        training, held_out = training.subset(np.sort(order[cut:])), training.subset(np.sort(order[:cut]))
    else:
        held_out = _opened(second, preprocess)
        if training.classes != held_out.classes:
            raise InputError(f"{first} and {second} have different class folders")
    count = 1 + max(int(part.labels.max(initial=-1)) for part in (training, held_out))
    if count < 2 or not len(training.labels):
        raise InputError(f"{where} has {count} class; training needs two or more, and images of them")
    classes = training.classes or tuple(str(k) for k in range(count))
    return replace(training, classes=classes), replace(held_out, classes=classes)


def _opened(where: str, preprocess: Preprocess) -> TrainingImages:
    """All images of a folder or an archive; no classes where they have no names."""
    if is_array_set(where):
        arrays = load_array_set(where, labelled=True)
        assert arrays.labels is not None
        pixels = arrays.pixels
        if isinstance(pixels, Mapping) or (isinstance(pixels, np.ndarray) and pixels.shape[3:] != (3,)):
            raise InputError(f"{where} holds other arrays than images; training takes uint8 (N, height, width, 3)")
        return TrainingImages(classes=(), labels=arrays.labels, pixels=lambda i: resize_arrays(pixels[i], preprocess))
    found = listing(Path(where), "calibration", labelled=True)
    files, labels = found.files, found.labels
    assert labels is not None

    def work(i: int) -> Pixels:
        try:
            return decode(files[i].read_bytes(), preprocess)
        except (BadImageError, OSError) as error:
            require_answer(error, files[i].as_posix())
            raise InputError(f"{files[i]} cannot be read ({error}); mend or remove it") from None

    def read(indices: NDArray[np.int64]) -> Pixels:
        with ThreadPoolExecutor(WORKERS) as pool:
            return np.stack(list(pool.map(work, indices.tolist())))

    return TrainingImages(classes=found.classes or (), labels=labels, pixels=read)


@lru_cache(maxsize=2)  # training and held-out images: of many short runs, the next one takes them as they are
def _drawn(split: str, count: int, preprocess: Preprocess) -> TrainingImages:
    """A part of the demo data, drawn once: it takes 2 ms an image."""
    parts = [
        demo.images(split, range(i, min(i + DRAWN, count)))
        for i in track(range(0, count, DRAWN), f"draw {split}", count, unit="images", each=DRAWN)
    ]
    pixels = resize_arrays(np.concatenate([pixels for pixels, _ in parts]), preprocess)
    labels = np.concatenate([labels for _, labels in parts])
    return TrainingImages(classes=demo.CLASSES, labels=labels, pixels=lambda indices: pixels[indices])
