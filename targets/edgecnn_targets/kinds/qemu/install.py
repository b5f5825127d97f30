"""Set up what the emulated devices need, in the cache, without being root.

- The emulator: Debian's dynamic ``qemu-user`` and the libraries of it that this machine lacks (the static build takes
  no plugins).
- The plugin: ``counter.c``, built by this machine's compiler.
- A system per instruction set: Debian packages, unpacked and not installed, with the runtimes' wheels.
- A tree per device: links to its system, what Linux would say of its CPU, and ``runner.py``.

Packages come by ``debian.py``; pip verifies the wheels against the hashes in ``locks``.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.files import sha256
from edgecnn.process import run
from edgecnn.progress import filling
from edgecnn_targets.cache import cache_dir, ensure
from edgecnn_targets.debian import PACKAGES, PATIENCE_S, library_path, require, tool, unpack
from edgecnn_targets.interface import Say
from edgecnn_targets.kinds.qemu.settings import Architecture, Settings
from edgecnn_targets.runtimes import runner

SITE, RUNNER, PYTHON, PLUGIN, EMULATOR = "site", "edgecnn/runner.py", "python3.11", "counter.so", "qemu/emulator"
CORES = 4


def plugin_tree() -> str:
    """Return the plugin's folder, named by its source."""
    return f"qemu/counter-{sha256(_text('counter.c').encode())[:12]}"


def system_tree(architecture: Architecture) -> str:
    """Return an instruction set's folder, named by what goes into it."""
    recipe = f"{architecture} {_text(f'locks/{architecture.name}.txt')}"
    return f"qemu/system-{architecture.name}-{sha256(recipe.encode())[:12]}"


def device_tree(name: str, settings: Settings) -> str:
    """Return a device's folder, named by what goes into it."""
    parts = (system_tree(settings.isa), cpuinfo(settings), _runner())
    return f"qemu/{name}-{sha256(' '.join(parts).encode())[:12]}"


def ready(name: str, settings: Settings) -> bool:
    """Return whether the device can run. A tree that is there is whole."""
    trees = (EMULATOR, plugin_tree(), system_tree(settings.isa), device_tree(name, settings))
    return all((cache_dir() / tree).is_dir() for tree in trees)


def versions(name: str, settings: Settings) -> bytes:
    """Return what decides the device's results: its tree, and the Debian packages of its system and of the emulator."""
    trees = (cache_dir() / tree / PACKAGES for tree in (EMULATOR, system_tree(settings.isa)))
    lists = [place.read_bytes() for place in trees if place.is_file()]
    return b"\n".join([device_tree(name, settings).encode(), plugin_tree().encode(), repr(settings).encode(), *lists])


