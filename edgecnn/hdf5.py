"""Try an HDF5 file in a child process first: libhdf5 can hang, crash or take all memory on a damaged one.

A child reads all that edgecnn will read, with a limit on time and memory. The library does the same in this process
with the same bytes.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgecnn.budget import Budget, budget
from edgecnn.errors import InputError

LIBRARIES = 2**30  # bytes of address space that Python, numpy and h5py take
SAVE = "save it again"


def probe(path: Path, content: bytes | None = None) -> None:
    """Read a file in a child process.

    Args:
        path: of the file, or of the archive that it is in.
        content: of a file in an archive.

    Raises:
        InputError: the child failed, hung, crashed, or took too much memory.
    """
    allowed, source = budget(), "-" if content is not None else str(path)
    command = [sys.executable, "-m", "edgecnn.hdf5", str(allowed.memory), str(allowed.seconds), source]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=2 * allowed.seconds, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: HDF5 hangs on it; it is damaged: {SAVE}") from None
    if done.returncode == 0:
        return
    last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
    why = "".join(last) if done.returncode > 0 else f"HDF5 was ended by signal {-done.returncode}"
    raise InputError(f"{path} is not an HDF5 file, or a damaged one ({why[:200]}); {SAVE}")


def _limited(memory: int, seconds: float) -> None:
    """Limit this process. Windows has no such limits; the parent's timeout stays."""
    try:
        import resource
    except ImportError:
        return
    limits = {resource.RLIMIT_AS: memory + LIBRARIES, resource.RLIMIT_CPU: int(seconds), resource.RLIMIT_CORE: 0}
    for what, most in limits.items():
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, hard))


def _read_all(source: Any, allowed: Budget, size: int) -> None:
    """Read every attribute and array of a file.

    Raises:
        InputError: they are too many or too large.
    """
    import h5py

    total = count = 0

    def visit(name: str, item: Any) -> None:
        nonlocal total, count
        count += 1
        allowed.require_count(count, "groups and arrays")
        for value in item.attrs.values():
            total += getattr(value, "nbytes", 0)
        if isinstance(item, h5py.Dataset):
            total += int(item.nbytes)
            allowed.require(total, "it", file_bytes=size)
            if not (item.is_virtual or item.external):
                item[()]

    with h5py.File(source, "r") as file:
        visit("", file)
        file.visititems(visit)


def main(memory: str, seconds: str, source: str) -> int:
    """Read a file, ``-`` from stdin; return the exit status."""
    import h5py  # noqa: F401 - before the limits

    content = sys.stdin.buffer.read() if source == "-" else None
    _limited(int(memory) + len(content or b""), float(seconds))
    size = len(content) if content is not None else Path(source).stat().st_size
    try:
        _read_all(io.BytesIO(content) if content is not None else source, Budget(memory=int(memory)), size)
    except Exception as error:  # noqa: BLE001 - it is the answer
        sys.stderr.write(" ".join(f"{error or type(error).__name__}".split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
