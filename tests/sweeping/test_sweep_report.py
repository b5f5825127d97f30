"""The report of a sweep: from files alone, at any time."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict

import pytest

from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.files import write_json
from edgecnn.jobs import Status
from edgecnn.sweeping.figures import figures_of, front
from edgecnn.sweeping.report import Plan, PlannedRow, read_report
from edgecnn.sweeping.stages import Stage
from edgecnn.sweeping.store import Store

DEVICES = ("host", "cortex-m4")


def entry(top1, time_ms, size, device):
    latency = {"median_ms": time_ms} if device == "host" else {"median_ms": None}
    resources = {"cycles": int(1000 * time_ms)} if device != "host" else {"cycles": None}
    return {"accuracy": {"top1": top1}, "latency": latency, "parity": {}, "resources": resources, "size_bytes": size}


def stage(k):
    return Stage("validate", f"row {k}", {"k": k})


@pytest.fixture
def folder(tmp_path):
    """A sweep of 8 combinations on two devices, of which some failed and one is left."""
    rows, store = [], Store(tmp_path)
    for k in range(8):
        recipe, device = ("fast", "minmax")[k % 2], DEVICES[k // 4]
        point = {"model": "net", "recipe": recipe, "device": device}
        rows.append(
            PlannedRow(point=point, model="net", stages=(stage(k).digest,), identity=stage(k).identity, command=f"c{k}")
        )
        value = {"entry": entry(90 - k % 4, 4 - k % 4, 1000, device), "failures": ["top1: too low"] if k == 1 else []}
        if k == 6:
            store.put(stage(k), Status.TIMEOUT, text="it took longer than the limit of 1 s", run={"attempts": 3})
        elif k != 7:
            store.put(stage(k), Status.OK, value=value, run={})
    plan = Plan(edgecnn="0", axes={}, objective=("top1", "time_ms"), left_out={"excluded": 3}, rows=tuple(rows))
    write_json(tmp_path / "sweep.json", asdict(plan))
    return tmp_path


def test_rows_fronts_effects_and_what_is_left(folder):
    report = read_report(folder)
    assert [row.status for row in report.rows] == ["ok", "failed", "ok", "ok", "ok", "ok", "timeout", "left"]
    assert report.rows[6].text == "row 6: it took longer than the limit of 1 s"
    assert report.best.row == 1
    assert report.fronts == {"host": [1, 3, 4], "cortex-m4": [5, 6]}  # of a microcontroller by its cycles
    effects = {(e.axis, e.value, e.figure): (e.n, e.mean) for e in report.effects}
    assert effects["recipe", "fast", "top1"] == (3, pytest.approx((90 + 88 + 90) / 3))
    assert effects["recipe", "minmax", "top1"] == (3, pytest.approx((89 + 87 + 89) / 3))
    assert not report.passed


def test_the_command_writes_every_form_and_its_status_says_whether_all_is_well(folder, capfd):
    assert main(["sweep", "report", str(folder), "--json"]) == 1
    printed = json.loads(capfd.readouterr().out)
    written = json.loads((folder / "report.json").read_text())
    assert printed["entries"] == written["entries"]
    assert printed["fronts"] == {"host": [1, 3, 4], "cortex-m4": [5, 6]}
    rows = list(csv.DictReader((folder / "report.csv").read_text().splitlines()))
    assert [row["status"] for row in rows][-3:] == ["ok", "timeout", "left"]
    assert rows[0]["command"] == "c0"
    page = (folder / "report.html").read_text()
    assert "Pareto fronts" in page
    assert "<svg" in page
    assert "it took longer" in (folder / "report.md").read_text()
    assert main(["sweep", "report", str(folder)]) == 1
    assert "8 combinations: 5 ok, 1 failed, 1 timeout, 1 left" in capfd.readouterr().out


def test_results_of_other_versions_are_shown_as_such(folder, monkeypatch):
    for path in (folder / "results").iterdir():
        path.unlink()
    monkeypatch.setattr("edgecnn.sweeping.stages._installed", lambda: {"edgecnn": "0.1.0"})
    value = {"entry": entry(80, 1, 1, "host"), "failures": []}
    Store(folder).put(stage(0), Status.OK, value=value, run={})
    row = read_report(folder).rows[0]
    assert (row.status, row.figures["top1"]) == ("older", 80)
    assert row.text == "of other versions: edgecnn 0.1.0; run the sweep again"
    assert read_report(folder).best is None


def test_a_folder_without_a_sweep(tmp_path, capfd):
    with pytest.raises(InputError, match=r"is the folder of no sweep: it holds no sweep.json"):
        read_report(tmp_path)
    assert main(["sweep", "report"]) == 2


def test_time_is_measured_or_estimated():
    measured = entry(1, 2, 3, "host")
    assert figures_of(measured)["time_ms"] == 2
    estimated = {**measured, "latency": {"median_ms": None}, "resources": {"estimated_ms": 5.0}}
    assert figures_of(estimated)["time_ms"] == 5
    assert "time_ms" not in figures_of(entry(1, 2, 3, "cortex-m4"))


def test_a_front_holds_what_nothing_else_beats():
    points = [{"top1": a, "size_bytes": b} for a, b in ((90, 10), (91, 20), (89, 10), (91, 21), (91, 20))]
    assert front([*points, {"top1": 99}], ["top1", "size_bytes"]) == [0, 1, 4]
