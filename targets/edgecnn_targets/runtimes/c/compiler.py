"""Find and call the C compiler of this machine, or the one that ziglang brings."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edgecnn.errors import InputError, MissingDependencyError

NAMES = ("cc", "gcc", "clang")
INSTALL = "install a C compiler (gcc or clang), or: pip install ziglang"


def host_compiler() -> list[str] | None:
    """Return the words that call it, or ``None`` where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return [found]
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def compile_shared(sources: Sequence[Path], library: Path, options: Sequence[str] = ("-O2",)) -> None:
    """Compile C99 sources into one shared library for this machine.

    Raises:
        MissingDependencyError: there is no compiler.
        InputError: the sources do not compile.
    """
    compiler = host_compiler()
    if compiler is None:
        raise MissingDependencyError(f"running C needs a compiler: {INSTALL}")
    words = [*compiler, "-std=c99", *options, "-shared", "-fPIC", "-o", str(library), *map(str, sources)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = next(filter(None, map(str.strip, done.stderr.splitlines())), "it said nothing")
        raise InputError(f"{sources[0]} does not compile ({said}); export it again")
