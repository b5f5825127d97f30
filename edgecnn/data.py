"""Images from a folder or from the demo data, decoded as they are needed, in bounded memory.

A folder holds class subfolders of images, or ``images/`` with ``labels.csv`` (``file,class_index``). Subfolders are the
classes in the order of their names, or, where every name is a number, that class. Where no labels are needed
(calibration) any folder with images somewhere inside will do. ``FILE.npz:SPLIT`` is a numpy archive (``arrays.py``).
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgecnn import demo
from edgecnn.arrays import ArraySet, is_array_set, load_array_set
from edgecnn.errors import InputError
from edgecnn.preprocess import Preprocess

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
WORKERS = min(4, os.cpu_count() or 1)
HELD_OUT = 0.1  # of a training folder without val/
DECODED = "RGB"

Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


class Images(Protocol):
    """A set of images that is read once, batch by batch."""

    @property
    def name(self) -> str:
        """What the user called it."""

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

    def __len__(self) -> int:
        """Images in the set, bad ones included."""

    def batches(self, preprocess: Preprocess, size: int) -> Iterator[tuple[Pixels, Labels | None]]:
        """Pixels ``(n, height, width, 3)`` uint8 after resize and crop, and labels, at most ``size`` at a time."""


def open_images(
    where: str,
    *,
    demo_split: str,
    labelled: bool,
    limit: int | None = None,
    shuffle: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> Images:
    """The images that a user named.

    Args:
        where: a folder, ``FILE.npz:SPLIT``, or ``demo``.
        demo_split: of the demo data: ``test`` or ``calibration``.
        labelled: whether every image must have a class.
        limit: at most so many. Of labelled images, each class keeps its share; others are spread evenly over the set.
        shuffle: seed of the order, or ``None`` to keep it.
        seed: which images of a class are among them.
        skip_bad: leave unreadable images out, instead of stopping.

    Raises:
        InputError: no such folder, no images in it, or labels that are not as this module says.
    """
    if where == "demo":
        count = demo.TEST_IMAGES if demo_split == "test" else demo.CALIBRATION_IMAGES
        known = demo.labels(demo_split, range(count), 0) if labelled and limit is not None else None
        return _DemoImages(split=demo_split, chosen=_choose(count, limit, shuffle, known, seed), labelled=labelled)
    if is_array_set(where):
        found = load_array_set(where)
        if labelled and found.labels is None:
            raise InputError(f"{where} has no labels: an array y_SPLIT of class indices beside x_SPLIT")
        chosen = _choose(len(found.pixels), limit, shuffle, found.labels if labelled else None, seed)
        return _ArrayImages(name=where, found=found, chosen=chosen, labelled=labelled)
    files, labels, classes = _labelled(Path(where)) if labelled else (_any_images(Path(where)), None, None)
    chosen = _choose(len(files), limit, shuffle, labels, seed)
    picked = [files[i] for i in chosen]
    return _FolderImages(
        name=where,
        files=picked,
        labels=None if labels is None else labels[chosen],
        classes=classes,
        kinds=_kinds(Path(where), picked),
        skip_bad=skip_bad,
    )


def _choose(count: int, limit: int | None, shuffle: int | None, labels: Labels | None, seed: int) -> NDArray[np.int64]:
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


# --- finding files ---


def _folder(root: Path) -> Path:
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give a folder of images, or demo")
    return root


def _any_images(root: Path) -> list[Path]:
    images = _folder(root) / "images"
    inside = images if (root / "labels.csv").is_file() and images.is_dir() else root
    files = _images_below(inside)
    if not files:
        raise InputError(f"no images in {root}; looked for {', '.join(SUFFIXES)} in it and its subfolders")
    return files


def _kinds(root: Path, files: Sequence[Path]) -> int | None:
    """How many classes the files are of, by ``labels.csv`` or by subfolder; ``None`` where neither says."""
    if (root / "labels.csv").is_file():
        listed, labels = _table(root)
        label_of = dict(zip(listed, labels.tolist(), strict=True))
        return len({label_of[file] for file in files}) if set(files) <= set(label_of) else None
    folders = [file.relative_to(root).parts[:-1] for file in files]
    return len({parts[0] for parts in folders}) if all(folders) else None


def _images_below(root: Path) -> list[Path]:
    found = (p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    return sorted(found, key=lambda p: p.relative_to(root).as_posix())


def _labelled(root: Path) -> tuple[list[Path], Labels, tuple[str, ...] | None]:
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
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if not {"file", "class_index"} <= set(columns):
                raise InputError(f"{path} has columns {', '.join(columns) or 'none'}; it needs file,class_index")
            for number, row in enumerate(reader, start=2):
                if not (row["file"] and (row["class_index"] or "").strip().isdecimal()):
                    raise InputError(
                        f"{path} line {number}: {row['file']!r},{row['class_index']!r}; needs file,class_index"
                    )
                files.append(root / "images" / row["file"])
                labels.append(int(row["class_index"]))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"cannot read {path} ({error}); it must be UTF-8 text with the columns file,class_index"
        ) from None
    if not files:
        raise InputError(f"{path} lists no images; each line is file,class_index")
    missing = [f.name for f in files if not f.is_file()]
    if missing:
        raise InputError(
            f"{path} lists {len(missing)} images that are not in {root / 'images'}, the first {missing[0]!r}"
        )
    return files, np.array(labels, np.int64)


def match_labels(images: Images, labels: Sequence[str] | None, outputs: int, offset: int) -> Labels:
    """Data class to network class, as a table, checked against what the network can answer.

    Args:
        images: labelled.
        labels: the network's class names, one per class, or ``None``.
        outputs: logits of the network.
        offset: class ``k`` is logit ``k + offset``.

    Raises:
        InputError: a class that the network does not have, or class folders that cannot be matched with its outputs.
    """
    assert images.labels is not None
    names = images.classes
    if names is None:
        worst = int(images.labels.max())
        if not 0 <= worst + offset < outputs:
            raise InputError(
                f"{images.name} has class {worst}, logit {worst + offset} with --label-offset {offset}, but the "
                f"network has {outputs} outputs; give data of this model's classes, or the offset that its head has"
            )
        return np.arange(worst + 1)
    if labels is not None:
        strange = sorted(set(names) - set(labels))
        if strange:
            shown = ", ".join(labels[:20]) + (", …" if len(labels) > 20 else "")
            raise InputError(f"{images.name} has unknown class {strange[0]!r} ({len(strange)} such); allowed: {shown}")
        return np.array([labels.index(name) for name in names], np.int64)
    if len(names) != outputs - offset:
        raise InputError(
            f"{images.name} has {len(names)} class folders but the network has {outputs} outputs and no class names; "
            "name the folders by class index (0, 1, …), or give images/ with labels.csv"
        )
    return np.arange(len(names))


# --- decoding ---


class BadImageError(Exception):
    """One image that cannot be decoded; the message is the reason."""


def decode(data: bytes, preprocess: Preprocess) -> Pixels:
    """``(height, width, 3)`` uint8 RGB of an encoded image, resized and cropped as ``preprocess`` says.

    Raises:
        BadImageError: not an image, truncated, or smaller than the crop.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            rgb = image.convert(DECODED)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow's decoders raise
        raise BadImageError(str(error).replace("<_io.BytesIO object at ", "<").splitlines()[0]) from None
    return _placed(rgb, preprocess)


