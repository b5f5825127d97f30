"""Parquet and arrow files of Hugging Face's ``datasets``: images in a column of bytes, read by pyarrow.

Parquet files lie in the folder or in its ``data/``, named by their split (``train-00000-of-00004.parquet``). What
``save_to_disk`` writes is arrow files beside ``state.json``. Class names are in the schema's metadata.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.data.stored import LABEL_COLUMNS, Encoded, Listing, chosen_split, indexed
from edgecnn.errors import InputError, MissingDependencyError

IMAGE_COLUMNS = ("image", "img")
HELD = 8  # groups of rows in memory at a time: as many as threads read, and those that follow


@dataclass(frozen=True)
class Row:
    """An image in a row of a file.

    Attributes:
        group: of rows, read together.
        row: in its group.
    """

    file: Path
    column: str
    group: int
    row: int

    def read_bytes(self) -> bytes:
        """See ``Encoded``."""
        value = _images(self.file, self.column, self.group)[self.row].as_py()
        data = value.get("bytes") if isinstance(value, Mapping) else value
        if data is None and isinstance(value, Mapping) and value.get("path"):
            return (self.file.parent / str(value["path"])).read_bytes()
        if not isinstance(data, bytes):
            raise OSError(0, f"column {self.column!r} holds no bytes of an image")
        return bytes(data)

    def as_posix(self) -> str:
        """See ``Encoded``."""
        return f"{self.file.as_posix()}:{self.group}:{self.row}"

    def __str__(self) -> str:
        return self.as_posix()


def listing(root: Path, use: str) -> Listing | None:
    """Return the images of a folder of parquet or arrow files; ``None`` where it has none. See ``stored``."""
    arrow = sorted(root.glob("*.arrow")) if (root / "state.json").is_file() else []
    if arrow:
        return _listed(arrow, root)
    by_split: dict[str, list[Path]] = defaultdict(list)
    for file in sorted([*root.glob("*.parquet"), *(root / "data").glob("*.parquet")]):
        by_split[file.stem.partition("-")[0]].append(file)
    if not by_split:
        return None
    if all(split.isdecimal() for split in by_split):  # one split in numbered files
        return _listed([file for files in by_split.values() for file in files], root)
    return _listed(by_split[chosen_split(by_split, use, root)], root)


def _listed(files: list[Path], root: Path) -> Listing:
    first = _schema(files[0])
    features = json.loads((first.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
    image = _column(first.names, features, "Image", IMAGE_COLUMNS)
    label = _column(first.names, features, "ClassLabel", LABEL_COLUMNS)
    if image is None:
        raise InputError(f"{root} has columns {', '.join(first.names)}; none is an image (image or img)")
    found: list[Encoded] = []
    labels: list[Any] = []
    for file in files:
        for group, count in enumerate(_groups(file)):
            found += [Row(file, image, group, row) for row in range(count)]
        if label is not None:
            labels += _open(file, [label]).column(label).to_pylist()
    if not found:
        raise InputError(f"{root} has no images in {len(files)} files")
    if label is None:
        return Listing(files=found)
    names = features.get(label, {}).get("names")
    if names and all(isinstance(value, int) for value in labels):
        return Listing(files=found, labels=np.array(labels, np.int64), classes=tuple(names))
    indices, classes = indexed(labels, root)
    return Listing(files=found, labels=indices, classes=classes)


def _column(names: list[str], features: Mapping[str, Any], kind: str, usual: tuple[str, ...]) -> str | None:
    """Return the column of a kind of feature, or one of a usual name."""
    typed = [name for name in names if isinstance(features.get(name), dict) and features[name].get("_type") == kind]
    return next((name for name in (*typed, *usual) if name in names), None)


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingDependencyError("parquet and arrow files need pyarrow: pip install 'edgecnn[parquet]'") from None
    return pyarrow


def _reading(file: Path, error: Exception) -> InputError:
    return InputError(f"cannot read {file} ({' '.join(str(error).split())}); it is damaged, or no file of a data set")


def _schema(file: Path) -> Any:
    arrow = _arrow()
    try:
        if file.suffix == ".parquet":
            return arrow.parquet.read_schema(file)
        with arrow.memory_map(str(file)) as source:
            return arrow.ipc.open_stream(source).schema
    except (OSError, arrow.ArrowException) as error:
        raise _reading(file, error) from None


def _groups(file: Path) -> list[int]:
    """Return how many rows each group of a file has."""
    arrow = _arrow()
    if file.suffix == ".parquet":
        held = arrow.parquet.ParquetFile(file).metadata
        return [held.row_group(i).num_rows for i in range(held.num_row_groups)]
    with arrow.memory_map(str(file)) as source:
        return [batch.num_rows for batch in arrow.ipc.open_stream(source)]


def _open(file: Path, columns: list[str]) -> Any:
    arrow = _arrow()
    try:
        if file.suffix == ".parquet":
            return arrow.parquet.read_table(file, columns=columns)
        with arrow.memory_map(str(file)) as source:
            return arrow.ipc.open_stream(source).read_all().select(columns)
    except (OSError, arrow.ArrowException) as error:
        raise _reading(file, error) from None


@lru_cache(maxsize=HELD)
def _images(file: Path, column: str, group: int) -> Any:
    """Return the column of images of a group of rows."""
    arrow = _arrow()
    try:
        if file.suffix == ".parquet":
            return arrow.parquet.ParquetFile(file).read_row_group(group, columns=[column]).column(column)
        with arrow.memory_map(str(file)) as source:
            batches = list(arrow.ipc.open_stream(source))
        return batches[group].column(column)
    except arrow.ArrowException as error:
        raise OSError(0, " ".join(str(error).split())) from None
