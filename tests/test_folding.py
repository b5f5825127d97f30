"""Long lines: folded under their text on a terminal, whole where a program reads them."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from fcntl import ioctl
from struct import pack
from termios import TIOCSWINSZ

import pytest

from edgecnn.folding import folded

STAGE = "  quantize   int8, recipe fast: input_quantization, equalization, ranges"
COMMAND = "  next      edgecnn validate out/net.tflite --data DIR --device cortex-a72"


@pytest.mark.parametrize(
    ("line", "width", "command", "said"),
    [
        (STAGE, None, False, [STAGE]),
        (STAGE, 80, False, [STAGE]),
        (STAGE, 50, False, ["  quantize   int8, recipe fast:", "             input_quantization, equalization,",
                            "             ranges"]),
        ("error: no such file; give another", 20, False, ["error: no such file;", "  give another"]),
        ("error: bad; see `edgecnn --help` now", 24, False, ["error: bad; see", "  `edgecnn --help` now"]),
        (COMMAND, 50, True, ["  next      edgecnn validate out/net.tflite \\",
                             "            --data DIR --device cortex-a72"]),
        ("file: " + "x" * 30, 20, False, ["file:", "  " + "x" * 30]),
    ],
)  # fmt: skip
def test_a_line_is_folded_under_its_text(line, width, command, said):
    assert folded(line, width, command=command).split("\n") == said


def test_a_folded_command_runs_when_it_is_pasted():
    words = "printf %s- one two three"
    pasted = folded(words, 16, command=True)
    assert "\n" in pasted
    done = subprocess.run(["sh", "-c", pasted], capture_output=True, text=True, check=True)
    assert done.stdout == "one-two-three-"


@pytest.mark.parametrize("columns", [40, 80])
def test_an_error_is_folded_on_a_terminal_alone(columns):
    words = [sys.executable, "-m", "edgecnn", "export", "mobilnet_v2"]
    piped = subprocess.run(words, capture_output=True, text=True, check=False).stderr
    assert len(piped.splitlines()) == 1
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=theirs, env=environment, check=False)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert len(shown) > 1
    assert all(len(line) <= columns for line in shown)
    assert all(line.startswith("  ") for line in shown[1:])
    assert " ".join(" ".join(shown).split()) == piped.strip()