def _placed(image: object, preprocess: Preprocess) -> Pixels:
    from PIL import Image

    assert isinstance(image, Image.Image)
    width, height = image.size
    if preprocess.resize is not None:
        if len(preprocess.resize) == 2:
            height, width = preprocess.resize
        else:
            (side,) = preprocess.resize
            short = min(width, height)
            height, width = round(height * side / short), round(width * side / short)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling[preprocess.interpolation.upper()])
    if preprocess.crop is not None:
        rows, columns = preprocess.crop
        if rows > height or columns > width:
            raise BadImageError(f"{height}x{width} pixels are less than the crop of {rows}x{columns}")
        top, left = (height - rows) // 2, (width - columns) // 2
        image = image.crop((left, top, left + columns, top + rows))
    return np.asarray(image)


def resize_arrays(pixels: Pixels, preprocess: Preprocess) -> Pixels:
    """``(n, H, W, 3)`` uint8 resized and cropped as ``preprocess`` says."""
    from PIL import Image

    if preprocess.crop is None and preprocess.resize == pixels.shape[1:3]:
        return pixels
    return np.stack([_placed(Image.fromarray(image), preprocess) for image in pixels])


@dataclass(kw_only=True)
class _FolderImages:
    name: str
    files: list[Path]
    labels: Labels | None
    classes: tuple[str, ...] | None
    skip_bad: bool
    kinds: int | None = None
    bad: list[str] = field(default_factory=list)
    digest: str = ""

    def __len__(self) -> int:
        return len(self.files)

    def batches(self, preprocess: Preprocess, size: int) -> Iterator[tuple[Pixels, Labels | None]]:
        hashes: dict[str, str] = {}
        pixels: list[Pixels] = []
        kept: list[int] = []
        for i, image in enumerate(self._decoded(preprocess, hashes, ahead=2 * size)):
            if image is None:
                continue
            if pixels and image.shape != pixels[0].shape:
                raise InputError(
                    f"{self.files[i]} is {image.shape[0]}x{image.shape[1]} pixels, others {pixels[0].shape[0]}x"
                    f"{pixels[0].shape[1]}; say how to resize with --preprocess resize=HEIGHTxWIDTH"
                )
            pixels.append(image)
            kept.append(i)
            if len(pixels) == size:
                yield np.stack(pixels), self._labels_of(kept)
                pixels, kept = [], []
        if pixels:
            yield np.stack(pixels), self._labels_of(kept)
        if len(self.bad) == len(self.files):
            raise InputError(
                f"none of the {len(self.files)} images in {self.name} can be read, the first {self.bad[0]}"
            )
        lines = "".join(f"{name} {hashes[name]}\n" for name in sorted(hashes))
        self.digest = hashlib.sha256(lines.encode()).hexdigest()

    def _labels_of(self, kept: list[int]) -> Labels | None:
        return None if self.labels is None else self.labels[kept]

    def _decoded(self, preprocess: Preprocess, hashes: dict[str, str], ahead: int) -> Iterator[Pixels | None]:
        """Images in order, decoded by threads a little ahead; ``None`` for a bad one that is skipped."""

        def work(path: Path) -> tuple[str, Pixels]:
            try:
                data = path.read_bytes()
            except OSError as error:
                raise BadImageError(error.strerror or "cannot be read") from None
            return hashlib.sha256(data).hexdigest(), decode(data, preprocess)

        self.bad = []
        with ThreadPoolExecutor(WORKERS) as pool:
            waiting: deque[tuple[Path, Future[tuple[str, Pixels]]]] = deque()
            files = iter(self.files)
            try:
                while True:
                    while len(waiting) < ahead and (path := next(files, None)) is not None:
                        waiting.append((path, pool.submit(work, path)))
                    if not waiting:
                        break
                    path, future = waiting.popleft()
                    try:
                        digest, image = future.result()
                    except BadImageError as error:
                        self.bad.append(f"{path} ({error})")
                        if not self.skip_bad:
                            ahead = max(ahead, len(self.files))  # the rest is read only to count what else is bad
                        yield None
                        continue
                    hashes[path.as_posix()] = digest
                    yield None if self.bad and not self.skip_bad else image
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        if self.bad and not self.skip_bad:
            raise InputError(
                f"{len(self.bad)} of {len(self.files)} images in {self.name} cannot be read, the first {self.bad[0]}; "
                "mend or remove them, or pass --skip-bad-images"
            )


