"""C networks on this machine: compiled to a shared library, called in this process."""

from __future__ import annotations

import ctypes
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, unknown
from edgecnn_targets.interface import Op, Runtime
from edgecnn_targets.runtimes.c.cnetwork import CNetwork, read_network
from edgecnn_targets.runtimes.c.compiler import INSTALL, compile_shared, host_compiler


class CSession:
    """An open C network; see ``Session``.

    Args:
        path: ``NAME.c``.
        threads: ignored: a C network has one.
        kernels: ``None`` or ``exact``; there is one kind.

    Raises:
        InputError: the files are missing, not what `edgecnn export` wrote, or do not compile.
        MissingDependencyError: there is no C compiler.
    """

    findings: tuple[str, ...] = ()
    threads = 1
    arithmetic = "litert"

    def __init__(self, path: Path, *, threads: int = 1, kernels: str | None = None) -> None:
        if kernels not in (None, "exact"):
            raise InputError(unknown("kernels", kernels, ("exact",)))
        self._network = read_network(path)
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "network.so"
            compile_shared([path], library)
            self._invoke = ctypes.CDLL(str(library))[self._network.function]
        self.input, self.output = self._network.input, self._network.output

    @property
    def ops(self) -> tuple[Op, ...]:
        """See ``Session.ops``."""
        return self._network.ops

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """See ``Session.run``."""
        require_fits(self._network, batch)
        outputs = np.empty((len(batch), *self.output.shape[1:]), np.int8)
        for image, made in zip(np.ascontiguousarray(batch), outputs, strict=True):
            self._invoke(ctypes.c_void_p(image.ctypes.data), ctypes.c_void_p(made.ctypes.data))
        return outputs


def require_fits(network: CNetwork, batch: NDArray[Any]) -> None:
    """Check that the network takes the images.

    Raises:
        InputError: it does not.
    """
    expected = network.input.shape[1:]
    if batch.shape[1:] != expected or batch.dtype != np.int8:
        raise InputError(f"{network.source} takes int8 {expected} per image, not {batch.dtype} {batch.shape[1:]}")


RUNTIME = Runtime(
    target="c",
    description="C99 for microcontrollers, compiled for where it runs",
    open_session=CSession,
    needs=lambda: None if host_compiler() else INSTALL,
)
