"""Progress of what comes into a folder: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time

import pytest

from edgecnn.progress import filling, track


@pytest.mark.parametrize("terminal", [True, False])
def test_what_comes_into_a_folder_is_counted_on_a_terminal_alone(terminal, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with filling(tmp_path / "archives", "packages", 4096):
        (tmp_path / "archives").mkdir()
        (tmp_path / "archives" / "some.deb").write_bytes(bytes(2048))
        time.sleep(0.5)
    said = capsys.readouterr().err
    assert ("packages" in said and "2.0/4.1 kB" in said) if terminal else said == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_items_are_all_yielded_and_shown_on_a_terminal_alone(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    seen = []
    for item in track("abc", "solve", 3):
        seen.append(item)
        time.sleep(0.5)
    assert seen == ["a", "b", "c"]
    said = capsys.readouterr().err
    assert ("solve" in said and "2/3" in said) if terminal else said == ""
