"""The instruction sets that QEMU executes here, and what a device's file says under ``[settings]``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgecnn.errors import InputError, unknown

LINE = 64  # bytes, of every cache here
PYTHON = ("libpython3-stdlib", "python3-minimal", "libstdc++6", "libgomp1", "libatomic1")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One instruction set.

    Attributes:
        name: Debian's.
        emulator: the program of ``qemu-user``.
        sched_yield: number of that system call (Linux's ``unistd.h`` of the architecture).
        classes: the instruction classes that ``counter.c`` tells apart: ``a64``, or ``none``.
        packages: Debian packages whose closure is the system.
        machine: as wheels name it.
        targets: formats whose runtime is served as a wheel for it.
        paths: whether QEMU looks for every path of the guest in its tree first. It does not for statx(2), which
            32-bit C libraries use.
    """

    name: str
    emulator: str
    sched_yield: int
    classes: str = "none"
    packages: tuple[str, ...] = PYTHON
    machine: str
    targets: tuple[str, ...] = ("tflite", "onnx")
    paths: bool = True


_ROWS = (
    Architecture(name="arm64", emulator="qemu-aarch64", sched_yield=124, machine="aarch64", classes="a64"),
    Architecture(name="amd64", emulator="qemu-x86_64", sched_yield=24, machine="x86_64"),
    Architecture(
        name="armhf",
        emulator="qemu-arm",
        sched_yield=158,
        machine="armv7l",
        packages=(*PYTHON, "python3-numpy"),
        targets=("tflite",),
        paths=False,
    ),
)
ARCHITECTURES = {row.name: row for row in _ROWS}


@dataclass(frozen=True, kw_only=True)
class Cache:
    """One data cache, with lines of 64 bytes.

    Attributes:
        kib: its size.
        ways: lines that one address may be in.
        miss_cycles: what a miss costs on average, for the estimate of time.

    Raises:
        InputError: size and ways do not fit together.
    """

    kib: int
    ways: int
    miss_cycles: float

    def __post_init__(self) -> None:
        if self.kib < 1 or self.ways < 1 or self.kib * 1024 % (LINE * self.ways):
            raise InputError(
                f"a cache of {self.kib} KiB in {self.ways} ways has no whole number of sets of {LINE} bytes"
            )

    @property
    def sets(self) -> int:
        """Return the number of sets."""
        return self.kib * 1024 // (LINE * self.ways)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """An emulated CPU.

    Attributes:
        architecture: a key of ``ARCHITECTURES``.
        cpu: QEMU's name of it, for ``-cpu``.
        cpuinfo: lines of ``/proc/cpuinfo`` for each core; empty on x86.
        clock_mhz: for the estimate of time.
        instructions_per_cycle: as above, where no cache misses.
        l1d: first data cache.
        l2: second cache.
        kernels: of LiteRT, where the runtime there has no XNNPACK for int8; by default the fastest.
        vnni: false on x86 without VNNI, where sums of bytes saturate.

    Raises:
        InputError: a value is not allowed.
    """

    architecture: str
    cpu: str
    clock_mhz: float
    instructions_per_cycle: float
    l1d: Cache
    l2: Cache
    cpuinfo: Mapping[str, str] = field(default_factory=dict)
    kernels: str | None = None
    vnni: bool = True

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise InputError(unknown("architecture", self.architecture, ARCHITECTURES))
        for name in ("clock_mhz", "instructions_per_cycle"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")

    @property
    def isa(self) -> Architecture:
        """Return the instruction set."""
        return ARCHITECTURES[self.architecture]

    def estimated_ms(self, instructions: int, misses: Mapping[str, int]) -> float:
        """Estimate the milliseconds of so many instructions with so many misses of ``l1d`` and ``l2``.

        The model is ``instructions / IPC + misses * cost``, without branches, prefetch and memory bandwidth."""
        waited = misses["l1d"] * self.l1d.miss_cycles + misses["l2"] * self.l2.miss_cycles
        return (instructions / self.instructions_per_cycle + waited) / (1000 * self.clock_mhz)
