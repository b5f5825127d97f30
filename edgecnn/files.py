"""Files written whole or not at all, folders that one process at a time writes, and temporary folders.

What a killed process left is removed by the next one that writes to the same place.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError

LOCK = ".edgecnn.lock"
PARTIAL = ".part"  # .NAME.PROCESS.RANDOM.part
SCRATCH = "edgecnn-"  # edgecnn-PROCESS-RANDOM

_swept: set[Path] = set()


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
        _sweep(path.parent, f".*{PARTIAL}", at=-3)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}.", suffix=PARTIAL)
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


@contextmanager
def exclusive(folder: Path, *, wait: bool = True, say: Callable[[str], None] = lambda line: None) -> Iterator[None]:
    """Hold a folder in the body: of several processes that write it, one at a time does.

    The folder is made; if nothing is written to it, it is removed again.

    Args:
        folder: what is held, by a file ``.edgecnn.lock`` that is removed at the end.
        wait: until the process that holds it has ended.
        say: is told that this one waits.

    Raises:
        InputError: another process holds it and ``wait`` is false, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    made = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if not wait:
                raise InputError(f"another export writes {folder}; let it end, or choose another with -o") from None
            say(f"waiting for another export that writes {folder}")
            lock.acquire()
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}; choose another with -o") from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # it is not empty: something was written
            for place in made:
                place.rmdir()


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a temporary folder that is removed at the end."""
    _sweep(Path(tempfile.gettempdir()), f"{SCRATCH}*-*", separator="-", at=1)
    with tempfile.TemporaryDirectory(prefix=f"{SCRATCH}{os.getpid()}-") as folder:
        yield Path(folder)


def _sweep(folder: Path, pattern: str, *, separator: str = ".", at: int) -> None:
    """Remove what processes that have ended left in a folder, once per process.

    Args:
        folder: where it is.
        pattern: of the names.
        separator: of the words of a name.
        at: which word is the number of the process.
    """
    if folder in _swept or os.name != "posix":
        return
    _swept.add(folder)
    for left in folder.glob(pattern):
        words = left.name.split(separator)
        if len(words) > abs(at) and words[at].isdecimal() and not _alive(int(words[at])):
            with suppress(OSError):  # another user's, or gone
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


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
