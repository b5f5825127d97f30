"""Samples that a caller holds: an iterable of arrays, a torch ``Dataset`` or ``DataLoader``.

An item is a sample or a batch of samples, alone or as ``(samples, labels)``. Images are arrays (H, W, C) or
(N, H, W, C), torch tensors (C, H, W) or (N, C, H, W): uint8 levels, or float32 where the preprocessing is
``Preprocess.as_is()``. What is no image is of the network's shape, with the batch in front or without. For a network of
several inputs an item is a mapping from input to array, or a tuple of arrays in the order of the inputs, after which a
label may come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.feed import Feed, Given, feed_of
from edgecnn.data.stored import Labels
from edgecnn.errors import InputError
from edgecnn.own_code import said
from edgecnn.preprocess import Preprocess

Row = tuple[Mapping[str, NDArray[Any]], int | None]
"""One sample, by input, and its label."""
TAKES = "a folder, FILE.npz:SPLIT, demo, an array (N, H, W, C), an iterable of arrays, a torch Dataset or DataLoader"


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
    names: Sequence[str] = ()

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

    def batches(self, preprocess: Preprocess | Feed, size: int) -> Iterator[tuple[Given, Labels | None]]:
        """See ``Images.batches``.

        Raises:
            InputError: the iterable gives no images, raises, or gives what is no image.
        """
        self._seen, self._hash = 0, hashlib.sha256()
        rows: list[Row] = []
        seen = 0
        for row in islice(self._rows(feed_of(preprocess)), self._limit):
            seen += 1
            for name, array in row[0].items():
                self._hash.update(np.ascontiguousarray(array).data)
                if rows and array.shape != rows[0][0][name].shape:
                    raise InputError(
                        f"{self.name}: image {seen} is {array.shape}, those before it {rows[0][0][name].shape}; give "
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

    def _rows(self, feed: Feed) -> Iterator[Row]:
        """Single samples, as the network takes them, with their labels."""
        for item in self._guarded():
            samples, labels = _apart(item, len(feed.names))
            arrays = _arrays(samples, feed, self.name)
            count = len(next(iter(arrays.values())))
            classes = None if labels is None or self._labelled is False else np.atleast_1d(np.asarray(labels))
            if self._labelled and classes is None:
                raise InputError(f"{self.name} gives images without labels; give (image, label) pairs")
            if classes is not None and (classes.dtype.kind not in "iu" or classes.shape != (count,)):
                raise InputError(
                    f"{self.name}: labels are {classes.dtype} {classes.shape}; give a class index per image"
                )
            made = feed.taken(arrays)
            taken = made if isinstance(made, Mapping) else {feed.names[0]: made}
            for k in range(count):
                row = {name: array[k] for name, array in taken.items()}
                yield row, None if classes is None else int(classes[k])

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
            raise InputError(f"{self.name}, after {count} items, raised {said(error)}") from error


def _apart(item: Any, inputs: int) -> tuple[Any, Any]:
    """Return samples and labels of an item, no labels where it has none."""
    if not isinstance(item, tuple | list):
        return item, None
    if len(item) == 2 and (inputs == 1 or isinstance(item[0], Mapping | tuple | list)):
        return item[0], item[1]
    return (item[:-1], item[-1]) if inputs > 1 and len(item) == inputs + 1 else (item, None)


def _arrays(samples: Any, feed: Feed, name: str) -> dict[str, NDArray[Any]]:
    """Return the samples of an item, (N, ...) by input.

    Raises:
        InputError: they are not what the network takes.
    """
    if isinstance(samples, Mapping):
        if strange := set(samples) ^ set(feed.names):
            has = f"{name} gives {', '.join(map(str, samples))}"
            raise InputError(
                f"{has}; the network's inputs are {', '.join(feed.names)} ({min(strange)!r} is not in both)"
            )
        given = [samples[each] for each in feed.names]
    elif len(feed.names) == 1:
        given = [samples]
    elif isinstance(samples, tuple | list) and len(samples) == len(feed.names):
        given = list(samples)
    else:
        raise InputError(
            f"{name} gives {type(samples).__name__}; the network's inputs are {', '.join(feed.names)}: give a mapping "
            "by name, or a tuple in that order"
        )
    made = {each: _array(x, feed.rank(each), name) for each, x in zip(feed.names, given, strict=True)}
    if len({len(array) for array in made.values()}) > 1:
        counts = ", ".join(f"{len(array)} of {each!r}" for each, array in made.items())
        raise InputError(f"{name} gives {counts} in one item; give as many samples of each input")
    return made


def _array(samples: Any, rank: int, name: str) -> NDArray[Any]:
    """Return samples of one input, (N, ...); images NHWC."""
    array: NDArray[Any]
    if hasattr(samples, "detach"):  # a torch tensor, channels first
        array = samples.detach().cpu().numpy()
        channels_first = rank == 3 and array.ndim in (3, 4)
        array = array.transpose(*range(array.ndim - 3), -2, -1, -3) if channels_first else array
    elif hasattr(samples, "convert"):  # a Pillow image
        array = np.asarray(samples if samples.mode in ("L", "RGBA") else samples.convert("RGB"))
        array = array[..., None] if array.ndim == 2 else array
    else:
        array = np.asarray(samples)
    if array.ndim not in (rank, rank + 1) or array.dtype.kind not in ("uf" if rank == 3 else "uifb"):
        raise InputError(f"{name} gives {type(samples).__name__} {array.dtype} {array.shape}; allowed: {TAKES}")
    return array if array.ndim == rank + 1 else array[None]


def _batch(rows: list[Row]) -> tuple[Given, Labels | None]:
    labels = [label for _, label in rows if label is not None]
    made = {name: np.stack([row[name] for row, _ in rows]) for name in rows[0][0]}
    classes = np.array(labels, np.int64) if len(labels) == len(rows) else None
    return made if len(made) > 1 else next(iter(made.values())), classes
