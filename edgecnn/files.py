"""Files written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError


def sha256(data: bytes | memoryview) -> str:
    """Return the hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def write_atomic(path: Path, data: bytes, *, remedy: str = "choose another place with -o") -> None:
    """Write a file so that a reader, or a kill at any moment, sees the old content or the new, never a part.

    Raises:
        InputError: the place cannot be written; names the path, the reason, and the remedy.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(partial).chmod(0o644)
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; {remedy}") from None


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON by ``write_atomic``; key order is kept, so equal content gives equal bytes."""
    write_atomic(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def require_writable(directory: Path) -> None:
    """Check that files can be written in a directory (which may not be there yet).

    Raises:
        InputError: they cannot; names what is in the way.
    """
    place = directory
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {directory}: {place} is not a writable directory; choose another with -o")
