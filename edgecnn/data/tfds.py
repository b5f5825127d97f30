"""TensorFlow Datasets on disk: TFRecord shards of ``tf.train.Example``, read without TensorFlow.

A shard is records: the length (uint64), its checksum, the data, its checksum; all little-endian. Source: TensorFlow
``core/lib/io/record_writer.h``, ``core/example/example.proto``, ``core/lib/hash/crc32c.h``. The checksum of the length
is verified; damage in the data is found when an image is decoded.
"""

from __future__ import annotations

import json
import mmap
import re
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.data.stored import Encoded, Listing, chosen_split
from edgecnn.errors import InputError

SHARD = re.compile(r"(?P<name>.+?)\.(?P<format>tfrecords?|array_record|riegeli)(-\d+-of-\d+)?")
FEATURES = "features.json"
USUAL = {"Image": ("image", "image/encoded"), "ClassLabel": ("label", "image/class/label")}
HEAD = struct.Struct("<QI")  # length and its checksum
TAIL = 4  # bytes of the checksum of the data
MASK = 0xA282EAD8
POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types of protobuf

Span = tuple[int, int]  # start and end of bytes in a file


@dataclass(frozen=True)
class Record:
    """An image inside a shard."""

    file: Path
    start: int
    size: int

    def read_bytes(self) -> bytes:
        """See ``Encoded``."""
        with self.file.open("rb") as shard:
            shard.seek(self.start)
            return shard.read(self.size)

    def as_posix(self) -> str:
        """See ``Encoded``."""
        return f"{self.file.as_posix()}:{self.start}"

    def __str__(self) -> str:
        return self.as_posix()


def listing(root: Path, use: str) -> Listing | None:
    """Return the images of a folder of shards, or of its newest version; ``None`` where it has none. See ``stored``."""
    versions = [folder for folder in root.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", folder.name)]
    newest = max(versions, key=lambda folder: tuple(map(int, folder.name.split("."))), default=root)
    by_split: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(newest.iterdir()):
        if (match := SHARD.fullmatch(file.name)) is None:
            continue
        if not match["format"].startswith("tfrecord"):
            raise InputError(f"{file} is {match['format']}; only TFRecord shards are read: write them with tfds")
        by_split[match["name"].rpartition("-")[2]].append(file)
    if not by_split:
        return None
    image, label = (_feature(newest, kind) for kind in ("Image", "ClassLabel"))
    found: list[Encoded] = []
    labels: list[int | None] = []
    for file in by_split[chosen_split(by_split, use, newest)]:
        for place, class_index in _examples(file, image, label):
            found.append(Record(file, place[0], place[1] - place[0]))
            labels.append(class_index)
    if not found:
        raise InputError(f"{newest} has no images in its shards; features {', '.join(image)} were looked for")
    if None in labels:
        return Listing(files=found)
    return Listing(files=found, labels=np.array(labels, np.int64), classes=_names(newest, label))


def _feature(root: Path, kind: str) -> tuple[str, ...]:
    """Return the names that the feature of a kind may have: the one in ``features.json``, or the usual ones."""
    try:
        described = json.loads((root / FEATURES).read_text("utf-8"))["featuresDict"]["features"]
        typed = [name for name, one in described.items() if one["pythonClassName"].rpartition(".")[2] == kind]
    except FileNotFoundError:
        typed = []
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{root / FEATURES} is damaged ({error!r}); download the data set again") from None
    return tuple(typed[:1]) or USUAL[kind]


def _names(root: Path, label: tuple[str, ...]) -> tuple[str, ...] | None:
    for name in label:
        file = root / f"{name}.labels.txt"
        if file.is_file():
            return tuple(file.read_text("utf-8").split("\n")[: len(file.read_text("utf-8").splitlines())])
    return None


def _examples(file: Path, image: tuple[str, ...], label: tuple[str, ...]) -> Iterator[tuple[Span, int | None]]:
    """Yield where each image of a shard is, and its class.

    Raises:
        InputError: the shard is damaged, or compressed.
    """
    if file.stat().st_size == 0:
        return
    with file.open("rb") as shard, mmap.mmap(shard.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while at < len(data):
            try:
                length, checksum = HEAD.unpack_from(data, at)
                if masked_crc(data[at : at + 8]) != checksum or at + HEAD.size + length + TAIL > len(data):
                    raise ValueError("no record begins there")
                start = at + HEAD.size
                features = _features(data, (start, start + length))
                place = next((features[name][0] for name in image if features.get(name)), None)
                classes = next((features[name] for name in label if name in features), None)
                if place is not None:
                    yield place, None if not classes else classes[0][0]
            except (struct.error, ValueError, IndexError) as error:
                said = f"{file} is damaged or compressed at byte {at} ({error})"
                raise InputError(f"{said}; give TFRecord shards without compression") from None
            at = start + length + TAIL


def _features(data: mmap.mmap, example: Span) -> dict[str, list[Span]]:
    """Return the features of an example: where each byte string is; of integers, each as ``(value, value)``."""
    found: dict[str, list[Span]] = {}
    for _, features in _fields(data, example):
        for _, entry in _fields(data, features):
            parts = dict(_fields(data, entry))
            name = data[slice(*parts[1])].decode()
            found[name] = []
            for kind, values in _fields(data, parts[2]) if 2 in parts else ():
                if kind == 1:
                    found[name] += [span for _, span in _fields(data, values)]
                elif kind == 3:
                    found[name] += [(value, value) for value in _integers(data, values)]
    return found


def _integers(data: mmap.mmap, span: Span) -> Iterator[int]:
    """Yield the integers of an ``Int64List``, packed or not."""
    for _, inner in _fields(data, span, whole=True):
        at, end = inner
        while at < end:
            value, at = _varint(data, at)
            yield value


def _fields(data: mmap.mmap, span: Span, *, whole: bool = False) -> Iterator[tuple[int, Span]]:
    """Yield the number of each field of a message, and where its bytes are; with ``whole``, also of varints."""
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        start = at
        if wire == BYTES:
            size, start = _varint(data, at)
            at = start + size
        elif wire == VARINT:
            _, at = _varint(data, at)
        elif wire in (FIXED64, FIXED32):
            at += 8 if wire == FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} in a message")
        if at > end:
            raise ValueError("a field is longer than its message")
        if wire == BYTES or (whole and wire == VARINT):
            yield number, (start, at)


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("an integer is longer than 64 bits")


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (POLYNOMIAL if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


CRC = _crc_table()


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of the data as TFRecord files have it: rotated, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF
