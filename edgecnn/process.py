"""Run tools as other processes, and report how they fail, hang, or cannot start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecnn.errors import DeviceFault

LAST = 600
"""So many characters of a tool's last output go into an error."""


def run(
    words: Sequence[str | Path],
    *,
    timeout_s: float,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a tool; return what it prints on stdout.

    Args:
        timeout_s: then it is killed, with every process that it started.
        environment: all of it, or ``None`` to inherit.

    Raises:
        DeviceFault: it cannot be started, exits with another status than 0, or does not end in time; with its last
            output.
    """
    name = Path(words[0]).name
    process = start(words, cwd=cwd, env=environment)
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        kill(process)
        out, err = process.communicate()
        said = last_output(err or out)
        raise DeviceFault(f"{name} did not end within {timeout_s:g} s; its last output: {said}") from None
    except BaseException:
        kill(process)
        raise
    if process.returncode != 0:
        ended = how_it_ended(process.returncode)
        raise DeviceFault(f"{name} {ended}; its last output: {last_output(err or out)}")
    return out.decode(errors="replace")


def start(words: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, with pipes, for ``kill`` to end with all that it started.

    Raises:
        DeviceFault: it cannot be started.
    """
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    try:
        return subprocess.Popen(list(map(str, words)), start_new_session=True, **{**pipes, **options})
    except OSError as error:
        raise DeviceFault(f"cannot start {words[0]}: {error.strerror}") from None


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process of ``start`` and every process that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def last_output(said: bytes) -> str:
    """Return the end of what a tool said, on one line."""
    line = " | ".join(filter(None, map(str.strip, said.decode(errors="replace").splitlines())))
    return f"…{line[-LAST:]}" if len(line) > LAST else line or "(it said nothing)"


def how_it_ended(status: int) -> str:
    """Describe an exit status; a negative one is a signal's number."""
    if status >= 0:
        return f"ended with status {status}"
    known = {s.value: s.name for s in signal.Signals}
    return f"was killed by {known.get(-status, -status)}"
