"""Words and helpers of tests that run the command line."""

from __future__ import annotations

import subprocess
import sys

from edgecnn.cli import main

DEMO = "mobilenet_v2_0.35_96"
EXPORT = ["export", DEMO, "--target", "tflite", "--weights", "demo", "--calibration", "demo"]
QUICK = ["--calibration-images", "40"]


def run(*words):
    """A command as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "edgecnn", *map(str, words)], capture_output=True, text=True, check=False
    )


def error_of(capfd, *words, status=2):
    """The one line that a failing command prints."""
    capfd.readouterr()
    assert main(list(map(str, words))) == status
    captured = capfd.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("edgecnn: error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ""
    return lines[0]


def texts(entry):
    """Return the findings of an entry of a report as a user reads them."""
    return [finding["text"] for finding in entry["findings"]]
