"""Results of benchmarks as rows: each is a file, made again only when what it depends on has changed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import edgecnn

Row = dict[str, Any]
TARGETS = ("tflite", "onnx", "openvino")


def digest(*parts: bytes) -> str:
    """Return the first 16 digits of the sha256."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little") + part)
    return whole.hexdigest()[:16]


def code_digest() -> str:
    """Return the digest of all Python files of edgecnn and of its converters and runtimes."""
    import edgecnn_converters
    import edgecnn_targets

    folders = [Path(str(package.__file__)).parent for package in (edgecnn, edgecnn_converters, edgecnn_targets)]
    return digest(*(file.read_bytes() for folder in folders for file in sorted(folder.rglob("*.py"))))


def in_process(function: Callable[..., Row], *arguments: Any) -> Row:
    """Run a function in a new process, which is not a fork of this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def kept(place: Path, key: Sequence[Any], job: Callable[[], Row]) -> Row:
    """Return the row of a file whose key is this one; otherwise do the job and write its row there."""
    wanted = json.loads(json.dumps(list(key)))
    if place.exists() and (row := json.loads(place.read_text())).get("key") == wanted:
        return dict(row)
    row = {"key": wanted, **job()}
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_suffix(".half")
    half.write_text(json.dumps(row))
    half.replace(place)
    return row


def machine() -> str:
    """Name the CPU, and whether it has VNNI where Linux says so."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    vnni = "VNNI" if {"avx512_vnni", "avx_vnni"} & set(flags) else "no VNNI"
    return f"{platform.machine()}, {os.cpu_count()} cores, {vnni}, Python {platform.python_version()}"
