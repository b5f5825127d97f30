"""Progress of what comes into a folder: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time

import pytest

from edgecnn.progress import Progress, Talk, Terminal, detail, filling, say, talking, track, use


def said_until(text, capsys):
    """Return what came on stderr until the text did, however busy the machine is."""
    said, end = "", time.monotonic() + 300
    while text not in said and time.monotonic() < end:
        time.sleep(0.05)
        said += capsys.readouterr().err
    assert text in said
    return said


@pytest.mark.parametrize("terminal", [True, False])
def test_what_comes_into_a_folder_is_counted_on_a_terminal_alone(terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with filling(tmp_path / "archives", "packages", 4096):
        (tmp_path / "archives").mkdir()
        (tmp_path / "archives" / "some.deb").write_bytes(bytes(2048))
        if terminal:
            assert "packages" in said_until("2.0/4.1 kB", capsys)
    assert terminal or capsys.readouterr().err == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_items_are_all_yielded_and_shown_on_a_terminal_alone(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    seen = []
    for item in track("abc", "solve", 3):
        seen.append(item)
        if terminal and item == "c":
            assert "solve" in said_until("2/3", capsys)
    assert seen == ["a", "b", "c"]
    assert terminal or capsys.readouterr().err == ""


@pytest.mark.parametrize(("ci", "talk"), [("true", Talk.USUAL), ("", Talk.QUIET)])
def test_no_bar_where_nobody_looks(ci, talk, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("CI", ci)
    with talking(talk):
        assert list(track("abc", "solve", 3)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_bar_counts_in_units_and_says_the_seconds_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CI", raising=False)
    for item in track(range(3), "validate", 25, unit="images", each=10):
        if item == 2:
            assert "20/25 images" in said_until("s left", capsys)


def test_another_progress_is_told_how_many_items_there_are():
    class Counting(Progress):
        def track(self, items, description, total=None):
            self.total = total
            return iter(items)

    counting = Counting()
    with use(counting):
        assert list(track(range(3), "validate", 25, unit="images", each=10)) == [0, 1, 2]
    assert counting.total == 3


@pytest.mark.parametrize("talk", Talk)
def test_quiet_says_nothing_and_verbose_says_details(talk, capsys):
    with talking(talk), use(Terminal()):
        say("a stage")
        detail("a step")
    said = capsys.readouterr().err
    assert ("a stage" in said) is (talk is not Talk.QUIET)
    assert ("a step" in said) is (talk is Talk.VERBOSE)
