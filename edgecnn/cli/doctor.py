"""``edgecnn doctor``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgecnn.cli.documents import DoctorRow
from edgecnn.cli.options import add_json
from edgecnn.cli.printing import listed

HELP = "say what is installed, what is missing, and what int8 kernels this CPU runs"
EXAMPLES = (
    "edgecnn doctor",
    "edgecnn doctor --json",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """``edgecnn doctor``: what is here and what is missing; status 3 when no target can be exported."""
    import os

    from edgecnn.report.document import this_machine
    from edgecnn.sbom import LIBRARIES, library_versions
    from edgecnn_targets.registry import runtimes
    from edgecnn_targets.runtimes import saturation

    here, flags = this_machine(), saturation.cpu_flags()
    found = {
        "python": here["python"],
        "machine": f"{here['machine']}, {here['cores']} cores",
        "cpu": here["cpu"],
        "instruction sets": ", ".join(name for flag, name in saturation.FLAGS.items() if flag in flags)
        or "none listed",
    }
    limit = os.environ.get(saturation.ONEDNN_LIMIT)
    if limit is not None:
        vnni = "with" if saturation.onednn_has_vnni() else "without"
        found[saturation.ONEDNN_LIMIT] = f"{limit}, in the environment: OpenVINO runs {vnni} VNNI"
    lines = [DoctorRow(what=what, found=text) for what, text in found.items()]
    versions = library_versions()
    for library in LIBRARIES:
        missing = "" if library in versions else "not installed"
        lines.append(DoctorRow(what=library, found=versions.get(library, ""), missing=missing))
    for row in runtimes().values():
        command = row.missing()
        state = "" if command else "ready"
        lines.append(DoctorRow(what=f"target {row.target}", found=state, missing=command or ""))
    lines += [DoctorRow(what=f"int8 in {k}", found=said) for k, said in saturation.kernels().items()]
    rows = [asdict(line) for line in lines]
    listed(rows, rows, options, prose=("found", "missing"))
    return 0 if any(row.missing() is None for row in runtimes().values()) else 3
