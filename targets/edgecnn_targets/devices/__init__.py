"""Devices are data: one TOML file each in this folder, named as the device. Their kinds are modules."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from edgecnn.errors import InputError, unknown


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where an artifact runs.

    Attributes:
        name: of its file.
        kind: how it runs artifacts, a key of ``registry.KINDS``.
        description: one line for ``edgecnn devices``.
        targets: formats it takes.
        onnx_activations: ``uint8`` or ``int8``: how ONNX Runtime there wants an int8 file's activations. x86 multiplies
            unsigned by signed bytes; Arm signed by signed.
    """

    name: str
    kind: str
    description: str
    targets: tuple[str, ...]
    onnx_activations: str = "uint8"

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))
        if self.onnx_activations not in ("uint8", "int8"):
            raise InputError(unknown("onnx_activations", self.onnx_activations, ("uint8", "int8")))


def devices() -> list[Device]:
    """All devices, by name."""
    files = (file for file in resources.files(__package__).iterdir() if file.name.endswith(".toml"))
    records = {file.name.removesuffix(".toml"): tomllib.loads(file.read_text("utf-8")) for file in files}
    return [Device(name=name, **records[name]) for name in sorted(records)]


def device(name: str) -> Device:
    """The device of that name.

    Raises:
        InputError: no such device.
    """
    known = {device.name: device for device in devices()}
    if name not in known:
        raise InputError(unknown("device", name, known))
    return known[name]


def select(names: Sequence[str]) -> list[Device]:
    """The devices of those names, each once, in the order given.

    Raises:
        InputError: no such device.
    """
    return [device(name) for name in dict.fromkeys(names)]
