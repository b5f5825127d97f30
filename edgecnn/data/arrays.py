"""Images by index: an array, the demo data, or a numpy archive, lossless and in one file.

``FILE.npz:SPLIT`` is the arrays ``x_SPLIT`` and ``y_SPLIT`` of an archive. ``FILE.npz`` without such arrays holds one
for each input of a network, by its name, and, where there are classes, ``labels``.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edgecnn.budget import require_members
from edgecnn.data import demo
from edgecnn.data.stored import Labels
from edgecnn.errors import EdgecnnError, InputError, unknown

_WHERE = re.compile(r"(?P<file>.+\.npz)(?::(?P<split>\w+))?")


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySet:
    """Images by index.

    Attributes:
        pixels: (N, height, width, channels), uint8 levels or network inputs, or (N, ...) of another input; takes an
            array of indices. By input, where there are several.
        labels: (N,) class indices, or ``None`` where there are none.
        digest: SHA-256 of the file or the array, or what the images are made from.
        classes: their names, where they have some.
    """

    pixels: NDArray[Any] | DemoPixels | Mapping[str, NDArray[Any]]
    labels: Labels | None
    digest: str
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(next(iter(self.pixels.values()))) if isinstance(self.pixels, Mapping) else len(self.pixels)


class DemoPixels:
    """The demo images of a split, drawn when they are asked for: (N, 96, 96, 3) uint8."""

    def __init__(self, split: str) -> None:
        self._split = split

    def __len__(self) -> int:
        return demo.TEST_IMAGES if self._split == "test" else demo.CALIBRATION_IMAGES

    def __getitem__(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        return demo.images(self._split, indices.tolist())[0]


def demo_set(split: str) -> ArraySet:
    """Return the demo data of a split, ``test`` or ``calibration``."""
    pixels = DemoPixels(split)
    digest = f"edgecnn demo {demo.VERSION} {split} seed 0"
    return ArraySet(pixels=pixels, labels=demo.labels(split, range(len(pixels))), digest=digest, classes=demo.CLASSES)


def held_set(images: NDArray[Any] | Mapping[str, Any], labels: Any) -> ArraySet:
    """Return arrays of samples, and labels where there are some, as a set; shapes are those of ``ArraySet``.

    Raises:
        InputError: another shape or type, or no samples.
    """
    if isinstance(images, Mapping):
        return _named({str(name): np.asarray(array) for name, array in images.items()}, labels, "array", "")
    levels = images.dtype == np.uint8
    if images.ndim < 2 or not len(images) or (images.ndim != 4 if levels else images.dtype.kind != "f"):
        raise InputError(
            f"images are {images.dtype} {images.shape}; give uint8 levels of shape (N, height, width, channels), or "
            "network inputs in float32"
        )
    classes = None if labels is None else _indices(np.asarray(labels), len(images), "labels are", "give")
    digest = hashlib.sha256(np.ascontiguousarray(images).data).hexdigest()
    return ArraySet(pixels=images, labels=classes, digest=f"{digest} array")


def _named(arrays: Mapping[str, NDArray[Any]], labels: Any, name: str, where: str) -> ArraySet:
    counts = {len(array) if array.ndim > 1 else 0 for array in arrays.values()}
    if len(counts) != 1 or not min(counts):
        got = ", ".join(f"{key} {array.shape}" for key, array in arrays.items()) or "no arrays"
        raise InputError(f"{where}samples are {got}; give (N, …) for each input, of the same N")
    classes = None if labels is None else _indices(np.asarray(labels), min(counts), f"{where}labels are", "give")
    digest = hashlib.sha256()
    for key, array in arrays.items():
        digest.update(f"{key} {array.dtype} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return ArraySet(pixels=arrays, labels=classes, digest=f"{digest.hexdigest()} {name}")


def _indices(labels: NDArray[Any], count: int, named: str, verb: str) -> Labels:
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise InputError(f"{named} {labels.dtype} {labels.shape}; {verb} {count} class indices from 0")
    return labels.astype(np.int64)


def is_array_set(where: str) -> bool:
    """Whether a user names an archive rather than a folder."""
    return _WHERE.fullmatch(where) is not None


def _of_inputs(where: str, arrays: dict[str, NDArray[Any]], labelled: bool) -> ArraySet:
    labels = arrays.pop("labels", None)
    if labelled and labels is None:
        raise InputError(f"{where} has no labels: an array of class indices named labels beside those of the inputs")
    return _named(arrays, labels, "archive", f"{where}: ")


@contextmanager
def _archive(path: Path) -> Iterator[tuple[NpzFile, list[str]]]:
    """An open archive, nothing in which is executed, and its splits."""
    if not path.is_file():
        raise InputError(f"no file at {path}; give FILE.npz:SPLIT, a folder of images, or demo")
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, NpzFile):
            raise InputError(f"{path} holds one array; give an archive of arrays, as np.savez writes it")
        with archive:
            yield archive, [name.removeprefix("x_") for name in archive.files if name.startswith("x_")]
    except EdgecnnError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""  # else: to unpickle it
        raise InputError(f"{path} is not a numpy archive of arrays x_SPLIT, y_SPLIT, or is cut short{why}") from error


def _unpacked(archive: NpzFile, names: Sequence[str], path: Path) -> dict[str, NDArray[Any]]:
    """Return arrays of an archive; nothing else in it is unpacked.

    Raises:
        InputError: they take more than the budget, or one claims more than the archive holds.
    """
    assert archive.zip is not None  # it is open
    members = {name: name if name in archive.zip.namelist() else f"{name}.npy" for name in names}
    require_members(archive.zip, members.values(), path)
    for name, member in members.items():
        with archive.zip.open(member) as file:
            claimed, held = _claimed(file), archive.zip.getinfo(member).file_size
        if claimed > held:
            raise InputError(f"{path}: {name!r} claims {claimed} bytes, of which the archive has {held}; save it again")
    return {name: archive[name] for name in names}


def _claimed(file: Any) -> int:
    """Return how many bytes the header of an array says that it has.

    Raises:
        ValueError: it is no header of numpy's.
    """
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array of format {version}")
    shape, _, dtype = read(file)
    if any(d < 0 for d in shape):
        raise ValueError(f"a shape of {shape}")
    return math.prod(shape) * dtype.itemsize


def array_splits(path: Path) -> list[str]:
    """The splits of an archive.

    Raises:
        InputError: no such file, or not an archive of arrays.
    """
    with _archive(path) as (_, splits):
        return splits


def load_array_set(where: str, *, labelled: bool) -> ArraySet:
    """The split of an archive that a user names.

    Args:
        where: ``FILE.npz:SPLIT``.
        labelled: whether every image must have a class.

    Raises:
        InputError: no such file or split, not an archive of arrays, arrays of another kind, or no labels.
    """
    match = _WHERE.fullmatch(where)
    assert match is not None
    path, split = Path(match["file"]), match["split"]
    with _archive(path) as (archive, splits):
        if split is None and not splits:
            return _of_inputs(where, _unpacked(archive, archive.files, path), labelled)
        if split not in splits:
            raise InputError(f"{where}: {unknown('split', split or '', splits)}; give {path}:SPLIT")
        wanted = [name for name in (f"x_{split}", f"y_{split}") if name in archive.files]
        found = _unpacked(archive, wanted, path)
        pixels, labels = found[f"x_{split}"], found.get(f"y_{split}")
    if pixels.ndim < 2 or not len(pixels) or (pixels.dtype != np.uint8 and pixels.dtype != np.float32):
        raise InputError(
            f"{where}: x_{split} is {pixels.dtype} {pixels.shape}; it must be uint8 (N, height, width, channels), or "
            "float32 network inputs"
        )
    if labels is not None:
        labels = _indices(labels, len(pixels), f"{where}: y_{split} is", "it must be")
    elif labelled:
        raise InputError(f"{where} has no labels: an array y_SPLIT of class indices beside x_SPLIT")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ArraySet(pixels=pixels, labels=labels, digest=f"{digest} {split}")