@dataclass(kw_only=True)
class _DemoImages:
    split: str
    chosen: NDArray[np.int64]
    labelled: bool
    seed: int = 0

    @property
    def name(self) -> str:
        return "demo"

    @property
    def classes(self) -> tuple[str, ...] | None:
        return demo.CLASSES if self.labelled else None

    @property
    def labels(self) -> Labels | None:
        return demo.labels(self.split, map(int, self.chosen), self.seed) if self.labelled else None

    @property
    def kinds(self) -> int | None:
        return len(set(demo.labels(self.split, map(int, self.chosen), self.seed).tolist()))

    @property
    def bad(self) -> Sequence[str]:
        return ()

    @property
    def digest(self) -> str:
        record = f"edgecnn demo {demo.VERSION} {self.split} seed {self.seed}: {sorted(self.chosen.tolist())}"
        return hashlib.sha256(record.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.chosen)

    def batches(self, preprocess: Preprocess, size: int) -> Iterator[tuple[Pixels, Labels | None]]:
        for i in range(0, len(self.chosen), size):
            pixels, labels = demo.images(self.split, (int(k) for k in self.chosen[i : i + size]), self.seed)
            yield resize_arrays(pixels, preprocess), labels if self.labelled else None


@dataclass(kw_only=True)
class _ArrayImages:
    name: str
    found: ArraySet
    chosen: NDArray[np.int64]
    labelled: bool
    classes: tuple[str, ...] | None = None
    bad: Sequence[str] = ()

    @property
    def kinds(self) -> int | None:
        return None if self.found.labels is None else len(np.unique(self.found.labels[self.chosen]))

    @property
    def labels(self) -> Labels | None:
        return self.found.labels[self.chosen] if self.labelled and self.found.labels is not None else None

    @property
    def digest(self) -> str:
        record = f"{self.found.digest} {self.name.rpartition(':')[2]}: {sorted(self.chosen.tolist())}"
        return hashlib.sha256(record.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.chosen)

    def batches(self, preprocess: Preprocess, size: int) -> Iterator[tuple[Pixels, Labels | None]]:
        for i in range(0, len(self.chosen), size):
            part = self.chosen[i : i + size]
            labels = self.found.labels[part] if self.labelled and self.found.labels is not None else None
            yield resize_arrays(self.found.pixels[part], preprocess), labels


