"""Image files in a folder, and the classes that the folder gives them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.data.stored import Labels, Listing, parts, stored
from edgecnn.errors import InputError
from edgecnn.progress import say
from edgecnn.reading import reading

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def listing(root: Path, use: str, *, labelled: bool | None) -> Listing:
    """Return the images of a folder, in any of the layouts that are known.

    Args:
        root: the folder.
        use: of a data set with splits, which one: a key of ``stored.SPLITS``.
        labelled: whether every image must have a class; ``None`` takes classes where there are some.

    Raises:
        InputError: no such folder, no images in it, or no labels.
        MissingDependencyError: its files need a library that is not installed.
    """
    inside = parts(_folder(root))
    if inside:
        say(f"note: {root} has {' and '.join(f'{path.name}/' for path in inside.values())}; {use}: {inside[use]}")
        return listing(inside[use], use, labelled=labelled)
    with reading(root, remedy="download the data set again"):
        found = None if (root / "labels.csv").is_file() else stored(root, use)
    if found is not None:
        if labelled and found.labels is None:
            raise InputError(f"{root} has no labels: its images need a column, or a feature, label")
        return found
    if labelled or (labelled is None and has_classes(root)):
        files, labels, classes = labelled_files(root)
        return Listing(files=files, labels=labels, classes=classes, root=root)
    return Listing(files=any_images(root), root=root)


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give a folder of images, or demo")
    return root


def any_images(root: Path) -> list[Path]:
    images = _folder(root) / "images"
    inside = images if (root / "labels.csv").is_file() and images.is_dir() else root
    files = _images_below(inside)
    if not files:
        raise InputError(f"no images in {root}; looked for {', '.join(SUFFIXES)} in it and its subfolders")
    return files


def has_classes(root: Path) -> bool:
    """Whether the folder says which class every image is of."""
    return (_folder(root) / "labels.csv").is_file() or kinds(root, _images_below(root)) is not None


def kinds(root: Path, files: Sequence[Any]) -> int | None:
    """How many classes the files are of, by ``labels.csv`` or by subfolder; ``None`` where neither says."""
    if (root / "labels.csv").is_file():
        listed, labels = _table(root)
        label_of = dict(zip(listed, labels.tolist(), strict=True))
        return len({label_of[file] for file in files}) if set(files) <= set(label_of) else None
    if not all(isinstance(file, Path) and file.is_relative_to(root) for file in files):
        return None
    folders = [file.relative_to(root).parts[:-1] for file in files]
    return len({parts[0] for parts in folders}) if all(folders) else None


def _images_below(root: Path) -> list[Path]:
    found = (p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def labelled_files(root: Path) -> tuple[list[Path], Labels, tuple[str, ...] | None]:
    if (_folder(root) / "labels.csv").is_file():
        files, labels = _table(root)
        return files, labels, None
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if all(p.name.isdecimal() for p in folders):
        folders.sort(key=lambda p: int(p.name))
        indices, classes = [int(p.name) for p in folders], None
    else:
        indices, classes = list(range(len(folders))), tuple(p.name for p in folders)
    found = [(file, index) for folder, index in zip(folders, indices, strict=True) for file in _images_below(folder)]
    if not found:
        need = "class subfolders of images, or images/ with labels.csv (file,class_index)"
        raise InputError(f"no labelled images in {root}; it must hold {need}")
    return [file for file, _ in found], np.array([index for _, index in found], np.int64), classes


def _table(root: Path) -> tuple[list[Path], Labels]:
    path = root / "labels.csv"
    files, labels = [], []
    try:
        with reading(path, remedy="mend it"), path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if not {"file", "class_index"} <= set(columns):
                raise InputError(f"{path} has columns {', '.join(columns) or 'none'}; it needs file,class_index")
            for number, row in enumerate(reader, start=2):
                if not (row["file"] and (row["class_index"] or "").strip().isdecimal()):
                    got = f"{row['file']!r},{row['class_index']!r}"
                    raise InputError(f"{path} line {number}: {got}; needs file,class_index")
                files.append(root / "images" / row["file"])
                labels.append(int(row["class_index"]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        need = "it must be UTF-8 text with the columns file,class_index"
        raise InputError(f"cannot read {path} ({error}); {need}") from None
    if not files:
        raise InputError(f"{path} lists no images; each line is file,class_index")
    with reading(path, remedy="mend it"):  # a name may be longer than the system has them
        missing = [f.name for f in files if not f.is_file()]
    if missing:
        where = f"in {root / 'images'}, the first {missing[0]!r}"
        raise InputError(f"{path} lists {len(missing)} images that are not {where}")
    return files, np.array(labels, np.int64)
