"""Artifacts and their manifests: where converters and targets meet. Knows no file format and no runtime."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown
from edgecnn.files import sha256, write_atomic, write_json
from edgecnn.graph.ir import Metadata
from edgecnn.reading import reading
from edgecnn.records import read_record
from edgecnn.sbom import LIBRARIES, bill_of_materials, library_versions

PRECISIONS = ("fp32", "fp16", "w8", "int8", "int16x8")
INTEGER_PRECISIONS = ("int8", "int16x8")  # activations are integers too
LAYOUTS = {"NHWC": 4, "NCHW": 4, "NC": 2, "ND": None}  # to the dimensions; ND: any others, in the graph's order
INTEGER_PORTS = ("int8", "uint8", "int16")


@dataclass(frozen=True, kw_only=True)
class Port:
    """One of the artifact's inputs or outputs as its file has it.

    Attributes:
        name: the graph's, under which the file has it too (in TFLite in its signature).
        shape: with the batch, in ``layout``.
        layout: one of ``LAYOUTS``: ``NHWC``, ``NCHW``, ``NC`` or ``ND``.
        dtype: numpy name: ``float32``, ``int8``, ``uint8`` or ``int16``.
        scale: real = scale * (integer - zero_point); ``None`` for float32.
        zero_point: as above.

    Raises:
        InputError: a value is outside what is allowed, or they do not fit together.
    """

    name: str
    shape: tuple[int, ...]
    layout: str
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS or LAYOUTS[self.layout] not in (None, len(self.shape)):
            raise InputError(f"port {self.name!r} has shape {self.shape} in {self.layout!r}; allowed: {LAYOUTS}")
        if self.dtype not in ("float32", *INTEGER_PORTS):
            raise InputError(unknown("port type", self.dtype, ("float32", *INTEGER_PORTS)))
        given = (self.scale is not None, self.zero_point is not None)
        if given != (self.dtype in INTEGER_PORTS,) * 2:
            raise InputError(f"port {self.name!r} is {self.dtype}: integers have scale and zero point, float32 neither")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"port {self.name!r} has scale {self.scale}; it must be a finite number above 0")

    @property
    def sample(self) -> tuple[int, ...]:
        """Return the shape of one sample in the graph's layout: images (height, width, channels)."""
        shape = self.shape[1:]
        return (*shape[1:], shape[0]) if self.layout == "NCHW" else shape

    def encode(self, real: NDArray[np.float32]) -> NDArray[Any]:
        """Convert real values in the graph's layout, any batch, to what the file takes: its layout and integers."""
        values = np.ascontiguousarray(real.transpose(0, 3, 1, 2)) if self.layout == "NCHW" else real
        if self.scale is None or self.zero_point is None:
            return values
        limits = np.iinfo(self.dtype)
        integers = np.rint(values / np.float32(self.scale)) + self.zero_point
        clipped: NDArray[Any] = np.clip(integers, limits.min, limits.max).astype(self.dtype)
        return clipped

    def decode(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Convert what the file returns to real values in the graph's layout."""
        values = raw.transpose(0, 2, 3, 1) if self.layout == "NCHW" else raw
        if self.scale is None or self.zero_point is None:
            return values.astype(np.float32)
        return (values.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)


def layout_of(shape: tuple[int, ...], images: str) -> str:
    """Return the layout of a shape, with the batch; ``images`` is that of one of 4 dimensions."""
    return {4: images, 2: "NC"}.get(len(shape), "ND")


class Ported:
    """Hold inputs and outputs, each in the graph's order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def input(self) -> Port:
        """Return the only input.

        Raises:
            InputError: there are several.
        """
        return _only(self.inputs, "inputs")

    @property
    def output(self) -> Port:
        """Return the only output.

        Raises:
            InputError: there are several.
        """
        return _only(self.outputs, "outputs")


def _only(ports: tuple[Port, ...], side: str) -> Port:
    if len(ports) != 1:
        raise InputError(f"the artifact has {side} {', '.join(port.name for port in ports)}; name one")
    return ports[0]


@dataclass(frozen=True, kw_only=True)
class ConvertedModel(Ported):
    """Hold what a converter makes of a graph, still in memory.

    Attributes:
        target: the format's name, a row of the converters' registry.
        precision: one of ``PRECISIONS``.
        files: suffix to content; the main file first (``.tflite``; ``.xml`` then ``.bin``).
        inputs: how to feed it, in the graph's order.
        outputs: how to read it, likewise.
        folder: ending of the folder that holds the files (``_c``: ``NAME_c``), or empty: they stand beside others'.
    """

    target: str
    precision: str
    files: Mapping[str, bytes]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    folder: str = ""


@dataclass(frozen=True, kw_only=True)
class Manifest(Ported):
    """The record beside an artifact, ``NAME.<target>.json``.

    Attributes:
        target: format of the artifact.
        precision: one of ``PRECISIONS``.
        files: file name to ``{"sha256", "size_bytes"}``; the main file first.
        inputs: how to feed it, in the graph's order.
        outputs: how to read it, likewise.
        metadata: model, preprocessing, labels, weights digest, quantization (recipe, calibration digest, seed).
        versions: library versions that made the artifact.
        sbom: all software that made it; see ``sbom.bill_of_materials``.
        figures: one report entry per device it was checked on.

    Raises:
        InputError: the precision is unknown, or a file's record is not its plain name, hash and size.
    """

    target: str
    precision: str
    files: Mapping[str, Mapping[str, Any]]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: Metadata
    versions: Mapping[str, str] = field(default_factory=dict)
    sbom: Mapping[str, Any] = field(default_factory=dict)
    figures: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(unknown("precision", self.precision, PRECISIONS))
        for name, facts in self.files.items():
            if name in ("", "..") or Path(name).name != name or set(facts) != {"sha256", "size_bytes"}:
                raise InputError(f"manifest: file {name!r} needs a plain name and exactly sha256 and size_bytes")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; ``records.read_record`` reads it back."""
        return {**asdict(self), "metadata": self.metadata.to_json(), "figures": list(self.figures)}


def manifest_path(artifact: Path, target: str) -> Path:
    """Return ``OUT/NAME.<target>.json`` of ``OUT/NAME.<suffix>``."""
    return artifact.with_name(f"{artifact.stem}.{target}.json")


def graph_path(artifact: Path) -> Path:
    """Return ``OUT/NAME.edgecnn`` of ``OUT/NAME.<suffix>``, or of one in a folder of its own, ``OUT/NAME_c/NAME.c``."""
    own = artifact.parent.name == f"{artifact.stem}_{artifact.suffix[1:]}"
    return (artifact.parent if own else artifact).with_name(f"{artifact.stem}.edgecnn")


def write_artifact(
    directory: Path, name: str, model: ConvertedModel, metadata: Metadata, libraries: Sequence[str] = LIBRARIES
) -> Path:
    """Write a converted model's files and its manifest; return the main file's path.

    A kill at any moment leaves the old artifact, the new one, or none: what would no longer match (the old manifest;
    the old main file of a pair) goes first, the main file comes last of the files, and the manifest after it.

    Raises:
        InputError: the directory cannot be written.
    """
    (suffix, main), *others = model.files.items()
    home = directory / f"{name}{model.folder}" if model.folder else directory
    path = home / f"{name}{suffix}"
    record = manifest_path(path, model.target)
    try:
        for stale in (record, *([path] if others else [])):
            stale.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot replace {path}: {error.strerror}; choose another place with -o") from None
    for other, data in others:
        write_atomic(home / f"{name}{other}", data)
    write_atomic(path, main)
    manifest = Manifest(
        target=model.target,
        precision=model.precision,
        files={f"{name}{s}": {"sha256": sha256(d), "size_bytes": len(d)} for s, d in model.files.items()},
        inputs=model.inputs,
        outputs=model.outputs,
        metadata=metadata,
        versions=library_versions(tuple(libraries)),
        sbom=bill_of_materials(tuple(libraries)),
    )
    write_json(record, manifest.to_json())
    _written[path.resolve()] = _state(path)
    return path


_written: dict[Path, tuple[int, int]] = {}
"""Main files that this process has written, as they were then."""


def was_written_here(path: Path) -> bool:
    """Tell whether this process has written an artifact, and nobody has changed it since."""
    try:
        return _written.get(path.resolve()) == _state(path)
    except OSError:
        return False


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def read_manifest(artifact: Path, target: str) -> Manifest | None:
    """Return the manifest beside an artifact, checked against the files' hashes; ``None`` where there is none.

    Raises:
        InputError: the manifest is not JSON or lacks a key, describes another artifact, or a file is missing or its
            hash differs.
    """
    record = manifest_path(artifact, target)
    if not record.exists():
        return None
    try:
        with reading("it"):
            manifest = read_record(Manifest, json.loads(record.read_text(encoding="utf-8")), "manifest")
    except (OSError, ValueError, InputError) as error:
        raise InputError(f"{record} is not a readable manifest ({error}); export the artifact again") from None
    if manifest.target != target or artifact.name not in manifest.files:
        described = f"{', '.join(manifest.files)} ({manifest.target})"
        raise InputError(f"{record} describes {described}, not {artifact.name} ({target}); export the artifact again")
    for name, facts in manifest.files.items():
        place = artifact.with_name(name)
        try:
            digest = sha256(place.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {place}, which {record.name} names ({error}); export it again") from None
        if digest != facts["sha256"]:
            raise InputError(f"{place} is not the file that {record.name} describes (sha256 differs); export it again")
    return manifest
