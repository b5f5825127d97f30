"""A kind of device: this machine, slower by a factor. A device of it is a TOML file, such as ``slow-board.toml``."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgecnn.errors import InputError
from edgecnn_targets.interface import Device, Kind, Session, Usage
from edgecnn_targets.kinds import host


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hold what a device's file says under ``[settings]``.

    Attributes:
        times: the factor, above 0.
    """

    times: float

    def __post_init__(self) -> None:
        if not self.times > 0:
            raise InputError(f"times is {self.times}; it must be above 0")


def measure(device: Device, session: Session) -> Usage:
    """Return this machine's latency, multiplied."""
    usage, times = host.measure(device, session), device.settings.times
    median, p90 = usage.latency.median_ms, usage.latency.p90_ms
    assert median is not None
    assert p90 is not None
    return replace(usage, latency=replace(usage.latency, median_ms=times * median, p90_ms=times * p90))


KIND = Kind(
    figures=("accuracy", "latency"),
    open_session=host.open_session,
    missing=host.missing,
    measure=measure,
    settings=Settings,
)
