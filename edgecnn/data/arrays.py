"""Images in a numpy archive: ``FILE.npz:SPLIT`` is its arrays ``x_SPLIT`` and ``y_SPLIT``, lossless and in one file."""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown

_WHERE = re.compile(r"(?P<file>.+\.npz)(?::(?P<split>\w+))?")


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySet:
    """One split of an archive.

    Attributes:
        pixels: (N, height, width, 3) uint8, RGB.
        labels: (N,) class indices, or ``None`` where the archive has none.
        digest: SHA-256 of the file.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    digest: str


def is_array_set(where: str) -> bool:
    """Whether a user names an archive rather than a folder."""
    return _WHERE.fullmatch(where) is not None


@contextmanager
def _archive(path: Path) -> Iterator[tuple[NpzFile, list[str]]]:
    """An open archive, nothing in which is executed, and its splits."""
    if not path.is_file():
        raise InputError(f"no file at {path}; give FILE.npz:SPLIT, a folder of images, or demo")
    try:
        with np.load(path, allow_pickle=False) as archive:
            yield archive, [name.removeprefix("x_") for name in archive.files if name.startswith("x_")]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        why = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""  # else: to unpickle it
        raise InputError(f"{path} is not a numpy archive of arrays x_SPLIT, y_SPLIT, or is cut short{why}") from None


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
        if split not in splits:
            raise InputError(f"{where}: {unknown('split', split or '', splits)}; give {path}:SPLIT")
        pixels = archive[f"x_{split}"]
        labels = archive[f"y_{split}"] if f"y_{split}" in archive.files else None
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not len(pixels):
        raise InputError(f"{where}: x_{split} is {pixels.dtype} {pixels.shape}; it must be uint8 (N, height, width, 3)")
    if labels is not None:
        if labels.shape != pixels.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise InputError(
                f"{where}: y_{split} is {labels.dtype} {labels.shape}; it must be {len(pixels)} class indices from 0"
            )
        labels = labels.astype(np.int64)
    elif labelled:
        raise InputError(f"{where} has no labels: an array y_SPLIT of class indices beside x_SPLIT")
    with path.open("rb") as file:
        return ArraySet(pixels=pixels, labels=labels, digest=hashlib.file_digest(file, "sha256").hexdigest())
