"""What goes wrong is one line and a status: faults of ours, of the user's code, interrupts, closed pipes, odd names."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import DEMO, error_of, hears_interrupts

from edgecnn.cli import main
from edgecnn.escaping import c_comment, csv_cell, printable
from edgecnn.progress import Terminal
from edgecnn.report.forms import table

ESCAPES = "\x1b[31mred\x9b2J\u202eback\nnext\ttab"

BAD_CODE = """
import torch

class Own(torch.nn.Module):
    def forward(self, x):
        raise KeyError("gone")  # line 6

class Strange(Exception): pass

def raises(): raise Strange("odd")
def module(): return Own().eval()
def metric(outputs, references): return {"a": outputs[10**9]}
"""


def test_an_exception_of_the_users_code_is_one_line_with_its_place(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "bad_code.py").write_text(BAD_CODE)
    fed = ["--preprocess", "resize=8x8,mean=0,std=1", "--quantize", "none"]
    assert re.search(r"raised Strange: odd \(.*bad_code.py:10\)", error_of(capfd, "export", "bad_code:raises", *fed))
    assert re.search(r"gone.*\(.*bad_code.py:6\)", error_of(capfd, "export", "bad_code:module", *fed))
    (tmp_path / "worse_code.py").write_text("x = {}\ny = x['key']\n")
    assert re.search(r"raised KeyError: 'key' \(.*worse_code.py:2\)", error_of(capfd, "export", "worse_code:f", *fed))


def test_traceback_shows_where_an_error_came_from(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "third_code.py").write_text("def f(): return 1 / 0\n")
    words = ["export", "third_code:f", "--preprocess", "resize=8x8,mean=0,std=1", "--quantize", "none", "--traceback"]
    assert main(words) == 2
    said = capfd.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "def f(): return 1 / 0" in said
    assert said.splitlines()[-1].startswith("edgecnn: error: ")


def test_a_fault_of_ours_is_one_line_and_a_file_with_the_traceback(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("edgecnn.models.families", lambda: {}["nothing"])
    monkeypatch.setattr("edgecnn.own_code._is_library", lambda file: "edgecnn" not in file or "tests" in file)
    assert main(["models"]) == 70
    (line,) = capfd.readouterr().err.splitlines()
    found = re.fullmatch(r"edgecnn: internal error: KeyError: 'nothing' \(.*\); please report it with (.*)", line)
    assert found
    assert "Traceback" in Path(found[1]).read_text()
    assert Path(found[1]).parent == tmp_path


def test_a_system_that_refuses_a_file_is_no_fault_of_ours(monkeypatch, capfd):
    def refuse():
        raise PermissionError(13, "Permission denied", "/etc/secret")

    monkeypatch.setattr("edgecnn.models.families", refuse)
    monkeypatch.setattr("edgecnn.own_code._is_library", lambda file: True)
    assert "Permission denied (/etc/secret)" in error_of(capfd, "models")


@pytest.mark.parametrize("module", ["edgecnn.errors", "edgecnn.cli.options", "numpy", "torch"])
def test_an_interrupt_is_one_line_at_any_moment(module, tmp_path):
    words = ["export", DEMO, "--weights", "demo", "--calibration", "demo", "-o", tmp_path / "out"]
    command = [sys.executable, "-X", "importtime", "-m", "edgecnn", *map(str, words)]
    with subprocess.Popen(command, stderr=-1, stdout=-1, text=True, preexec_fn=hears_interrupts) as process:
        for line in process.stderr:  # each module when it has been imported
            if line.rpartition("|")[2].strip() == module:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    said = [line for line in err.splitlines() if not line.startswith("import time:")]
    assert said == ["edgecnn: interrupted; no half-written artifact was left"]
    assert out == ""


def test_a_closed_pipe_ends_quietly():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edgecnn", "models"]
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_name_cannot_command_a_terminal(tmp_path, capfd):
    file = tmp_path / "net\x1b[2J\u202e.onnx"
    file.write_bytes(b"nothing")
    line = error_of(capfd, "inspect", file.with_suffix(".tflite"))
    assert "\\x1b[2J\\u202e" in line
    assert "\x1b" not in line
    Terminal().say(ESCAPES)
    assert capfd.readouterr().err == "\\x1b[31mred\\x9b2J\\u202eback\nnext\\x09tab\n"


def test_text_is_escaped_for_the_place_where_it_is_shown():
    assert printable(ESCAPES) == "\\x1b[31mred\\x9b2J\\u202eback\\x0anext\\x09tab"
    assert printable("Zürich 東京 é") == "Zürich 東京 é"
    assert printable(os.fsdecode(b"\xff")) == "\\udcff"
    assert [csv_cell(v) for v in ("=1+1", "@x", "plain", 3, None, "-")] == ["'=1+1", "'@x", "plain", 3, None, "'-"]
    assert c_comment("a */ b /* c\n") == "a *\\/ b /\\* c\\x0a"
    assert "'=cmd()" in table([{"model": "=cmd()", "target": "tflite"}])
