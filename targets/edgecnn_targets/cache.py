"""What devices need is built once and kept in a folder of the user's: whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from edgecnn.errors import InputError

VARIABLE = "EDGECNN_CACHE"
REMEDY = f"set {VARIABLE} to a folder with room"


def cache_dir() -> Path:
    """``$EDGECNN_CACHE``, or ``edgecnn`` in the platform's folder for caches. It may not be there yet."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/edgecnn"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData/Local")) / "edgecnn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgecnn"


def ensure(name: str, build: Callable[[Path], None]) -> bool:
    """Build ``cache_dir() / name``, a folder, unless it is there; whether it was built now.

    ``build`` fills an empty folder, which takes its name only when it is finished: a kill at any moment leaves the
    folder or none. What a killed build left is removed by the next one. Two processes that want the same folder do not
    build it twice.

    Args:
        name: names what is inside completely (content hashes, versions), so that another content is another folder.
        build: fills the folder it is given.

    Raises:
        InputError: the cache cannot be written; names the place and the reason.
    """
    final = cache_dir() / name
    try:
        with _locked(final):
            if final.is_dir():
                return False
            for left in final.parent.glob(f".{final.name}.*.part"):
                shutil.rmtree(left)
            partial = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".part"))
            try:
                build(partial)
                partial.chmod(0o755)
                partial.rename(final)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            return True
    except OSError as error:
        place = error.filename or final
        raise InputError(f"cannot write {place}: {error.strerror}; {REMEDY}") from None


@contextlib.contextmanager
def _locked(final: Path) -> Iterator[None]:
    """One process at a time; the lock goes with the process, so a killed one leaves none."""
    import fcntl

    final.parent.mkdir(parents=True, exist_ok=True)
    with (final.parent / f".{final.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
