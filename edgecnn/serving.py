"""Answer requests in a child process; ``child.Child`` is the other end."""

from __future__ import annotations

import ctypes
import faulthandler
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from edgecnn.budget import Budget, use
from edgecnn.child import Shared
from edgecnn.errors import EdgecnnError
from edgecnn.own_code import said

PR_SET_PDEATHSIG = 1  # Linux, prctl(2)
PER_THREAD = 128 * 2**20  # bytes of address space that a thread's stack and heap take


class Attached(Shared):
    """Shared memory that the parent made."""

    def __init__(self, fd: int) -> None:
        self.fd, self._file, self._map = fd, None, None


def limit(memory: int) -> None:
    """Limit the address space to what this process has now, and so many bytes more."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    held = Path("/proc/self/statm")
    if held.exists():
        pages = int(held.read_text("ascii").split()[0])
        threads = PER_THREAD * (os.cpu_count() or 1)
        most, (_, hard) = pages * resource.getpagesize() + memory + threads, resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))


def answered(request: dict[str, Any], state: dict[str, Any], shared: Shared) -> dict[str, Any]:
    """Run the function that a request names; return the answer."""
    shared.grow(int(request["size"]))
    module, _, name = request["call"].partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    arrays = shared.views([(n, kind, tuple(shape), at) for n, kind, shape, at in request["arrays"]])
    answer, made = function(state, request["given"], arrays)
    places, size = shared.put(made)
    return {"answer": answer, "arrays": places, "size": size}


def main(fd: int, allowed: int, memory: int) -> None:
    """Answer until stdin ends.

    Args:
        fd: of the shared memory.
        allowed: the budget's memory.
        memory: bytes that ``limit`` leaves to a function that calls it.
    """
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    wire = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    shared, state = Attached(fd), {"memory": memory}
    with use(Budget(memory=allowed)):
        for line in sys.stdin.buffer:
            try:
                found = answered(json.loads(line), state, shared)
            except EdgecnnError as error:
                found = {"error": str(error), "kind": type(error).__name__}
            except Exception as error:  # noqa: BLE001 - it is the answer
                found = {"error": said(error), "kind": type(error).__name__}
            wire.write(json.dumps({**found, "bytes": 0}).encode() + b"\n")
            wire.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
