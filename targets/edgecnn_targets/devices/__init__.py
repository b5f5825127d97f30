"""Devices are data: one TOML file each in this folder or the user's own, named as the device."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, unknown
from edgecnn.records import read_record
from edgecnn_targets.interface import Device
from edgecnn_targets.registry import kind_of, kinds, runtimes

SUFFIX = ".toml"
EVERY = "*"
"""Among a device's targets: those of every installed runtime."""


def parse(name: str, record: Mapping[str, Any], option: str = "") -> Device:
    """Make a device of what its file says; ``option`` as in ``Device``.

    Raises:
        InputError: a key is unknown or missing, or a value is not allowed.
    """
    allowed = [f.name for f in fields(Device) if f.name not in ("name", "option")]
    for key in record:
        if key in ("name", "option"):
            raise InputError(f"device {name}: remove {key!r}: a device is named as its file")
        if key not in allowed:
            raise InputError(f"device {name}: {unknown('key', key, allowed)}")
    device = read_record(Device, {**record, "name": name, "option": option or name}, f"device {name}")
    settings: Any = read_record(kind_of(device).settings, device.settings, f"device {name}", noun="setting")
    listed = [target for target in device.targets if target != EVERY]
    for target in set(listed) - set(runtimes()):
        raise InputError(f"device {name}: {unknown('target', target, [*runtimes(), EVERY])}")
    others = [target for target in runtimes() if target not in listed] if EVERY in device.targets else []
    return replace(device, targets=(*listed, *others), settings=settings)


def read(path: Path) -> Device:
    """Read a device from the user's own file, named as the file.

    Raises:
        InputError: the file cannot be read, is not TOML, or ``parse`` refuses it; names the file.
    """
    try:
        return parse(path.stem, tomllib.loads(path.read_text("utf-8")), str(path))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; give a device's TOML file") from None
    except (ValueError, RecursionError) as error:  # of TOML, or of UTF-8
        raise InputError(f"{path} is not TOML ({error}); see `edgecnn devices` for those that ship") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def devices() -> list[Device]:
    """Return all devices that ship, by name."""
    return [_shipped(name) for name in _names()]


def _names() -> list[str]:
    files = (file.name for file in resources.files(__package__).iterdir())
    return sorted(name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX))


def _shipped(name: str) -> Device:
    return parse(name, tomllib.loads(resources.files(__package__).joinpath(name + SUFFIX).read_text("utf-8")))


def device(name: str) -> Device:
    """Return the device of a name, an address, or the path of a TOML file.

    Raises:
        InputError: no such device, or its file is wrong.
    """
    if name.endswith(SUFFIX):
        return read(Path(name))
    addressed = {scheme: kind.address for scheme, kind in kinds().items() if kind.address is not None}
    scheme = name.partition(":")[0]
    if scheme in addressed:
        return parse(name, {"kind": scheme, **addressed[scheme]})
    if name not in _names():
        said = unknown("device", name, [*_names(), *(f"{scheme}:…" for scheme in addressed), f"FILE{SUFFIX}"])
        meant = [row.name for row in devices() if name and name.lower() in row.description.lower()]
        raise InputError(f"{said}; {name!r} is in the description of: {', '.join(meant)}" if meant else said)
    return _shipped(name)


def select(names: Sequence[str]) -> list[Device]:
    """Return the devices of those names, addresses or files, each once, in the order given.

    Raises:
        InputError: no such device, a file is wrong, or two different devices have one name.
    """
    found: dict[str, Device] = {}
    for made in map(device, dict.fromkeys(names)):
        if found.setdefault(made.name, made).option != made.option:
            options = f"{found[made.name].option} and {made.option}"
            raise InputError(f"two devices are named {made.name!r}: {options}; rename the file")
    return list(found.values())