# --- training ---


@dataclass(frozen=True, kw_only=True)
class TrainingFolder:
    """Images of a folder by index, decoded when asked for; see ``train.TrainingImages``."""

    classes: tuple[str, ...]
    labels: Labels
    files: tuple[Path, ...]
    preprocess: Preprocess

    def pixels(self, indices: NDArray[np.int64]) -> Pixels:
        """(N, H, W, 3) uint8.

        Raises:
            InputError: an image cannot be read.
        """

        def work(i: int) -> Pixels:
            try:
                return decode(self.files[i].read_bytes(), self.preprocess)
            except (BadImageError, OSError) as error:
                raise InputError(f"{self.files[i]} cannot be read ({error}); mend or remove it") from None

        with ThreadPoolExecutor(WORKERS) as pool:
            return np.stack(list(pool.map(work, indices.tolist())))


def open_training_folder(root: Path, preprocess: Preprocess, seed: int) -> tuple[TrainingFolder, TrainingFolder]:
    """Training and held-out images: ``train/`` and ``val/`` inside the folder, or nine tenths of it and the rest.

    Raises:
        InputError: as ``open_images``; or the two parts have other classes, or fewer than two.
    """
    if (root / "train").is_dir() and (root / "val").is_dir():
        parts = [_labelled(root / "train"), _labelled(root / "val")]
        if parts[0][2] != parts[1][2]:
            raise InputError(f"{root / 'train'} and {root / 'val'} have different class folders")
    else:
        files, labels, names = _labelled(root)
        order = np.random.default_rng(seed).permutation(len(files))
        cut = max(1, round(len(files) * HELD_OUT))
        split = [np.sort(order[cut:]), np.sort(order[:cut])]
        parts = [([files[i] for i in part], labels[part], names) for part in split]
    count = 1 + max(int(labels.max(initial=-1)) for _, labels, _ in parts)
    if count < 2 or not len(parts[0][1]):
        raise InputError(f"{root} has {count} class; training needs two or more, and images of them")
    classes = parts[0][2] or tuple(str(k) for k in range(count))
    training, held_out = (
        TrainingFolder(classes=classes, labels=labels, files=tuple(files), preprocess=preprocess)
        for files, labels, _ in parts
    )
    return training, held_out
