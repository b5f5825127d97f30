"""Images that a caller holds: an iterable of arrays, a torch ``Dataset`` or ``DataLoader``.

An item is an image or a batch of images, alone or as ``(images, labels)``. Arrays are (H, W, C) or (N, H, W, C), torch
tensors (C, H, W) or (N, C, H, W). They are uint8 levels, or float32 where the preprocessing is ``Preprocess.as_is()``.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.decode import Pixels, resize_arrays
from edgecnn.data.folders import Labels
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess

TAKES = "a folder, FILE.npz:SPLIT, demo, an array (N, H, W, C), an iterable of arrays, a torch Dataset or DataLoader"


def fed(pixels: NDArray[Any], preprocess: Preprocess) -> NDArray[Any]:
    """Return (N, H, W, C) images as the network's preprocessing takes them, resized and cropped.

    Raises:
        InputError: levels for a network that is fed arrays as they are, or the other way round.
    """
    if preprocess.as_given:
        if pixels.dtype.kind != "f":
            raise InputError(
                f"images are {pixels.dtype}; this network is fed arrays as they are (Preprocess.as_is()): give float32"
            )
        return pixels.astype(np.float32, copy=False)
    if pixels.dtype != np.uint8:
        raise InputError(
            f"images are {pixels.dtype} from {pixels.min():.4g} to {pixels.max():.4g}; give uint8 levels of 0..255, or "
            "load the network with preprocess=Preprocess.as_is() where they are its inputs already"
        )
    if pixels.shape[3] != 3:
        raise InputError(f"images have {pixels.shape[3]} channels, last; give (N, height, width, 3)")
    return resize_arrays(pixels, preprocess)


class StreamImages:
    """Images of an iterable or a ``Dataset``; see ``edgecnn.data.Images``. Labels come with the images.

    Args:
        items: gives images, or pairs of images and labels.
        labelled: whether every image must have a class; ``None`` takes labels where there are some.
        limit: at most so many images.
        indices: of a ``Dataset``, in order; ``None`` takes the items in their own order.
    """

    classes: tuple[str, ...] | None = None
    labels: Labels | None = None
    kinds: int | None = None
    bad: Sequence[str] = ()

    def __init__(
        self, items: Any, *, labelled: bool | None, limit: int | None, indices: NDArray[np.int64] | None = None
    ) -> None:
        self.name = type(items).__name__
        self._items, self._labelled, self._limit, self._indices = items, labelled, limit, indices
        self._seen = 0
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256 over the images read so far."""
        return self._hash.hexdigest()

    def __len__(self) -> int:
        """Images that were read; before, the items that there are, where that is known."""
        return self._seen or (0 if self._indices is None else len(self._indices))

    def batches(self, preprocess: Preprocess, size: int) -> Iterator[tuple[Pixels, Labels | None]]:
        """See ``Images.batches``.

        Raises:
            InputError: the iterable gives no images, raises, or gives what is no image.
        """
        self._seen, self._hash = 0, hashlib.sha256()
        rows: list[tuple[NDArray[Any], int | None]] = []
        seen = 0
        for row in islice(self._rows(preprocess), self._limit):
            seen += 1
            self._hash.update(np.ascontiguousarray(row[0]).data)
            if rows and row[0].shape != rows[0][0].shape:
                raise InputError(
                    f"{self.name}: image {seen} is {row[0].shape}, those before it {rows[0][0].shape}; give "
                    "images of one size, or a preprocessing that resizes them"
                )
            rows.append(row)
            if len(rows) == size:
                yield _batch(rows)
                rows = []
        if rows:
            yield _batch(rows)
        self._seen = seen
        if not seen:
            raise InputError(f"{self.name} gives no images; an iterator can be read only once: give a list of arrays")

    def _rows(self, preprocess: Preprocess) -> Iterator[tuple[NDArray[Any], int | None]]:
        """Single images, fed as the preprocessing says, with their labels."""
        for item in self._guarded():
            images, labels = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
            pixels = _array(images, self.name)
            classes = None if labels is None or self._labelled is False else np.atleast_1d(np.asarray(labels))
            if self._labelled and classes is None:
                raise InputError(f"{self.name} gives images without labels; give (image, label) pairs")
            if classes is not None and (classes.dtype.kind not in "iu" or classes.shape != pixels.shape[:1]):
                raise InputError(
                    f"{self.name}: labels are {classes.dtype} {classes.shape}; give a class index per image"
                )
            for k, image in enumerate(fed(pixels, preprocess)):
                yield image, None if classes is None else int(classes[k])

    def _guarded(self) -> Iterator[Any]:
        """The items; what the caller's own code raises becomes one line that says where."""
        count = 0
        try:
            source: Iterable[Any] = (
                self._items if self._indices is None else (self._items[int(i)] for i in self._indices)
            )
            for item in source:
                yield item
                count += 1
        except InputError:
            raise
        except Exception as error:  # the caller's own code may raise anything; it is named, not hidden
            place = traceback.extract_tb(error.__traceback__)[-1]
            raise InputError(
                f"{self.name} raised {type(error).__name__} after {count} items: {' '.join(str(error).split())} "
                f"({place.filename}:{place.lineno})"
            ) from error


def _array(images: Any, name: str) -> NDArray[Any]:
    """Images of an item, (N, H, W, C)."""
    array: NDArray[Any]
    if hasattr(images, "detach"):  # a torch tensor, channels first
        array = images.detach().cpu().numpy()
        array = array.transpose(*range(array.ndim - 3), -2, -1, -3) if array.ndim in (3, 4) else array
    elif hasattr(images, "convert"):  # a Pillow image
        array = np.asarray(images.convert("RGB"))
    else:
        array = np.asarray(images)
    if array.ndim not in (3, 4) or array.dtype.kind not in "uf":
        raise InputError(f"{name} gives {type(images).__name__} {array.dtype} {array.shape}; allowed: {TAKES}")
    return array if array.ndim == 4 else array[None]


def _batch(rows: list[tuple[NDArray[Any], int | None]]) -> tuple[Pixels, Labels | None]:
    labels = [label for _, label in rows if label is not None]
    return np.stack([image for image, _ in rows]), np.array(labels, np.int64) if len(labels) == len(rows) else None
