"""Words and helpers of tests that run the command line."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from edgecnn.cli import main

DEMO = "mobilenet_v2_0.35_96"
EXPORT = ["export", DEMO, "--target", "tflite", "--weights", "demo", "--calibration", "demo"]
QUICK = ["--calibration-images", "40"]


def run(*words):
    """A command as a user starts it."""
    return subprocess.run(
        [sys.executable, "-m", "edgecnn", *map(str, words)], capture_output=True, text=True, check=False
    )


def hears_interrupts():
    """Undo, in a process that is started, what a shell does to its background jobs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


def assert_same_figures(entry, before):
    """A validated artifact has the figures that its export found."""
    near = pytest.approx(
        before["accuracy"]["sqnr_db"],
        abs=0.05,  # fp32 as given, and as quantized: padding is half a level apart
    )  # fp32 is the equalized network: equal but for rounding
    alike = pytest.approx(before["accuracy"]["cosine"], abs=1e-5)
    assert entry["accuracy"] == {**before["accuracy"], "sqnr_db": near, "cosine": alike}
    assert entry["parity"] == before["parity"]
