"""Devices of kind ``adb``: an Android phone by the Android Debug Bridge, as ``adb`` or ``adb:SERIAL``.

TFLite's ``benchmark_model``, a program without dependencies, times the artifact there; a phone has no Python. It takes
no images, so accuracy is not among the figures: the nearest is what the same integers score on another device. Source:
TensorFlow ``lite/tools/benchmark`` for its options and its output. Tested with a scripted ``adb``, on no phone.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn.errors import DeviceFault, EdgecnnError, InputError, MissingDependencyError, UnsupportedError
from edgecnn.files import sha256
from edgecnn.process import run
from edgecnn.report.record import Latency
from edgecnn_targets.interface import Arrays, Description, Device, Kind, Runtime, Session, Usage
from edgecnn_targets.runtimes import litert

FOLDER = "/data/local/tmp"  # the one place where the shell may write and execute
TOOL = f"{FOLDER}/benchmark_model"
NETWORK = "net.tflite"
PROPERTIES = ("product.model", "build.version.release", "product.cpu.abi")
ANSWER_S, PUSH_S, TIMING_S = 20.0, 120.0, 300.0
WARMUP, RUNS = 10, 50
DOWNLOAD = "https://ai.google.dev/edge/litert/models/measurement"
COUNT = re.compile(r"count=(?P<runs>\d+) .*?avg=(?P<mean>[\d.e+]+)(?:.*? median=(?P<median>[\d.e+]+))?")
SERIAL = re.compile(r"[\w.:-]+")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a device's file may say.

    Attributes:
        serial: which of several phones, as ``adb devices`` lists them.
        benchmark_model: a ``benchmark_model`` on this machine, which is sent there; empty: the one at ``TOOL``.
        cores: bit mask of the cores that it may run on, in hexadecimal (``taskset``); empty: as Android decides.

    Raises:
        InputError: a value is not of that form.
    """

    serial: str = ""
    benchmark_model: str = ""
    cores: str = ""

    def __post_init__(self) -> None:
        if self.serial and not SERIAL.fullmatch(self.serial):
            raise InputError(f"serial is {self.serial!r}; give one that `adb devices` lists")
        if self.cores and not re.fullmatch(r"[\da-fA-F]+", self.cores):
            raise InputError(f"cores is {self.cores!r}; give a mask of cores in hexadecimal, such as 'f0'")


@dataclass(frozen=True, kw_only=True)
class Phone:
    """A phone that adb knows.

    Attributes:
        name: of the device, for messages.
        words: the client, with the serial where there is one.
    """

    name: str
    words: tuple[str, ...]

    def ask(self, *words: str | Path, timeout_s: float = ANSWER_S) -> str:
        """Run adb; return what it prints.

        Raises:
            DeviceFault: the phone is not there, or the command fails.
        """
        try:
            return run((*self.words, *words), timeout_s=timeout_s).strip()
        except DeviceFault as fault:
            raise DeviceFault(f"{self.name}: {_meaning(str(fault)) or fault}") from None

    def shell(self, *words: str, timeout_s: float = ANSWER_S) -> str:
        """Run a command on the phone; return what it prints on both streams."""
        return self.ask("shell", f"{shlex.join(words)} 2>&1", timeout_s=timeout_s)


class AdbSession(Session):
    """An artifact that lies on a phone; see ``Session``. It cannot be run over images."""

    def __init__(
        self, description: Description, phone: Phone, folder: str, command: tuple[str, ...], *, threads: int
    ) -> None:
        super().__init__(description, threads=threads)
        self.phone, self.folder, self.command = phone, folder, command

    def execute(self, batch: Arrays) -> Arrays:
        """Raise ``UnsupportedError``: benchmark_model takes no images."""
        raise UnsupportedError("benchmark_model times an artifact; it runs no images: validate on another device too")

    def close(self) -> None:
        """Remove what was sent."""
        remove(self.phone, self.folder)


def remove(phone: Phone, folder: str) -> None:
    """Remove a folder from a phone, where the phone is still there."""
    with contextlib.suppress(DeviceFault):
        phone.shell("rm", "-rf", folder)


def parse(device: Device) -> Phone:
    """Return the phone that a device's name or its settings say.

    Raises:
        InputError: the name is not ``adb`` or ``adb:SERIAL``.
    """
    settings: Settings = device.settings
    scheme, colon, serial = device.name.partition(":")
    if scheme == "adb" and colon and not SERIAL.fullmatch(serial):
        raise InputError(f"{device.name!r} is no phone; give adb, or adb:SERIAL as `adb devices` lists it")
    serial = serial if scheme == "adb" and colon else settings.serial
    return Phone(name=device.name, words=("adb", *(("-s", serial) if serial else ())))


