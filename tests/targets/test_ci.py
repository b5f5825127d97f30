"""``.ci/devices`` says of every device that is skipped why."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci/devices"
EDGECNN = """#!/bin/sh
case "$*" in
"devices --json") echo '[{"name": "host", "kind": "host"}, {"name": "wasm", "kind": "wasm"}]' ;;
"devices setup host") ;;
*) echo "wasm: npm ci"; echo "edgecnn: error: npm ended with status 1" >&2; exit 3 ;;
esac
"""
TOOLS = ("bash", "cut", "dirname", "grep", "sed", "tail")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
def test_what_is_skipped_is_named_with_the_reason(tmp_path):
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    for name, text in (("edgecnn", EDGECNN), ("id", "#!/bin/sh\necho 1000\n")):
        (tmp_path / "bin" / name).write_text(text.replace("/bin/sh", os.path.realpath("/bin/sh")))
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {"PATH": str(tmp_path / "bin"), "EDGECNN": str(tmp_path / "bin/edgecnn")}
    done = subprocess.run(
        [str(shutil.which("bash")), SCRIPT], env=environment, capture_output=True, text=True, check=True
    )
    first, *_ = lines = done.stdout.splitlines()
    assert first.startswith(
        "missing, and not installed, for that takes root and apt-get: gcc libc6-dev qemu-system-arm"
    )
    assert "devices that run: host" in lines
    assert "SKIPPED device wasm: npm ended with status 1" in lines
    assert lines[-1].startswith("SKIPPED the board over SSH: it needs qemu-system-aarch64")
