"""The instruction sets that QEMU executes here, one row each."""

from __future__ import annotations

from dataclasses import dataclass

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
