"""Images from a folder or from the demo data, decoded as they are needed, in bounded memory.

A folder holds class subfolders of images, or ``images/`` with ``labels.csv`` (``file,class_index``). Subfolders are the
classes in the order of their names, or, where every name is a number, that class. Where no labels are needed
(calibration) any folder with images somewhere inside will do. ``FILE.npz:SPLIT`` is a numpy archive (``arrays.py``).
``stored`` reads the layouts of Hugging Face's ``datasets`` and of TFDS.
Samples of several inputs, and those that are no images, come as arrays (``arrays``, ``given``).

    stored, folders, decode, arrays, feed, given ─► image_sets: sets read once in batches ─► here: what a user names
                                        └► training: images by index, a part of them held out
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecnn.data.arrays import ArraySet, demo_set, held_set, is_array_set, load_array_set
from edgecnn.data.feed import Feed, Given
from edgecnn.data.folders import kinds, listing
from edgecnn.data.given import TAKES, StreamImages
from edgecnn.data.image_sets import ArrayImages, FolderImages
from edgecnn.data.stored import Labels
from edgecnn.errors import InputError, unknown
from edgecnn.preprocess import Preprocess

Pick = Callable[..., NDArray[np.int64]]  # indices of the images wanted, by their count and classes


class Images(Protocol):
    """A set of images that is read once, batch by batch."""

    @property
    def name(self) -> str:
        """Return the name that the user gave."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names in the order of the labels, where they are known."""

    @property
    def labels(self) -> Labels | None:
        """One class index per image, or ``None`` where the set has none."""

    @property
    def kinds(self) -> int | None:
        """How many classes the images are of, where the folder says; also of images that need no labels."""

    @property
    def bad(self) -> Sequence[str]:
        """Images left out so far because they could not be read."""

    @property
    def digest(self) -> str:
        """SHA-256 over the images read so far: which images they were, and their bytes."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the images of the batch that was given last; none where they have no names."""

    def __len__(self) -> int:
        """Images in the set, bad ones included."""

    def batches(self, preprocess: Preprocess | Feed, size: int) -> Iterator[tuple[Given, Labels | None]]:
        """Samples and labels, at most ``size`` at a time; preprocessing alone says that they are RGB images.

        Images are ``(n, height, width, channels)`` uint8 after resize and crop; see ``Feed.taken``.
        """


