"""The limits that tests hold figures to, in ``golden/``."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any


def golden(name: str) -> dict[str, Any]:
    """Return the limits in ``golden/NAME.toml``."""
    return tomllib.loads((Path(__file__).parent / "golden" / f"{name}.toml").read_text("utf-8"))
