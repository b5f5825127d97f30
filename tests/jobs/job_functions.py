"""Functions that jobs run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edgecnn.errors import InputError


def add(a, b):
    sys.stdout.write("adding\n")
    return a + b


def where():
    return Path.cwd(), os.environ.get("EDGECNN_TEST"), os.environ["OMP_NUM_THREADS"], os.getpid()


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def ended():
    os._exit(7)


def sleeping():
    time.sleep(600)


def growing():
    held = []
    while True:
        held.append(bytearray(b"1" * 20_000_000))
        time.sleep(0.01)


def refused():
    raise InputError("no such\nthing")


def faulty():
    raise ValueError("a\nb")


def killed_once(mark):
    if not mark.exists():
        mark.touch()
        killed()
    return "done"


def starting(mark):
    """Start a process that outlives its parent, unless it is ended with it."""
    later = f"import time, pathlib; time.sleep(2); pathlib.Path({str(mark)!r}).touch()"
    subprocess.Popen([sys.executable, "-c", later])
    time.sleep(600)


def busy(folder, seconds):
    """Return how many ran at the same time at the start."""
    mine = folder / str(os.getpid())
    mine.touch()
    together = len(list(folder.iterdir()))
    time.sleep(seconds)
    mine.unlink()
    return together


def beside(folder, seconds):
    """Return which worker this is, and how many ran at the same time."""
    return os.environ.get("EDGECNN_TEST"), busy(folder, seconds)


def simulated(settings, before, folder):
    """Do a stage: leave a mark, fail as the settings say, or return figures that depend on the settings alone."""
    (Path(settings["marks"]) / f"{settings['name']}-{time.monotonic_ns()}").touch()
    fault = settings.get("fault")
    if fault is not None:
        globals()[fault]()
    (folder / "made").write_text(settings["name"])
    time.sleep(settings.get("seconds", 0))
    value = settings.get("number", 0) + (before.value["number"] if before else 0)
    return {"number": value, "entry": entry(value), "failures": ["top1: too low"] if value < 0 else []}


def entry(value):
    return {"accuracy": {"top1": value}, "latency": {}, "parity": {}, "resources": {}, "size_bytes": 1000 + value}


def kill_parent():
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


def reading(settings, before, folder):
    """Do a stage: return what is in the files that it is given, and write a file for the next stage."""
    text = Path(settings["weights"]).read_text() if "weights" in settings else (before.folder / "made").read_text()
    (folder / "made").write_text(f"{text} {settings['name']}")
    sys.stdout.write(f"{settings['name']} in {Path.cwd()}\n")
    time.sleep(settings.get("seconds", 0))
    return {"text": text, "seen": settings.get("seen") and Path(settings["seen"]).exists()}


def names(paths):
    """Return names and contents of files."""
    return [(path.name, path.read_text()) for path in paths]
