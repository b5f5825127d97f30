"""The form of every JSON document that a command prints or writes: who made it, when, where, and rounded figures."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1  # of the documents of all commands; `edgecnn schema` prints their JSON Schema
POINTS = 2  # decimals of a percentage: 1 image in 10,000
DECIMALS = {
    **dict.fromkeys(("top1", "fp32_top1", "top5", "fp32_top5", "drop", "drop_ci95", "agreement"), POINTS),
    **dict.fromkeys(("npu_coverage", "percent", "points", "dB"), POINTS),
    **dict.fromkeys(("KiB", "sram_kib", "flash_kib", "heap_kib"), 1),
    "sqnr_db": 2, "alone_db": 2, "running_db": 2, "val_top1": POINTS,
}  # fmt: skip
"""Decimals that a figure of this name or unit has."""

DIGITS = dict.fromkeys(("ms", "median_ms", "p90_ms", "estimated_ms", "images_per_s", "size_mb", "mean_lsb"), 3)
"""Significant digits that a figure of this name or unit has."""

OWN_DIGITS = 6
"""Significant digits of a metric whose meaning is not known here."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """Say on which machine figures were measured."""

    system: str
    machine: str
    cpu: str
    cores: int | None
    python: str


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Hold what every document says first; ``edgecnn`` is ``version``, the name it had before other commands had it."""

    schema_version: int
    edgecnn: str
    version: str
    command: str
    date: str
    host: Host


def document(command: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a command found as a JSON document: who made it, when and where, then the content, rounded.

    Args:
        command: ``export``, ``devices setup`` …
        content: JSON values by name. ``date`` and ``host`` take the place of now and this machine.
    """
    from edgecnn import __version__

    first = Envelope(
        schema_version=SCHEMA_VERSION,
        edgecnn=__version__,
        version=__version__,
        command=command,
        date=now(),
        host=Host(**this_machine()),
    )
    return {**asdict(first), **{name: rounded(value, name) for name, value in content.items()}}


def now() -> str:
    """Return the time, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def readable(date: str) -> str:
    """Return a time of ``now`` as a person reads it."""
    return date.replace("T", " ").replace("+00:00", " UTC")


def made_again(versions: Mapping[str, str], invocation: str | None) -> str:
    """Return the commands that make a result again: the installation, and the command line if there was one."""
    install = " ".join(f"{name}=={version}" for name, version in versions.items())
    return "\n".join(filter(None, (f"pip install {install}", invocation)))


def this_machine() -> dict[str, Any]:
    """Return what machine this is: a figure names its CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def rounded(value: Any, name: str = "") -> Any:
    """Return a value with every figure that ``DECIMALS`` or ``DIGITS`` names rounded to what it means."""
    if isinstance(value, Mapping):
        return {key: rounded(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner, name) for inner in value]
    if not isinstance(value, float):
        return value
    if name in DIGITS:
        return significant(value, DIGITS[name])
    return round(value, DECIMALS[name]) + 0.0 if name in DECIMALS else value  # + 0.0: no -0.0


def significant(value: float, digits: int) -> float:
    """Return a number with so many significant digits."""
    return float(f"{value:.{digits}g}")
