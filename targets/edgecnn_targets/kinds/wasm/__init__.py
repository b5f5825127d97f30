"""Devices of kind ``wasm``: ONNX Runtime Web under Node, in WebAssembly as in a browser.

``package-lock.json`` pins every package with its checksum; ``runner.mjs`` answers what ``runner.py`` answers elsewhere.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edgecnn.child import Command
from edgecnn.errors import MissingDependencyError
from edgecnn.files import sha256
from edgecnn.process import run
from edgecnn.progress import filling
from edgecnn_targets.cache import cache_dir, ensure
from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.interface import Device, Kind, Runtime, Say, Usage
from edgecnn_targets.kinds.remote import RemoteSession

FILES = ("package.json", "package-lock.json", "runner.mjs")
INSTALL_NODE = "apt-get install nodejs npm"
INSTALL_S = 900.0
BORROWED = "which ops compute in integers is read from ONNX Runtime here: ONNX Runtime Web does not show its graph"


def open_session(
    device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None
) -> RemoteSession:
    """Open an artifact under Node.

    Raises:
        InputError: the artifact cannot be read, or kernels are named.
        UnsupportedError: ONNX Runtime Web does not run it.
    """
    command = Command(device=device.name, words=("node", str(folder() / "runner.mjs")))
    return RemoteSession(command, artifact, runtime.target, threads=threads, kernels=kernels, notes=(BORROWED,))


def folder() -> Path:
    """Return where it is installed, or will be; another content is another folder."""
    here = Path(__file__).parent
    return cache_dir() / f"wasm-{sha256(b''.join((here / name).read_bytes() for name in FILES))[:16]}"


def missing(device: Device, runtime: Runtime) -> str | None:
    """Return the command that installs Node or prepares the device, or ``None`` when it is ready."""
    if shutil.which("node") is None:
        return INSTALL_NODE
    return runtime.missing() or (None if folder().is_dir() else device.setup_command)


def setup(device: Device, say: Say) -> bool:
    """Install ONNX Runtime Web from the npm registry.

    Raises:
        MissingDependencyError: there is no Node or no npm.
        DeviceFault: npm fails.
        InputError: the cache cannot be written.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        raise MissingDependencyError(f"device {device.name} needs Node and npm: {INSTALL_NODE}")

    def build(place: Path) -> None:
        for name in FILES:
            shutil.copy(Path(__file__).with_name(name), place)
        say(f"{device.name}: npm ci, about 30 MB")
        with filling(place, "packages"):
            run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], timeout_s=INSTALL_S, cwd=place)

    return ensure(folder().name, build, say)


def measure(device: Device, session: RemoteSession) -> Usage:
    """Return wall-clock time under Node, and WebAssembly's memory."""
    return session.time(fixed_input(session), warmup=10, runs=50)


KIND = Kind(figures=("accuracy", "latency"), open_session=open_session, missing=missing, measure=measure, setup=setup)
