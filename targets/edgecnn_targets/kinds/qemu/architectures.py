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
    classes: str
    packages: tuple[str, ...]
    machine: str
    targets: tuple[str, ...]
    paths: bool = True


ARCHITECTURES = {
    row.name: row
    for row in (
        Architecture(
            name="arm64",
            emulator="qemu-aarch64",
            sched_yield=124,
            classes="a64",
            packages=PYTHON,
            machine="aarch64",
            targets=("tflite", "onnx"),
        ),
        Architecture(
            name="amd64",
            emulator="qemu-x86_64",
            sched_yield=24,
            classes="none",
            packages=PYTHON,
            machine="x86_64",
            targets=("tflite", "onnx"),
        ),
        Architecture(
            name="armhf",
            emulator="qemu-arm",
            sched_yield=158,
            classes="none",
            packages=(*PYTHON, "python3-numpy"),
            machine="armv7l",
            targets=("tflite",),
            paths=False,
        ),
    )
}
