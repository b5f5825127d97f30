"""Build what devices need once, and keep it in a folder of the user's: whole, or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from edgecnn.errors import InputError
from edgecnn_targets.interface import Say

VARIABLE = "EDGECNN_CACHE"
OTHERS = stat.S_IWGRP | stat.S_IWOTH
REMEDY = f"set {VARIABLE} to a folder with room"


def cache_dir() -> Path:
    """Return ``$EDGECNN_CACHE``, or ``edgecnn`` in the platform's folder for caches. It may not be there yet.

    Programs in it are executed, so it must be the user's own.

    Raises:
        InputError: it belongs to another user, or others may write to it.
    """
    chosen = os.environ.get(VARIABLE)
    place = Path(chosen).absolute() if chosen else user_cache_path("edgecnn", appauthor=False)
    try:
        facts = place.stat()
    except OSError:
        return place
    if os.name == "posix" and facts.st_uid != os.geteuid():
        raise InputError(f"the cache {place} belongs to another user; set {VARIABLE} to a folder of your own")
    if os.name == "posix" and facts.st_mode & OTHERS:
        raise InputError(f"others may write to the cache {place}, whose programs are executed: chmod go-w {place}")
    return place


def make_cache() -> None:
    """Make the cache, a folder that only its user enters, unless it is there. Raises OSError."""
    place = cache_dir()
    place.parent.mkdir(parents=True, exist_ok=True)
    place.mkdir(mode=0o700, exist_ok=True)


def ensure(name: str, build: Callable[[Path], object], say: Say = lambda line: None, what: str = "") -> bool:
    """Build ``cache_dir() / name``, a folder, unless it is there; return whether it was built now.

    ``build`` fills an empty folder, which takes its name only when it is finished: a kill at any moment leaves the
    folder or none. What a killed build left is removed by the next one. Of two processes that want the same folder,
    one builds it and the other waits.

    Args:
        name: names what is inside completely (content hashes, versions), so that another content is another folder.
        say: is told ``what`` when it is built here, and when another process is building it.
        what: one line for the person at the terminal.

    Raises:
        InputError: the cache cannot be written; names the place and the reason.
    """
    final = cache_dir() / name
    try:
        make_cache()
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(final.parent / f".{final.name}.lock")
        try:
            held = lock.acquire(blocking=False)
        except Timeout:
            say(f"waiting for another process that sets up {final}")
            held = lock.acquire()
        with held:
            return _build(final, build, say, what)
    except OSError as error:
        place = error.filename or final
        raise InputError(f"cannot write {place}: {error.strerror}; {REMEDY}") from None


def _build(final: Path, build: Callable[[Path], object], say: Say, what: str) -> bool:
    if final.is_dir():
        return False
    for left in final.parent.glob(f".{final.name}.*.part"):
        shutil.rmtree(left)
    partial = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}.", suffix=".part"))
    try:
        if what:
            say(what)
        build(partial)
        partial.chmod(0o755)
        partial.rename(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return True