def emulation(
    root: Path, settings: Settings, plugin: str | None = None, words: Sequence[str] = ()
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the command that has Python in a device's tree run some words, or ``runner.py``; and its environment.

    Everything that the program inside can see has the same length and content on every machine and in every run, for an
    address more or less is an instruction more or less: paths are the guest's own, which ``-L`` finds in the tree (not
    so where the architecture's ``paths`` is false). With the plugin, its clock and the number of its core are no longer
    this machine's either.
    """
    home, top = cache_dir() / EMULATOR, "" if settings.isa.paths else root
    inside = {
        "PYTHONHOME": f"{top}/usr",
        "PYTHONPATH": f"{top}/{SITE}:{top}/edgecnn",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = (
        *(str(home / "usr/bin" / settings.isa.emulator), "-seed", "42", "-cpu", settings.cpu, "-L", str(root)),
        *(("-plugin", plugin) if plugin else ()),
        *("-U", "LD_LIBRARY_PATH", "-U", "LD_PRELOAD"),
        *(word for key in inside for word in ("-E", f"{key}={inside[key]}")),
        *("-0", PYTHON, str(root / "usr/bin" / PYTHON), "-S", *(words or [f"{top}/{RUNNER}"])),
    )
    if not plugin:
        return command, {"LD_LIBRARY_PATH": library_path(home)}
    library = cache_dir() / plugin_tree()
    return command, {"LD_LIBRARY_PATH": f"{library_path(home)}:{library}", "LD_PRELOAD": PLUGIN}


def setup(name: str, settings: Settings, say: Say) -> bool:
    """Set a device up; return whether anything was done.

    Raises:
        MissingDependencyError: apt-get, dpkg, pip or a C compiler is missing.
        InputError: the cache cannot be written, or the disk is full.
        DeviceFault: a tool failed; with its last output.
    """
    if ready(name, settings):
        return False
    require()
    if find_spec("pip") is None:
        raise MissingDependencyError(f"setting up emulated devices needs pip: {sys.executable} -m ensurepip")
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        raise MissingDependencyError("setting up emulated devices needs a C compiler: apt-get install gcc libc6-dev")
    isa = settings.isa

    system = f"a Debian {isa.name} system with the runtimes' wheels"
    emulator = partial(unpack, packages=["qemu-user"], downloads="emulator", program="qemu-aarch64", say=say)
    ensure(EMULATOR, emulator, say, f"{name}: the emulator ({isa.emulator})")
    ensure(plugin_tree(), _plugin, say, f"{name}: the counting plugin")
    ensure(system_tree(isa), lambda place: _system(place, isa, say), say, f"{name}: {system}")
    ensure(device_tree(name, settings), lambda place: _device(place, settings), say, f"{name}: a first run")
    return True


def _plugin(place: Path) -> None:
    source = place / "counter.c"
    source.write_text(_text("counter.c"))
    tool([shutil.which("cc") or "gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden", "-o", place / PLUGIN, source])


def _system(place: Path, isa: Architecture, say: Say) -> None:
    unpack(place, isa.packages, downloads=isa.name, architecture=isa.name, status=place / "status", say=say)
    if not (place / "usr/bin" / PYTHON).exists():
        found = ", ".join(sorted(p.name for p in (place / "usr/bin").glob("python3.*"))) or "none"
        raise InputError(
            f"the devices' wheels are for {PYTHON}, this machine's package sources have {found}: use Debian 12"
        )
    lock = place / "lock.txt"
    lock.write_text(_text(f"locks/{isa.name}.txt"))
    tags = [f"manylinux_2_{minor}_{isa.machine}" for minor in range(36, 16, -1)]
    coming = place / "coming"
    coming.mkdir()
    words: list[str | Path] = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"),
        *("--require-hashes", "--no-deps", "--only-binary", ":all:", "--target", place / SITE),
        *("--implementation", "cp", "--python-version", PYTHON.removeprefix("python")),
        *(word for tag in tags for word in ("--platform", tag)),
        *("-r", lock),
    ]
    with filling(coming, "wheels"):
        tool(words, TMPDIR=coming)
    shutil.rmtree(coming)
    if (place / "usr/lib/python3/dist-packages").is_dir():  # what Debian itself serves of the runtimes
        for package in (place / "usr/lib/python3/dist-packages").iterdir():
            (place / SITE / package.name).symlink_to(f"../usr/lib/python3/dist-packages/{package.name}")
    for library in place.glob("usr/lib/*/*/lib*.so.3"):  # BLAS and LAPACK, which installing would link so
        if library.parent.name in ("blas", "lapack"):
            library.parent.with_name(library.name).symlink_to(f"{library.parent.name}/{library.name}")


def _device(place: Path, settings: Settings) -> None:
    """Make the tree and try it: importing the runtimes leaves their compiled code in the system, for later starts."""
    system = cache_dir() / system_tree(settings.isa)
    for entry in system.iterdir():
        (place / entry.name).symlink_to(f"../{system.name}/{entry.name}")
    write = {RUNNER: _runner(), "proc/cpuinfo": cpuinfo(settings)}
    write |= {f"sys/devices/system/cpu/{name}": f"0-{CORES - 1}\n" for name in ("possible", "present", "online")}
    for name, content in write.items():
        if content:
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(content)
    imports = {"tflite": "runner.LiteRt.library()", "onnx": "runner.OnnxRuntime.library()"}
    tries = "; ".join(imports[target] for target in settings.isa.targets)
    words = ["-c", f"import runner; {tries}"]
    command, environment = emulation(place, settings, words=words)
    run(command, timeout_s=PATIENCE_S, environment=environment)


def cpuinfo(settings: Settings) -> str:
    """Return ``/proc/cpuinfo`` of the device: runtimes on Arm pick their kernels by it, and crash without one.

    It is empty on x86, which has an instruction for that."""
    if not settings.cpuinfo:
        return ""
    lines = "".join(f"{key}\t: {value}\n" for key, value in settings.cpuinfo.items())
    return "".join(f"processor\t: {core}\nBogoMIPS\t: 100.00\n{lines}\n" for core in range(CORES))


def _text(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _runner() -> str:
    return resources.files(runner.__spec__.parent or "").joinpath("runner.py").read_text("utf-8")
