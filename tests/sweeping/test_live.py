"""The live table on a terminal of 80 columns, as a person sees it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import DEMO, hears_interrupts

from edgecnn.sweeping.run import Progress

pty = pytest.importorskip("pty", reason="there are no pseudo-terminals here")
CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def terminal():
    """A pseudo-terminal of 80 columns: the end of a program, and a function that returns what was written there."""
    import fcntl
    import struct
    import termios

    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    os.set_blocking(mine, False)
    seen = bytearray()

    def read():
        with contextlib.suppress(BlockingIOError, OSError):
            while data := os.read(mine, 65536):
                seen.extend(data)
        return CODES.sub("", seen.decode(errors="replace")).replace("\r", "\n")

    yield theirs, read
    for end in (mine, theirs):
        os.close(end)


def until(read, pattern, seconds=900):
    end = time.monotonic() + seconds
    while not re.search(pattern, text := read()) and time.monotonic() < end:
        time.sleep(0.1)
    assert re.search(pattern, text), text
    return text


def test_the_table_says_what_is_done_running_failed_and_left_in_80_columns(terminal, monkeypatch):
    from edgecnn.sweeping.live import table

    theirs, read = terminal
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with os.fdopen(os.dup(theirs), "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        progress = Progress(
            done=7, failed=1, kept=2, rows=3, rows_failed=2, best="mobilenet_v2_0.35_96 fast tflite host: top1 94.6"
        )
        progress.running = {str(k): f"validate mobilenet_v2_0.35_96 int8 fast seed {k} tflite host" for k in range(6)}
        monkeypatch.setattr("edgecnn.sweeping.live.time_left", lambda progress, total: "70 s left")
        with table() as (seen, shown):
            seen(progress, 10)
            shown.say("   3 of 10  mobilenet_v2_0.35_96  ok")
            text = until(read, "and 2 more", 60)
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    assert "3 of 10 mobilenet_v2_0.35_96 ok" in lines
    assert "combinations 3 of 10 done, 2 failed, 7 left, 70 s left" in lines
    assert "stages 7 done, 6 running, 1 failed, 2 were there" in lines
    assert "best so far mobilenet_v2_0.35_96 fast tflite host: top1 94.6" in lines
    assert {f"running validate mobilenet_v2_0.35_96 int8 fast seed {k} tflite host" for k in range(4)} <= set(lines)
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_leaves_a_report_of_what_is_there(terminal, tmp_path):
    theirs, read = terminal
    file, out = tmp_path / "sweep.toml", tmp_path / "out"
    file.write_text(
        f"limit = 16\ncalibration_images = 16\n[axes]\nmodel = ['{DEMO}']\nrecipe = ['minmax']\nseed = [0, 1, 2, 3]\n"
    )
    words = [sys.executable, "-m", "edgecnn", "sweep", str(file), "-o", str(out), "--workers", "1"]
    running = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**{name: value for name, value in os.environ.items() if name != "CI"}, "TERM": "xterm"},
        preexec_fn=hears_interrupts,
    )
    try:
        text = until(read, r"[1-9] of 4 done")
        running.send_signal(signal.SIGINT)
        assert running.wait(120) == 130
    finally:
        running.kill()
    assert re.search(r"best so far\s+mobilenet", text)
    assert re.search(r"[1-3] left", text)
    rows = json.loads((out / "report.json").read_text())["entries"]
    assert {"ok", "left"} <= {row["status"] for row in rows}
    assert (out / "report.html").exists()


@pytest.mark.parametrize(
    ("rows", "done", "total", "said"),
    [(0, 0, 10, ""), (5, 9, None, ""), (5, 9, 10, "30 s left"), (1, 2, 9, "4 min left")],
)
def test_time_left_is_at_the_rate_so_far(rows, done, total, said, monkeypatch):
    from edgecnn.sweeping import live

    monkeypatch.setattr(live.time, "monotonic", lambda: 130.0)
    assert live.time_left(Progress(rows=rows, done=done, started=100.0), total) == said
