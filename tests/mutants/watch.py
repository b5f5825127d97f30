"""A pytest plugin: tell coverage which test runs, and write down what each took.

A fixture of a module or session is a context of its own: every test that uses it depends on the lines it ran.
Child processes name the test by the environment variable of pytest (``context`` in ``lines.SETTINGS``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

NOTES = Path(os.environ["MUTANTS_NOTES"])
_now = ""
_fixtures: dict[str, list[str]] = {}
_taken: dict[str, tuple[float, bool]] = {}


def _switch(context: str) -> None:
    global _now
    _now = context
    running = coverage.Coverage.current()
    assert running is not None
    running.switch_context(context)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    """Begin a test's context, and note which fixtures it shares with others."""
    _switch(item.nodeid)
    known = item._fixtureinfo.name2fixturedefs if hasattr(item, "_fixtureinfo") else {}
    shared = [each[-1] for each in known.values() if each[-1].scope != "function"]
    _fixtures[item.nodeid] = [f"{fixture.baseid}|{fixture.argname}" for fixture in shared]


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Iterator[None]:
    """Give a shared fixture a context of its own."""
    before = _now
    if fixturedef.scope != "function":
        _switch(f"{fixturedef.baseid}|{fixturedef.argname}")
    yield
    _switch(before)


def pytest_runtest_logreport(report: Any) -> None:
    """Write a line when a test has ended."""
    seconds, passed = _taken.get(report.nodeid, (0.0, True))
    seconds, passed = seconds + report.duration, passed and report.passed
    _taken[report.nodeid] = seconds, passed
    if report.when == "teardown":
        note = {"test": report.nodeid, "seconds": round(seconds, 3), "passed": passed}
        with NOTES.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**note, "fixtures": _fixtures.get(report.nodeid, [])}) + "\n")
