"""``edgecnn doctor``."""

from __future__ import annotations

import argparse

from edgecnn.cli.options import add_json
from edgecnn.cli.tables import Row, listed

HELP = "say what is installed and what is missing"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn doctor``: what is installed and what is missing; status 3 when no target can be exported."""
    import os
    import platform

    from edgecnn.network import LIBRARIES, library_versions
    from edgecnn_targets.registry import runtimes

    rows: list[Row] = [
        {"what": "python", "found": platform.python_version(), "missing": ""},
        {"what": "machine", "found": f"{platform.machine()}, {os.cpu_count()} cores", "missing": ""},
    ]
    versions = library_versions()
    for library in LIBRARIES:
        missing = "" if library in versions else "not installed"
        rows.append({"what": library, "found": versions.get(library, ""), "missing": missing})
    for row in runtimes().values():
        command = row.missing()
        rows.append({"what": f"target {row.target}", "found": "" if command else "ready", "missing": command or ""})
    listed(rows, rows, options)
    return 0 if any(row.missing() is None for row in runtimes().values()) else 3