def open_images(
    where: Any,
    *,
    demo_split: str,
    labelled: bool | None,
    labels: Any = None,
    class_map: Mapping[str, str] | None = None,
    limit: int | None = None,
    shuffle: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> Images:
    """The images that a user named.

    Args:
        where: a folder, ``FILE.npz:SPLIT``, ``demo``; or images that the caller holds, see ``given``.
        demo_split: what the images are for, ``test`` or ``calibration``: which part of the demo data, and of a folder
            with ``train/`` and ``val/`` or another data set with splits.
        labelled: whether every image must have a class; ``None`` takes classes where there are some.
        labels: of an array of images.
        class_map: class of the data, its name or its index, to the network's label or index; others stay as they are.
        limit: at most so many. Of labelled images, each class keeps its share; others are spread evenly over the set.
        shuffle: seed of the order, or ``None`` to keep it.
        seed: which images of a class are among them.
        skip_bad: leave unreadable images out, instead of stopping.

    Raises:
        InputError: no such folder, no images in it, or labels that are not as this module says.
    """
    pick = partial(_choose, limit=limit, shuffle=shuffle, seed=seed)
    if isinstance(where, np.ndarray | Mapping):
        found = held_set(where, labels)
        if labelled and found.labels is None:
            raise InputError("the images have no labels; pass labels=, a class index per image")
        return _by_index("array", found, labelled, pick, class_map)
    if labels is not None:
        own = f"{where} has its own" if isinstance(where, str | Path) else "give (image, label) pairs here"
        raise InputError(f"labels are for an array of images; {own}")
    if not isinstance(where, str | Path):
        return _streamed(where, labelled, limit, pick)
    where = str(where)
    if where == "demo":
        return _by_index(where, demo_set(demo_split), labelled, pick, class_map)
    if is_array_set(where):
        return _by_index(where, load_array_set(where, labelled=bool(labelled)), labelled, pick, class_map)
    listed = listing(Path(where), demo_split, labelled=labelled)
    labels = None if labelled is False else listed.labels
    chosen = pick(len(listed.files), labels)
    picked = [listed.files[i] for i in chosen]
    return FolderImages(
        name=where,
        files=picked,
        labels=None if labels is None else labels[chosen],
        classes=_mapped(listed.classes, labels, class_map, where),
        kinds=kinds(listed.root, picked) if listed.labels is None else len(np.unique(listed.labels[chosen])),
        skip_bad=skip_bad,
    )


def _mapped(
    classes: tuple[str, ...] | None, labels: Labels | None, class_map: Mapping[str, str] | None, name: str
) -> tuple[str, ...] | None:
    """Return the names of the classes as the map has them; classes without names are called by their index.

    Raises:
        InputError: the map names a class that the data does not have.
    """
    if not class_map or labels is None:
        return classes
    known = classes or tuple(str(k) for k in range(int(labels.max()) + 1))
    strange = sorted(set(class_map) - set(known)) if classes else []
    if strange:
        raise InputError(f"the class map of {name}: {unknown('class', strange[0], known)}")
    return tuple(class_map.get(each, each) for each in known)


def _by_index(
    name: str, found: ArraySet, labelled: bool | None, pick: Pick, class_map: Mapping[str, str] | None
) -> Images:
    chosen = pick(len(found), found.labels if labelled is not False else None)
    found = replace(found, classes=_mapped(found.classes, found.labels, class_map, name))
    return ArrayImages(name=name, found=found, chosen=chosen, labelled=labelled is not False)


def _streamed(items: Any, labelled: bool | None, limit: int | None, pick: Pick) -> Images:
    loads = hasattr(items, "batch_size") and hasattr(items, "dataset")  # a DataLoader has an order of its own
    if hasattr(items, "__getitem__") and hasattr(items, "__len__") and not loads:
        chosen = pick(len(items)) if len(items) else np.zeros(0, np.int64)
        return StreamImages(items, labelled=labelled, limit=limit, indices=chosen)
    if hasattr(items, "__iter__"):
        return StreamImages(items, labelled=labelled, limit=limit)
    raise InputError(f"images are a {type(items).__name__}; allowed: {TAKES}")


def _choose(
    count: int, labels: Labels | None = None, *, limit: int | None, shuffle: int | None, seed: int
) -> NDArray[np.int64]:
    """Indices of at most ``limit``: of every class its share, or evenly spaced where there are no labels."""
    wanted = count if limit is None else min(limit, count)
    if labels is None or wanted == count:
        chosen = np.arange(wanted) * count // wanted
    else:
        chosen = stratified(labels, wanted, seed)
    return chosen if shuffle is None else np.random.default_rng(shuffle).permutation(chosen)


def stratified(labels: Labels, wanted: int, seed: int) -> NDArray[np.int64]:
    """Indices, in order, of so many images, each class with its share of them to within one image.

    Proportional allocation (Cochran 1977, "Sampling Techniques", section 5.5): shares are rounded down, and the images
    that are left go to the largest remainders, drawn among equal ones. Within a class, chance decides.

    Args:
        labels: a class per image.
        wanted: how many, at most ``len(labels)``.
        seed: of the choice.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * wanted / len(labels)
    quota = np.floor(shares).astype(np.int64)
    largest = np.lexsort((rng.random(len(classes)), -(shares - quota)))
    quota[largest[: wanted - quota.sum()]] += 1
    taken = [order[labels[order] == k][:n] for k, n in zip(classes, quota, strict=True)]
    return np.sort(np.concatenate(taken))


def match_labels(images: Images, labels: Sequence[str] | None, outputs: int, offset: int) -> Labels | None:
    """Return data class to network class, as a table, checked against what the network can answer.

    Classes that have names are found by name, in any order; a number that is no name is an index. ``None`` where images
    have no labels, or bring them one by one: a class is then the network's.

    Args:
        images: with labels or without.
        labels: the network's class names, one per class, or ``None``.
        outputs: logits of the network.
        offset: class ``k`` is logit ``k + offset``.

    Raises:
        InputError: a class that the network does not have, or class folders that cannot be matched with its outputs.
    """
    if images.labels is None:
        return None
    names = images.classes
    if names is None:
        table = np.arange(int(images.labels.max()) + 1)
    elif labels is not None or all(name.isdecimal() for name in names):
        table = _by_name(names, labels or (), images.name)
    elif len(names) != outputs - offset:
        raise InputError(
            f"{images.name} has {len(names)} class folders but the network has {outputs} outputs and no class names; "
            "give its names with --labels FILE, name the folders by class index (0, 1, …), or give images/ with "
            "labels.csv"
        )
    else:
        table = np.arange(len(names))
    worst = int(table[np.unique(images.labels)].max(initial=0))
    if worst + offset >= outputs or worst + offset < 0:
        raise InputError(
            f"{images.name} has class {worst}, logit {worst + offset} with --label-offset {offset}, but the "
            f"network has {outputs} outputs; give data of this model's classes, or the offset that its head has"
        )
    return table


def _by_name(names: Sequence[str], labels: Sequence[str], data: str) -> Labels:
    """Return the index of each name among the labels; a number that is no label is an index.

    Raises:
        InputError: a name is neither.
    """
    index_of = {name: k for k, name in reversed(list(enumerate(labels)))}
    strange = sorted(name for name in names if name not in index_of and not name.isdecimal())
    if strange:
        shown = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
        raise InputError(
            f"{data} has unknown class {strange[0]!r} ({len(strange)} such); allowed: {shown}; "
            "--class-map FILE says which is which"
        )
    return np.array([index_of[name] if name in index_of else int(name) for name in names], np.int64)
