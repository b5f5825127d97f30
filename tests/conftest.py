"""Property tests draw the same examples every time, however long they take; EDGECNN_FUZZ=1 draws new ones."""

from __future__ import annotations

import json
import os

import pytest
from commands import EXPORT, QUICK
from hypothesis import HealthCheck, settings
from runtimes import CPUS

from edgecnn.report.document import this_machine
from edgecnn_targets.runtimes.saturation import instruction_set

UNTIMED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("same", derandomize=True, **UNTIMED)
settings.register_profile("fuzz", derandomize=False, **UNTIMED)
settings.load_profile("fuzz" if os.environ.get("EDGECNN_FUZZ") else "same")


def pytest_terminal_summary(terminalreporter):
    """Say which claims of parity this CPU showed, and what shows the others."""
    shown = instruction_set()
    terminalreporter.section(f"parity on {this_machine()['cpu'] or 'this CPU'}: claims of [parity.{shown}]")
    for name, where in CPUS.items():
        if name != shown:
            terminalreporter.line(f"not shown here: [parity.{name}], {where}")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """An int8 export of the demo, checked on some images: (folder, report)."""
    folder = tmp_path_factory.mktemp("demo")
    from edgecnn.cli import main

    status = main([*EXPORT, *QUICK, "--data", "demo", "--limit", "60", "--max-drop", "10", "-o", str(folder)])
    assert status == 0
    return folder, json.loads((folder / "report.json").read_text())["entries"]
