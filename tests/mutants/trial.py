"""Put a fault into a copy of the source, and run the tests that run its line, in a child that this process forks.

The parent has imported the large libraries, and nothing of edgecnn: a child begins with them, and imports the copy.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from mutants.lines import Lines, environment, unpack
from mutants.mutate import Mutant

LARGE = ("numpy", "torch", "hypothesis", "xdist", "rich.progress", "msgspec", "PIL.Image", "safetensors.numpy")
KILLED, TIMED_OUT, SURVIVED, NOT_COVERED, EQUIVALENT = "killed", "timeout", "survived", "not covered", "equivalent"
UNSTARTED = 99  # exit status of a child in which pytest did not run
START_S = 60
"""Seconds of a processor that a child may take beside its tests."""
PATIENCE = 10
"""Times as many seconds it may take on cores that others use too."""


@dataclass(kw_only=True)
class Trial:
    """What came of one fault.

    Attributes:
        mutant: the fault.
        tests: the ids of the tests that were run, in their order; empty where none runs the line.
        state: one of the five above.
        killer: the test that failed first, or why the tests could not start.
        how: how the tests were found: ``line``, ``scope`` or ``room``.
    """

    mutant: Mutant
    tests: list[str]
    how: str
    state: str = NOT_COVERED
    killer: str = ""
    refused: set[str] = field(default_factory=set)


def tests_of(mutant: Mutant, lines: Lines) -> tuple[set[str], str]:
    """Return the ids of the tests that run a fault's statement, and how they were found.

    A constant of a file is found by the functions that use it, what else is run at import by those around it. A
    function of which the map knows no line may run in children that are killed, of which coverage hears nothing: then
    the room's tests are taken.
    """
    known = lines.at_run(mutant.path) if mutant.at_import else {*mutant.lines}
    found = lines.tests(mutant.path, known & {*mutant.lines})
    if not found and mutant.at_import:
        own = _inside(mutant, lines)
        return (own, "scope") if own else (_room(mutant, lines), "room")
    if found:
        return found, "line"
    return (set(), "line") if _inside(mutant, lines) else (_room(mutant, lines), "room")


def _inside(mutant: Mutant, lines: Lines) -> set[str]:
    """Return the tests that run a statement of the functions in a fault's scope."""
    known = lines.at_run(mutant.path)
    found = lines.tests(mutant.path, known & {*mutant.scope})
    return lines.tests(mutant.path, known) if mutant.at_import and not found else found


def _room(mutant: Mutant, lines: Lines) -> set[str]:
    """Return the tests of a fault's room."""
    return {test for test in lines.seconds if test.startswith(_places(mutant))}


def _places(mutant: Mutant) -> tuple[str, ...]:
    """Return where the tests of a fault's room stand."""
    return ("tests/test_",) if mutant.room in ("cli", "core") else (f"tests/{mutant.room}/",)


def ordered(tests: set[str], mutant: Mutant, lines: Lines, budget: float) -> list[str]:
    """Order tests: of the room, without a shared fixture, and fast ones first; as many as a budget allows."""
    own = _places(mutant)

    def key(test: str) -> tuple[bool, str, float]:
        return not test.startswith(own), test.partition("::")[0] if test in lines.sharing else "", lines.seconds[test]

    chosen, spent = list[str](), 0.0
    for test in sorted(tests & lines.seconds.keys(), key=key):
        if not chosen or spent + lines.seconds[test] <= budget:
            chosen.append(test)
            spent += lines.seconds[test]
    return chosen


class Chosen:
    """A pytest plugin that runs the given tests in the given order, and keeps which failed."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._rank = {test: i for i, test in enumerate(tests)}
        self.failed = list[str]()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep what was chosen."""
        items[:] = sorted((i for i in items if i.nodeid in self._rank), key=lambda item: self._rank[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a failure."""
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        """Note a file that cannot be imported."""
        if report.failed:
            self.failed.append(report.nodeid)


class Place:
    """A copy of a commit's source in a folder, in which one fault at a time is tried."""

    def __init__(self, folder: Path, commit: str) -> None:
        self.folder, self.tree = folder, folder / "tree"
        unpack(commit, self.tree)
        for name in LARGE:
            import_module(name)

    def begin(self, tests: Sequence[str], seconds: int, mutant: Mutant | None, *, first: bool = True) -> int:
        """Start the tests in a child; return its process id.

        Args:
            tests: their ids, in their order.
            seconds: of a processor that they may take.
            mutant: the fault, or ``None`` to run the tests on the source as it is.
            first: stop at the first failure.
        """
        if mutant is not None:
            file = self.tree / mutant.path
            self._whole = file.read_bytes()
            file.write_text(mutant.text(self.tree), "utf-8")
        (self.folder / "failed.json").unlink(missing_ok=True)
        pid = os.fork()
        if pid:
            return pid
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))
            self._run(tests, first)
        except BaseException:  # noqa: BLE001 - a child must not go on as its parent
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(UNSTARTED)

    def _run(self, tests: Sequence[str], first: bool) -> None:
        os.setsid()
        os.chdir(self.tree)
        os.environ.update(environment(self.tree))
        sys.dont_write_bytecode = True
        sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
        with (self.folder / "log").open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        chosen = Chosen(tests)
        options = [
            "-q",
            "--tb=short",
            "-p",
            "no:cacheprovider",
            "-W",
            "ignore::pytest.PytestAssertRewriteWarning",
            f"--basetemp={self.folder / 'tmp'}",
            *["-x"][: int(first)],
        ]
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        status = pytest.main([*options, *files], plugins=[chosen])
        (self.folder / "failed.json").write_text(json.dumps(chosen.failed))
        sys.stdout.flush()
        os._exit(int(status))

    def end(self, pid: int, seconds: float, mutant: Mutant | None) -> tuple[str, list[str]]:
        """Wait for the tests; return the state, and which failed."""
        status = _waited(pid, seconds)
        if mutant is not None:
            (self.tree / mutant.path).write_bytes(self._whole)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        if status is None or status == -signal.SIGXCPU:
            return TIMED_OUT, []
        failed = self.folder / "failed.json"
        assert status != UNSTARTED, (self.folder / "log").read_text()
        names = json.loads(failed.read_text()) if failed.exists() else [f"the tests ended with status {status}"]
        return (SURVIVED if status == 0 else KILLED), names


def _waited(pid: int, seconds: float) -> int | None:
    """Return the exit status of a child, or ``None`` when it took longer and was killed with its own children."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None
