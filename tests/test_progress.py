"""Progress of what comes into a folder: a bar on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time

import pytest

from edgecnn.progress import filling


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
