"""C networks on this machine: compiled to a shared library, called in this process."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown
from edgecnn_targets.interface import Runtime, Session
from edgecnn_targets.runtimes.c.cnetwork import read_network
from edgecnn_targets.runtimes.c.compiler import INSTALL, compile_shared, host_compiler


class CSession(Session):
    """An open C network, ``NAME.c``; see ``Session``. It has one thread and one kind of kernels, ``exact``.

    Raises:
        InputError: the files are missing, not what `edgecnn export` wrote, or do not compile.
        MissingDependencyError: there is no C compiler.
    """

    def __init__(self, path: Path, *, threads: int = 1, kernels: str | None = None) -> None:
        if kernels not in (None, "exact"):
            raise InputError(unknown("kernels", kernels, ("exact",)))
        network = read_network(path)
        super().__init__(network.description)
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "network.so"
            compile_shared([path], library)
            self._invoke = ctypes.CDLL(str(library))[network.function]

    def infer(self, image: NDArray[Any]) -> NDArray[Any]:
        fed, made = np.ascontiguousarray(image), np.empty(self.output.shape, np.int8)
        self._invoke(ctypes.c_void_p(fed.ctypes.data), ctypes.c_void_p(made.ctypes.data))
        return made


RUNTIME = Runtime(
    target="c",
    description="C99 for microcontrollers, compiled for where it runs",
    open_session=CSession,
    needs=lambda: None if host_compiler() else INSTALL,
)
