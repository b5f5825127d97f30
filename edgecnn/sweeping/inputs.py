"""Digests of what a sweep reads: images, weights, networks, recipes, devices, by content."""

from __future__ import annotations

import inspect
from functools import cache
from pathlib import Path

from edgecnn.errors import InputError
from edgecnn.files import sha256
from edgecnn.graph.importers import importer_of
from edgecnn.jobs import FileInput
from edgecnn.jobs.transfer import digest_of_files
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
    path = file_of(given)
    if path is None:
        raise InputError(f"there is no {given}; give a file, a folder, or {' or '.join(NAMED)} where it is allowed")
    return sha256(f"{split_of(given)}\n{file_input(path).digest}".encode())


def file_of(given: str) -> Path | None:
    """Return the file or folder that a value names, ``None`` where it names none."""
    file, _, _ = given.rpartition(":")
    paths = (Path(each) for each in (given, file) if each and given not in NAMED)
    return next((path for path in paths if path.exists()), None)


def split_of(given: str) -> str:
    """Return the ``:SPLIT`` of ``FILE.npz:SPLIT``, else an empty text."""
    path = file_of(given)
    return "" if path is None or path == Path(given) else f":{given.rpartition(':')[2]}"


@cache
def file_input(path: Path) -> FileInput:
    """Return a file or folder with the digest of its content; of a network, with the files that go with it.

    Raises:
        InputError: one of these is missing.
    """
    importer = importer_of(path) if path.is_file() else None
    files = importer.beside(path) if importer is not None else ()
    beside = tuple(file.relative_to(path.resolve().parent).as_posix() for file in files)
    return FileInput(path.absolute(), digest_of_files(path, beside), beside)


@cache
def digest_of_code(name: str) -> str:
    """Return the SHA-256 of the file of ``package.module:function``.

    Raises:
        InputError: it cannot be imported.
    """
    file = inspect.getsourcefile(imported(name, "a model"))
    return sha256(Path(file).read_bytes()) if file else name
