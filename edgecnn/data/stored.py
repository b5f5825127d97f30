"""Layouts of other libraries' data sets on disk: where the images of each split are, and their classes.

Images are files, or parts of larger files (``Part``); both are read when they are needed. Layouts: Hugging Face's
ImageFolder with ``metadata.csv`` or ``metadata.jsonl`` (here), its parquet and arrow files (``parquet``), TFDS
(``tfds``). A folder with ``train/`` and ``val/`` is two of any kind.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.progress import say
from edgecnn.reading import reading

Labels = NDArray[np.int64]
TRAINING, HELD_OUT = ("train",), ("val", "valid", "validation", "dev", "test")
SPLITS: Mapping[str, tuple[str, ...]] = {"calibration": TRAINING, "test": HELD_OUT}
"""What images are for, to the names of the splits that hold them, the best one first."""
TABLES = ("metadata.csv", "metadata.jsonl")
LABEL_COLUMNS = ("label", "labels")


class Encoded(Protocol):
    """An encoded image: a ``Path``, or a part of a file."""

    def read_bytes(self) -> bytes:
        """Return the image as its file has it; raise ``OSError`` where it cannot be read."""

    def as_posix(self) -> str:
        """Return its name."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The images of a data set, in order.

    Attributes:
        files: one per image.
        labels: (N,) class indices, or ``None`` where the data set has none.
        classes: their names, where they have some.
        root: the folder in which class subfolders are.
    """

    files: Sequence[Encoded]
    labels: Labels | None = None
    classes: tuple[str, ...] | None = None
    root: Path = Path()


def parts(root: Path) -> dict[str, Path]:
    """Return the folder of images for ``calibration`` and for ``test``, where a folder has ``train/`` and ``val/``."""
    found = {use: [root / name for name in names if (root / name).is_dir()] for use, names in SPLITS.items()}
    return {use: folders[0] for use, folders in found.items()} if all(found.values()) else {}


def stored(root: Path, use: str) -> Listing | None:
    """Return the images of a data set in another library's layout; ``None`` for another folder.

    Args:
        root: of the data set.
        use: of its splits, a key of ``SPLITS``.

    Raises:
        InputError: the data set is damaged, or has no such split.
        MissingDependencyError: pyarrow is needed, and not installed.
    """
    from edgecnn.data import parquet, tfds

    for layout in (tfds.listing, parquet.listing):
        with reading(root, remedy="download the data set again"):
            found = layout(root, use)
        if found is not None:
            return found
    table = next((root / name for name in TABLES if (root / name).is_file()), None)
    return None if table is None else _image_folder(root, table)


def chosen_split(splits: Iterable[str], use: str, where: Path) -> str:
    """Return the split that is for ``use``, and say so where there are several.

    Raises:
        InputError: there are several, and none has a name that says what it is for.
    """
    names = sorted(splits)
    if len(names) == 1:
        return names[0]
    found = next((name for name in SPLITS[use] if name in names), None)
    if found is None:
        wanted = " or ".join(SPLITS[use])
        raise InputError(f"{where} has splits {', '.join(names)}; name one {wanted}, or give a folder with one split")
    say(f"note: {where} has splits {', '.join(names)}; {found} is for {use}")
    return found


def indexed(labels: Sequence[Any], where: Path) -> tuple[Labels, tuple[str, ...] | None]:
    """Return class indices of labels that are indices or names; names are classes in their order.

    Raises:
        InputError: a label is neither.
    """
    texts = [str(label).strip() for label in labels]
    if any(not text or text == "None" for text in texts):
        raise InputError(f"{where}: image {next(i for i, t in enumerate(texts) if not t or t == 'None')} has no label")
    if all(text.isdecimal() for text in texts):
        return np.array([int(text) for text in texts], np.int64), None
    classes = tuple(sorted(set(texts)))
    index = {name: k for k, name in enumerate(classes)}
    return np.array([index[text] for text in texts], np.int64), classes


def _image_folder(root: Path, table: Path) -> Listing:
    """Return the images that ``metadata.csv`` or ``metadata.jsonl`` lists, with the labels of its column ``label``."""
    try:
        text = table.read_text("utf-8-sig")
        lines = list(filter(None, map(str.strip, text.splitlines())))
        rows = [json.loads(line) for line in lines] if table.suffix == ".jsonl" else list(csv.DictReader(lines))
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"cannot read {table} ({error}); it needs UTF-8 text with file_name and label") from None
    columns = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    if "file_name" not in columns or not all(isinstance(row, dict) and row.get("file_name") for row in rows):
        raise InputError(f"{table} has columns {', '.join(columns) or 'none'}; each image needs file_name")
    files = [root / row["file_name"] for row in rows]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise InputError(f"{table} lists {len(missing)} images that are not there, the first {missing[0]}")
    column = next((name for name in LABEL_COLUMNS if name in columns), None)
    labels, classes = (None, None) if column is None else indexed([row.get(column) for row in rows], table)
    return Listing(files=files, labels=labels, classes=classes)
