"""Progress of what comes into a folder: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time

import pytest

from edgecnn.progress import filling, track


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
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    seen = []
    for item in track("abc", "solve", 3):
        seen.append(item)
        if terminal and item == "c":
            assert "solve" in said_until("2/3", capsys)
    assert seen == ["a", "b", "c"]
    assert terminal or capsys.readouterr().err == ""
