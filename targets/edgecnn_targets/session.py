"""What a runtime gives: a session, that is one open artifact on one device."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from edgecnn.artifact import Port
from edgecnn.errors import InputError
from edgecnn.report.record import Latency, Resources


@dataclass(frozen=True, kw_only=True)
class Op:
    """One operation of an open artifact, as the runtime sees it.

    Attributes:
        kind: the format's name of the op, ``CONV_2D``.
        name: of the tensor it makes.
        as_asked: whether the kernels that were asked for run it, and no others took its place.
        is_float: whether it computes in floating point.
    """

    kind: str
    name: str
    as_asked: bool
    is_float: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one inference costs on a device, after a warm-up."""

    latency: Latency = field(default_factory=Latency)
    resources: Resources = field(default_factory=Resources)


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """What one op costs on a device; ``None`` where the device does not say.

    Attributes:
        op: the format's name of the op.
        name: of the tensor it makes.
        instructions: of the core.
        cycles: of the core or the NPU.
        place: what runs it, ``CPU`` or ``NPU``.
    """

    op: str
    name: str
    instructions: int | None = None
    cycles: int | None = None
    place: str | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """What an open artifact says of itself: the part of a ``Session`` that is data."""

    input: Port
    output: Port
    ops: tuple[Op, ...]
    findings: tuple[str, ...] = ()
    arithmetic: str = "litert"

    def require(self, batch: NDArray[Any]) -> None:
        """Nothing, for a batch that the input takes.

        Raises:
            InputError: its type or shape is another.
        """
        expected = self.input.shape[1:]
        if batch.shape[1:] != expected or batch.dtype != self.input.dtype:
            got = f"{batch.dtype} {batch.shape[1:]}"
            raise InputError(f"input {self.input.name!r} takes {self.input.dtype} {expected} per image, not {got}")


class Session(Protocol):
    """One open artifact. The ports are read from the artifact itself, so a file without a manifest runs too."""

    @property
    def input(self) -> Port:
        """How to feed it."""

    @property
    def output(self) -> Port:
        """How to read it."""

    @property
    def threads(self) -> int:
        """Threads of the runtime."""

    @property
    def ops(self) -> tuple[Op, ...]:
        """Its operations, in execution order."""

    @property
    def findings(self) -> tuple[str, ...]:
        """What a user should know about how it runs here, one line each."""

    @property
    def arithmetic(self) -> str:
        """Whose rounding its integer kernels have: a key of ``edgecnn.graph.oracle.ARITHMETICS``."""

    def run(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Execute.

        Args:
            batch: ``(n, ...)`` in the input port's dtype and layout; every image is its own inference.

        Returns:
            ``(n, ...)`` in the output port's dtype and layout.
        """
