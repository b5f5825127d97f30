"""Sweeps of the demo network: figures are those of the commands, whatever ran them and whatever stopped them."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time

import pytest
from commands import DEMO, hears_interrupts

import edgecnn
from edgecnn.cli import main

SMALL = {"limit": 16, "calibration_images": 16, "axes": {"model": [DEMO], "recipe": ["minmax"], "seed": [0, 1]}}
HALF = {**SMALL, "axes": {**SMALL["axes"], "seed": [0]}}


def figures(report):
    timed = ("median_ms", "p90_ms", "time_ms")
    return [{k: v for k, v in row.figures.items() if k not in timed} for row in report.rows]


@pytest.mark.slow
def test_figures_are_those_of_the_command_and_of_another_engine(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'edgecnn[dask]'")
    monkeypatch.chdir(tmp_path)
    quiet = edgecnn.Progress()
    edgecnn.sweep(HALF, output="resumed", progress=quiet)
    first = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "resumed" / "results").iterdir()}
    cluster = {"cluster": "dask.distributed.LocalCluster", "workers": 1, "options": {"processes": False}}
    resumed = edgecnn.sweep({**SMALL, "engine": cluster}, output="resumed", progress=quiet)
    whole = edgecnn.sweep(SMALL, output="whole", workers=2, progress=quiet)
    assert figures(resumed) == figures(whole)
    assert [row.status for row in whole.rows] == ["ok", "ok"]
    assert whole.passed
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "resumed" / "results").iterdir()}
    assert {name: after[name] for name in first} == first  # kept
    assert len(after) == len(first) + 3
    words = shlex.split(whole.rows[1].command)
    assert main(words[1:]) == 0
    (entry,) = json.loads((tmp_path / "out-2" / "report.json").read_text())["entries"]
    for name in ("top1", "agreement"):
        assert entry["accuracy"][name] == pytest.approx(whole.rows[1].figures[name], abs=0.01)
    digest = json.loads((tmp_path / "whole" / "sweep.json").read_text())["rows"][1]["stages"][2]
    (made,) = (tmp_path / "whole" / "files" / digest).glob("*.tflite")
    assert made.read_bytes() == (tmp_path / "out-2" / made.name).read_bytes()


def test_a_device_that_breaks_is_asked_again_by_the_next_sweep(tmp_path, monkeypatch):
    from edgecnn.jobs.task import Status, attempt
    from edgecnn.sweeping import stages
    from edgecnn.sweeping.store import FINAL

    monkeypatch.chdir(tmp_path)
    edgecnn.sweep(HALF, output="out", workers=1, progress=edgecnn.Progress())
    row = json.loads((tmp_path / "out" / "sweep.json").read_text())["rows"][0]
    made = json.loads((tmp_path / "out" / "results" / f"{row['stages'][2]}.json").read_text())["value"]
    settings = {"data": "demo", "devices": ["ssh://nobody@nowhere.invalid"], "witness": None, "limits": {}, "limit": 4}
    before = stages.Made(tmp_path / "out" / "files" / row["stages"][2], made)
    status, _, text = attempt(stages.validate, (settings, before, tmp_path))
    assert (status, status in FINAL) == (Status.FAULT, False)
    assert text.startswith("the device broke: ssh://nobody@nowhere.invalid")


@pytest.mark.slow
def test_one_bad_network_ends_no_other(tmp_path):
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no network")
    axes = {**HALF["axes"], "model": [str(bad), DEMO]}
    report = edgecnn.sweep({**HALF, "axes": axes}, output=tmp_path / "out", progress=edgecnn.Progress())
    assert [row.status for row in report.rows] == ["error", "ok"]
    assert "bad.onnx" in report.rows[0].text
    assert report.best.row == 2
    assert not report.passed


@pytest.mark.slow
def test_an_interrupt_leaves_a_report_and_the_sweep_goes_on(tmp_path):
    file, out = tmp_path / "sweep.toml", tmp_path / "out"
    file.write_text(f"limit = 16\ncalibration_images = 16\n[axes]\nmodel = ['{DEMO}']\nseed = [0, 1, 2, 3]\n")
    words = [sys.executable, "-m", "edgecnn", "sweep", str(file), "-o", str(out), "--workers", "1"]
    running = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=hears_interrupts
    )
    until = time.monotonic() + 120
    while not list(out.glob("results/*.json")) and time.monotonic() < until:
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    rows = json.loads((out / "report.json").read_text())["entries"]
    assert len(rows) == 4
    assert "left" in {row["status"] for row in rows}
    done = subprocess.run([*words, "--jobs", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1 combinations: 1 ok" in done.stdout


def test_two_sweeps_do_not_run_in_one_folder(tmp_path, capfd):
    from edgecnn.sweeping.api import _alone

    (tmp_path / "sweep.toml").write_text(f"[axes]\nmodel = ['{DEMO}']\n")
    with _alone(tmp_path / "out"):
        assert main(["sweep", str(tmp_path / "sweep.toml"), "-o", str(tmp_path / "out")]) == 2
    assert "another sweep runs in" in capfd.readouterr().err
