"""Set up and call the cross-compiler and the emulator of bare Cortex-M boards: Debian's, in the cache."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from string import Template

from edgecnn.errors import DeviceFault, InputError, MissingDependencyError, UnsupportedError
from edgecnn.files import scratch
from edgecnn.process import run
from edgecnn_targets.cache import cache_dir, ensure
from edgecnn_targets.debian import library_path, unpack
from edgecnn_targets.interface import Device, Say
from edgecnn_targets.runtimes.c import CNetwork

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
PACKAGES = {COMPILER: "gcc-arm-none-eabi", EMULATOR: "qemu-system-arm"}
COMPILE_S = 300.0
OPTIONS = ("-std=c99", "-O3", "-ffreestanding", "-nostdlib", "-mthumb")
MARK = re.compile(r"^(?=  /\* \{\"op\")", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The board that is emulated. Its memory is larger than the device's, whose limits are checks.

    Attributes:
        machine: QEMU's name of the board.
        flags: the compiler's, for the core.
        clock_mhz: of the emulated board's core clock, which drives the counter.
        vectors: address of the vector table.
        code: address of the memory for code and constants.
        code_kib: its size.
        data: address of the memory for everything else.
        data_kib: its size.
    """

    machine: str
    flags: tuple[str, ...]
    clock_mhz: float
    vectors: int
    code: int
    code_kib: int
    data: int
    data_kib: int

    def __post_init__(self) -> None:
        for name in ("clock_mhz", "code_kib", "data_kib"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be above 0")


def tree(tool: str) -> Path:
    """Return the tool's folder in the cache."""
    return cache_dir() / "cortex-m" / tool


def ready() -> bool:
    """Return whether compiler and emulator are there. A tree that is there is whole."""
    return all(tree(tool).is_dir() for tool in PACKAGES)


def setup(device: Device, say: Say) -> bool:
    """Fetch compiler and emulator; return whether anything was done. Raises as ``debian.unpack``."""
    built = []
    for tool, package in PACKAGES.items():
        fill = partial(unpack, packages=[package], downloads=tool, program=tool)
        built.append(ensure(f"cortex-m/{tool}", fill, say, f"{device.name}: fetching {package}"))
    return any(built)


def call(tool: str, *words: str | Path, timeout_s: float, cwd: Path | None = None) -> str:
    """Run a tool; return what it prints.

    Raises:
        MissingDependencyError: it is not set up.
        DeviceFault: it fails, or does not end in time.
    """
    place = tree(tool)
    if not place.is_dir():
        raise MissingDependencyError(f"{tool} is not set up: edgecnn devices setup cortex-m4")
    environment = {**os.environ, "LD_LIBRARY_PATH": library_path(place)}
    return run([place / "usr/bin" / tool, *words], timeout_s=timeout_s, cwd=cwd, environment=environment)


def build(network: CNetwork, settings: Settings, *, marking: bool = False) -> bytes:
    """Compile a network and the harness into an image for a board, an ELF file; if marking, one that times each op.

    Raises:
        UnsupportedError: it does not fit the board's memory; says by how much.
        DeviceFault: the compiler fails.
    """
    with scratch() as folder:
        source, image = network.source, folder / "image.elf"
        if marking:
            source = folder / "marking.c"
            code = MARK.sub("  mark();\n", network.source.read_text("utf-8"))
            source.write_text(f"extern void mark(void);\n{code}", "utf-8")
        script = folder / "linker.ld"
        script.write_text(Template(_text("linker.ld")).substitute(vars(settings)), "utf-8")
        harness = folder / "harness.c"
        harness.write_text(_text("harness.c"), "utf-8")
        calls = [f"{place}()" for place in network.places]
        sizes = [f"{place.upper()}_SIZE" for place in network.places]
        count = len(network.description.inputs)
        names: dict[str, object] = {
            "INVOKE": f"{network.prefix}_invoke",
            "INPUTS": f"struct {network.prefix}_inputs",
            "OUTPUTS": f"struct {network.prefix}_outputs",
            "INPUT_PLACES": ", ".join(calls[:count]),
            "INPUT_SIZES": ", ".join(sizes[:count]),
            "OUTPUT_PLACES": ", ".join(calls[count:]),
            "OUTPUT_SIZES": ", ".join(sizes[count:]),
            "MARKS": marks_of(network),
        }
        words = [*OPTIONS, *settings.flags, *(f"-D{name}={meaning}" for name, meaning in names.items())]
        header = network.source.with_suffix(".h").absolute()
        places = ("-include", header, "-I", network.source.parent, "-T", script, "-o", image)
        try:
            call(COMPILER, *words, *places, harness, source, "-lgcc", timeout_s=COMPILE_S)
            return image.read_bytes()
        except DeviceFault as fault:
            over = re.search(r"region `(\w+)' overflowed by (\d+) bytes", str(fault))
            if over is None:
                raise
            kib = settings.code_kib if over[1] == "CODE" else settings.data_kib
            raise UnsupportedError(
                f"{network.source} does not fit the emulated board {settings.machine}: {over[2]} bytes more than the "
                f"{kib} KiB for {over[1].lower()}"
            ) from None


def marks_of(network: CNetwork) -> int:
    """Return how many times the harness notes the counter: before each op, and at the end."""
    return len(network.description.ops) + 1


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