def open_session(device: Device, runtime: Runtime, artifact: Path, *, threads: int, kernels: str | None) -> AdbSession:
    """Send an artifact to a phone.

    Raises:
        InputError: the artifact is not a TFLite file, or the settings name no file.
        MissingDependencyError: the phone has no benchmark_model.
        DeviceFault: the phone is not there.
    """
    settings: Settings = device.settings
    original, phone = litert.LiteRtSession(artifact), parse(device)
    if phone.ask("get-state") != "device":
        raise DeviceFault(f"{device.name} is not ready; see `adb devices`")
    folder = f"{FOLDER}/edgecnn-{sha256(artifact.read_bytes())[:16]}"
    try:
        tool = _sent(phone, settings, artifact, folder)
        model, version, abi = (phone.shell("getprop", f"ro.{key}") for key in PROPERTIES)
    except EdgecnnError:
        remove(phone, folder)
        raise
    pinned = ("taskset", settings.cores) if settings.cores else ()
    command = (*pinned, tool, f"--graph={folder}/{NETWORK}", f"--num_threads={threads}", "--use_xnnpack=true")
    found = f"timed by benchmark_model on {model}, Android {version}, {abi}; accuracy is not measured there"
    return AdbSession(replace(original.description, findings=(found,)), phone, folder, command, threads=threads)


def missing(device: Device, runtime: Runtime) -> str | None:
    """Return the command that installs adb; what the phone lacks is found when it is opened.

    Raises:
        InputError: the name is not that of a phone.
    """
    parse(device)
    return None if shutil.which("adb") else "apt-get install adb"


def measure(device: Device, session: AdbSession) -> Usage:
    """Return the time there, by the phone's own clock."""
    options = (f"--warmup_runs={WARMUP}", f"--num_runs={RUNS}")
    said = session.phone.shell(*session.command, *options, timeout_s=TIMING_S)
    counts = list(COUNT.finditer(said))
    if len(counts) < 2:  # of the warm-up, and of what is timed
        raise DeviceFault(f"{device.name}: benchmark_model printed no timings; its last output: {said[-300:]!r}")
    timed = counts[-1]
    if timed["median"] is None:
        raise DeviceFault(f"{device.name}: this benchmark_model prints no median; send a newer one: {DOWNLOAD}")
    latency = Latency(median_ms=float(timed["median"]) / 1000, threads=session.threads, runs=int(timed["runs"]))
    return Usage(latency=latency)


def _sent(phone: Phone, settings: Settings, artifact: Path, folder: str) -> str:
    """Send an artifact, and benchmark_model where the settings say so; return the path of the latter on the phone.

    Raises:
        InputError: there is no such file here.
        MissingDependencyError: there is none on the phone.
    """
    program, tool = settings.benchmark_model, TOOL
    if program and not Path(program).is_file():
        raise InputError(f"{phone.name}: benchmark_model is {program}, which is no file here")
    if not program and phone.ask("shell", f"ls {TOOL} 2>/dev/null || true") != TOOL:
        adb = shlex.join(phone.words)
        raise MissingDependencyError(
            f"{phone.name} has no {TOOL}; download it from {DOWNLOAD} and install it there: "
            f"{adb} push benchmark_model {TOOL} && {adb} shell chmod 755 {TOOL}"
        )
    phone.shell("mkdir", "-p", folder)
    if program:
        tool = f"{folder}/benchmark_model"
        phone.ask("push", program, tool, timeout_s=PUSH_S)
        phone.shell("chmod", "755", tool)
    phone.ask("push", artifact, f"{folder}/{NETWORK}", timeout_s=PUSH_S)
    return tool


_FAULTS = (
    ("unauthorized", "it has not allowed this computer; unlock it and accept the question about USB debugging"),
    ("more than one device", "there are several phones; name one, adb:SERIAL, as `adb devices` lists them"),
    ("no devices|device .*not found", "there is no such phone; enable USB debugging, and see `adb devices`"),
    ("offline", "it is offline; plug it in again, and see `adb devices`"),
)
"""Pattern in what adb says, to what it means."""


def _meaning(said: str) -> str | None:
    return next((meaning for pattern, meaning in _FAULTS if re.search(pattern, said)), None)


KIND = Kind(
    figures=("latency",),
    open_session=open_session,
    missing=missing,
    measure=measure,
    settings=Settings,
    address={"description": "an Android phone reached by adb", "targets": ["tflite"], "onnx_activations": "int8"},
    elsewhere=True,
)
