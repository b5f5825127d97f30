"""Digests of what a sweep reads: images, weights, networks, recipes, devices, by content."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from edgecnn.errors import InputError
from edgecnn.files import sha256
from edgecnn.plugins import imported

NAMED = ("demo", "none", "random")  # images and weights that are no files


@cache
def digest_of(given: str) -> str:
    """Return the SHA-256 of a file or of all files of a folder; of ``demo``, ``none`` and ``random`` the name.

    Args:
        given: a path, or ``FILE.npz:SPLIT``.

    Raises:
        InputError: there is no such file or folder.
    """
    if given in NAMED:
        return given
    file, _, split = given.rpartition(":")
    path = Path(given) if Path(given).exists() or not file else Path(file)
    if not path.exists():
        raise InputError(f"there is no {path}; give a file, a folder, or {' or '.join(NAMED)} where it is allowed")
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return sha256("\n".join([split if path != Path(given) else "", *_lines(path, files)]).encode())


def _lines(root: Path, files: Iterable[Path]) -> Iterable[str]:
    for file in files:
        with file.open("rb") as content:
            yield f"{file.relative_to(root)} {hashlib.file_digest(content, 'sha256').hexdigest()}"


@cache
def digest_of_code(name: str) -> str:
    """Return the SHA-256 of the file of ``package.module:function``.

    Raises:
        InputError: it cannot be imported.
    """
    file = inspect.getsourcefile(imported(name, "a model"))
    return sha256(Path(file).read_bytes()) if file else name
