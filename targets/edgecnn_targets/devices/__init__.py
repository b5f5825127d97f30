"""Devices are data: one TOML file each in this folder, named as the device. Their kinds are modules."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, TypeVar

from edgecnn.artifact import PRECISIONS
from edgecnn.errors import InputError, unknown

T = TypeVar("T")

ADDRESSED: Mapping[str, Mapping[str, Any]] = {
    "ssh": {"description": "a machine reached by SSH", "targets": ["tflite", "onnx"], "onnx_activations": "int8"},
}
"""Kinds whose devices are an address and no file, ``ssh://user@host``: scheme to what a file would say."""


@dataclass(frozen=True, kw_only=True)
class DeviceLimits:
    """What a device has and takes. What has a number is a check wherever the user does not give another.

    Attributes:
        sram_kib: memory for activations and the runtime's state, in KiB; ``None`` where there is plenty.
        flash_kib: memory for weights and code, in KiB; ``None`` where there is plenty.
        precisions: of artifacts, of ``artifact.PRECISIONS``.
        ops: the format's names of the ops that it runs, ``CONV_2D``; empty: every op.
        npu_coverage: percent of the ops that its NPU must run; ``None`` where it has none.
    """

    sram_kib: float | None = None
    flash_kib: float | None = None
    precisions: tuple[str, ...] = PRECISIONS
    ops: tuple[str, ...] = ()
    npu_coverage: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "precisions", tuple(self.precisions))
        object.__setattr__(self, "ops", tuple(self.ops))
        for name in self.precisions:
            if name not in PRECISIONS:
                raise InputError(unknown("precision", name, PRECISIONS))
        for name in ("sram_kib", "flash_kib", "npu_coverage"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """How far an int8 artifact's outputs may be from others'; a target that is not there has no bound.

    Attributes:
        host_lsb: target to LSB from the same artifact's on this machine; 0 where they must be equal bit for bit.
        oracle_lsb: target to LSB from the integer reference's, rounded as the runtime there rounds.
        host_agreement: target to the percentage of images on which both must pick the same class.
    """

    host_lsb: Mapping[str, int] = field(default_factory=dict)
    oracle_lsb: Mapping[str, int] = field(default_factory=dict)
    host_agreement: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where an artifact runs.

    Attributes:
        name: of its file, or its address.
        kind: how it runs artifacts, a key of ``registry.KINDS``.
        description: one line for ``edgecnn devices``.
        targets: formats it takes.
        onnx_activations: ``uint8`` or ``int8``: how ONNX Runtime there wants an int8 file's activations. x86 multiplies
            unsigned by signed bytes; Arm signed by signed.
        limits: what it has and takes.
        tolerances: how far its results may be from others'.
        settings: what its kind alone understands; the kind's ``Settings`` validates them (``settings_of``).
    """

    name: str
    kind: str
    description: str
    targets: tuple[str, ...]
    onnx_activations: str = "uint8"
    limits: DeviceLimits = DeviceLimits()
    tolerances: Tolerances = Tolerances()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.onnx_activations not in ("uint8", "int8"):
            raise InputError(unknown("onnx_activations", self.onnx_activations, ("uint8", "int8")))


def settings_of(device: Device, kind: type[T]) -> T:
    """The device's settings as its kind's frozen dataclass.

    Raises:
        InputError: a key is unknown or missing, or a value is not allowed.
    """
    fields = [f for f in dataclasses.fields(kind) if f.init]  # type: ignore[arg-type]
    strange = sorted(set(device.settings) - {f.name for f in fields})
    if strange:
        raise InputError(f"device {device.name}: {unknown('setting', strange[0], [f.name for f in fields])}")
    needed = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    missing = [name for name in needed if name not in device.settings]
    if missing:
        raise InputError(f"device {device.name} lacks the settings {', '.join(missing)}")
    return kind(**device.settings)


def parse(name: str, record: Mapping[str, Any]) -> Device:
    """A device from what its file says.

    Raises:
        InputError: a key is unknown or missing, or a value is not allowed.
    """
    tables = {"limits": DeviceLimits, "tolerances": Tolerances}
    try:
        made = {key: tables[key](**value) if key in tables else value for key, value in record.items()}
        return Device(name=name, **made)
    except TypeError as error:
        raise InputError(f"device {name}: {error}; see targets/edgecnn_targets/devices/__init__.py") from None


def devices() -> list[Device]:
    """All devices that have a file, by name."""
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".toml"))
    records = {file.name.removesuffix(".toml"): tomllib.loads(file.read_text("utf-8")) for file in files}
    return [parse(name, records[name]) for name in sorted(records)]


def device(name: str) -> Device:
    """The device of that name or address.

    Raises:
        InputError: no such device.
    """
    scheme, separator, _ = name.partition("://")
    if separator and scheme in ADDRESSED:
        return parse(name, {"kind": scheme, **ADDRESSED[scheme]})
    known = {device.name: device for device in devices()}
    if name not in known:
        raise InputError(unknown("device", name, [*known, *(f"{scheme}://…" for scheme in ADDRESSED)]))
    return known[name]


def select(names: Sequence[str]) -> list[Device]:
    """The devices of those names, each once, in the order given.

    Raises:
        InputError: no such device.
    """
    return [device(name) for name in dict.fromkeys(names)]
