"""Files that jobs read on machines that do not see those of this one: named by content, packed, kept in a cache."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FileInput:
    """A file or folder that a job reads. Among a task's arguments, it stands for a path on the machine of the job.

    Attributes:
        path: where it is on the machine that gives the task.
        digest: of its content, as ``digest_of_files`` returns it.
        beside: files that go with a file, such as its external data, by their paths in its folder.
    """

    path: Path
    digest: str
    beside: tuple[str, ...] = ()


def digest_of_files(path: Path, beside: Sequence[str] = ()) -> str:
    """Return the SHA-256 of a file, or of the names and contents of all files in a folder, or of those beside a file.

    Raises:
        OSError: one cannot be read.
    """
    if beside:
        named = _together(path, beside)
    elif path.is_dir():
        named = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    else:
        return _sha256(path)
    lines = (f"{name} {_sha256(file)}" for name, file in named.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _together(path: Path, beside: Sequence[str]) -> dict[str, Path]:
    """Return a file and those beside it by name; of a link, they are in the folder of the file that it leads to."""
    return {path.name: path, **{name: path.resolve().parent / name for name in beside}}


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def size_of_files(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())


def pack(path: Path, name: str, beside: Sequence[str] = ()) -> bytes:
    """Return a file or folder as a tar archive, in which it has a name; links are followed.

    With files beside it, the name is that of a folder which holds them and the file.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", dereference=True) as archive:
        if beside:
            for each, file in _together(path, beside).items():
                archive.add(file, arcname=f"{name}/{each}")
        else:
            archive.add(path, arcname=name)
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Write the content of an archive of ``pack`` into a new folder, whole or not at all; one that is there stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(partial, filter="data")
        partial.chmod(0o755)
        with suppress(OSError):  # another process was first
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@cache
def shared(given: FileInput) -> bool:
    """Return whether this machine sees the same content under the same path."""
    with suppress(OSError):
        return digest_of_files(given.path, given.beside) == given.digest
    return False


def inputs_of(value: Any) -> list[FileInput]:
    """Return the files among arguments, in nested tuples and mappings too."""
    if isinstance(value, FileInput):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple) else ()
    return [each for one in inner for each in inputs_of(one)]


def located(value: Any, place: Callable[[FileInput], Path]) -> Any:
    """Return arguments in which each file is a path, in nested tuples and mappings too."""
    if isinstance(value, FileInput):
        return place(value)
    if isinstance(value, Mapping):
        return {key: located(each, place) for key, each in value.items()}
    if isinstance(value, tuple):
        return tuple(located(each, place) for each in value)
    return value
