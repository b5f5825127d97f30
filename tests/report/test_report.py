"""The report: its JSON is a contract, a missing figure never passes, and a person sees what failed."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys

import pytest

from edgecnn.errors import InputError
from edgecnn.report.record import (
    SQNR_CEILING_DB,
    Accuracy,
    Check,
    Finding,
    Latency,
    Parity,
    Report,
    ReportEntry,
)
from edgecnn.report.table import render


def entry(**changes) -> ReportEntry:
    fields = {
        "model": "mobilenet_v2",
        "target": "tflite",
        "device": "host",
        "artifact": "out/mobilenet_v2.tflite",
        "size_bytes": 4_050_000,
        "precision": "int8",
    }
    return ReportEntry(**{**fields, **changes})


def report(*entries) -> Report:
    return Report(command="export", entries=entries)


def said(*texts):
    return tuple(Finding(code="test", text=text) for text in texts)


FULL = entry(
    accuracy=Accuracy(
        n=650,
        fp32_top1=76.31,
        top1=75.69,
        drop=0.62,
        drop_ci95=(-0.9, 2.14),
        fp32_top5=93.5,
        top5=93.1,
        agreement=94.8,
        sqnr_db=13.2,
    ),
    latency=Latency(median_ms=1.54, p90_ms=1.61, threads=1, runs=100),
    parity=Parity(max_lsb=1, mean_lsb=0.01),
    checks=(Check.at_most("drop", 0.62, 1.0, "points"), Check.at_least("agreement", 94.8, 97.0, "%")),
    seconds={"capture": 1.0, "calibrate": 3.0, "quantize": 1.0, "convert": 0.2, "validate": 6.0},
    findings=said("one op is not delegated"),
)


def test_every_key_of_the_contract_is_there_and_absent_figures_are_null():
    document = json.loads(json.dumps(report(entry()).to_dict(), allow_nan=False))
    assert set(document) == {"schema_version", "edgecnn", "version", "command", "date", "host", "entries"}
    assert document["schema_version"] == 1
    assert set(document["host"]) == {"system", "machine", "cpu", "cores", "python"}
    (record,) = document["entries"]
    contract = {
        "accuracy": {"n", "fp32_top1", "top1", "drop", "agreement", "sqnr_db"},
        "latency": {"median_ms", "p90_ms", "threads", "instructions"},
        "parity": {"max_lsb", "mean_lsb"},
        "seconds": {"capture", "calibrate", "quantize", "convert", "validate"},
    }
    assert set(record) >= {"model", "target", "device", "artifact", "size_bytes", "checks", *contract}
    for key, figures in contract.items():
        assert set(record[key]) >= figures
        assert {record[key][figure] for figure in figures - {"n"}} == {None}
    assert record["accuracy"]["n"] == 0
    assert record["checks"] == []


def test_figures_and_checks_reach_the_json_unchanged():
    (record,) = json.loads(json.dumps(report(FULL).to_dict()))["entries"]
    finding = {"code": "test", "text": "one op is not delegated", "severity": "warning", "images": []}
    assert record["findings"] == [finding]
    assert record["accuracy"]["drop_ci95"] == [-0.9, 2.14]
    assert record["latency"] == {"median_ms": 1.54, "p90_ms": 1.61, "threads": 1, "instructions": None, "runs": 100}
    assert record["seconds"]["calibrate"] == 3.0
    assert record["checks"] == [
        {"name": "drop", "value": 0.62, "limit": 1.0, "unit": "points", "bound": "max", "passed": True},
        {"name": "agreement", "value": 94.8, "limit": 97.0, "unit": "%", "bound": "min", "passed": False},
    ]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", [Check.at_most, Check.at_least])
def test_a_figure_that_is_missing_or_not_finite_fails(make, value):
    check = make("drop", value, 1.0, "points")
    assert not check.passed
    assert check.to_json()["value"] is None
    assert "not measured" in str(check)


def test_a_figure_on_its_limit_passes():
    assert Check.at_most("drop", 1.0, 1.0, "points").passed
    assert not Check.at_most("drop", math.nextafter(1.0, 2), 1.0, "points").passed
    assert Check.at_least("agreement", 97.0, 97.0, "%").passed
    assert not Check.at_least("agreement", math.nextafter(97.0, 0), 97.0, "%").passed


@pytest.mark.parametrize("limit", [math.nan, math.inf])
def test_a_limit_that_nothing_can_miss_is_refused(limit):
    with pytest.raises(InputError, match="give a finite number of points"):
        Check.at_most("drop", 0.0, limit, "points")


def test_an_unknown_bound_is_refused():
    with pytest.raises(InputError, match="allowed: max, min"):
        Check(name="drop", value=0.0, limit=1.0, unit="points", bound="maximum")


def test_one_failed_check_of_one_entry_fails_the_report():
    good = entry(checks=(Check.at_most("drop", 0.1, 1.0, "points"),))
    unmeasured = entry(checks=(Check.at_most("median latency", None, 5.0, "ms"),))
    assert report().passed
    assert report(entry(), good).passed
    assert not report(good, FULL).passed
    assert not report(good, unmeasured).passed
    assert report(good, FULL).failures == ("out/mobilenet_v2.tflite on host: agreement: 94.8 %, limit at least 97 %",)


def test_a_finding_of_severity_error_fails_the_report_and_is_red(capfd):
    lost = Finding(code="quantization_loss", text="int8 is far from fp32", severity="error")
    passed = Check.at_most("drop", 0.1, 1.0, "points")
    made = report(entry(checks=(passed,), findings=(*said("a note"), lost)), entry(checks=(passed,)))
    assert not made.passed
    assert made.failures == ("out/mobilenet_v2.tflite on host: int8 is far from fp32",)
    render(made)
    seen = capfd.readouterr().out
    assert seen.count("int8 is far from fp32") == 1
    assert "FAILED  out/mobilenet_v2.tflite on host: int8 is far from fp32\n" in seen
    assert "1 failed" in seen
    assert made._repr_html_().count("int8 is far from fp32") == 1
    assert report(entry(findings=said("a note"))).passed


def test_the_file_is_the_same_document_and_is_written_whole(tmp_path):
    path = tmp_path / "out" / "report.json"
    made = report(FULL, entry())
    made.save(path)
    first = path.read_bytes()
    assert json.loads(first) == json.loads(json.dumps(made.to_dict()))
    made.save(path)
    assert path.read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_a_report_that_cannot_be_written_says_where_and_why(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*report\.json: .*; choose another place"):
        report(FULL).save(tmp_path / "file" / "report.json")


def test_a_person_sees_the_figures_and_what_failed_on_stdout(capfd):
    other = entry(model="other", accuracy=Accuracy(n=2, sqnr_db=SQNR_CEILING_DB), device=None)
    render(report(FULL, other), wide=True)
    seen = capfd.readouterr()
    assert seen.err == ""
    table = seen.out
    for figure in ("tflite int8", "4.05", "75.69", "76.31", "+0.62", "-0.90 to +2.14", "94.80", "13.2", "1.54", "1.61"):
        assert figure in table
    assert "1 failed" in table
    assert re.search(r"other .* equal ", table)
    assert "FAILED  out/mobilenet_v2.tflite on host: agreement: 94.8 %, limit at least 97 %\n" in table
    assert "note    out/mobilenet_v2.tflite on host: one op is not delegated\n" in table
    assert "drop: 0.62" not in table, "a passed check is not listed as failed"


def test_one_result_is_a_card(capfd):
    render(report(FULL))
    seen = capfd.readouterr().out
    lines = seen.splitlines()
    assert lines[0] == "mobilenet_v2  tflite int8  host  1 failed"
    assert any(re.fullmatch(r"  accuracy +top-1 75.69 %, fp32 76.31 %", line) for line in lines), seen
    assert any(re.fullmatch(r" +drop \+0.62 points \(95 %: -0.90 to \+2.14\)", line) for line in lines)
    assert sum("FAILED" in line for line in lines) == 1
    assert any(re.search(r"agreement +94.8 % +>= 97 +FAILED", line) for line in lines), seen
    assert "one op is not delegated" in seen
    render(report(entry(accuracy=Accuracy(), checks=(), device=None)))
    assert re.search(r"next +edgecnn validate out/\S+ --data DIR", capfd.readouterr().out)


def test_a_table_has_no_column_that_says_nothing_and_fits(capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    rows = [
        entry(model=f"net{k}", accuracy=Accuracy(n=9, top1=50.0 + k, fp32_top1=60.0), device="host") for k in range(3)
    ]
    render(report(*rows))
    seen = capfd.readouterr().out
    assert "device host" in seen.splitlines()[0], "what is the same everywhere is said once"
    assert "M cycles" not in seen
    assert max(map(len, seen.splitlines()[1:])) <= 80
    assert not re.search("…", seen)


def test_what_is_found_of_every_artifact_is_said_once(capfd):
    names = ("a.tflite", "b.onnx")
    render(report(*(entry(artifact=f"out/{n}", findings=said("few classes", n), device=None) for n in names)))
    seen = capfd.readouterr().out
    assert [line for line in seen.splitlines() if line.startswith("note")] == [
        "note    out/a.tflite: a.tflite",
        "note    out/b.onnx: b.onnx",
        "note    few classes",
    ]


def test_names_with_brackets_are_shown_as_they_are(capfd):
    render(report(entry(model="[red]net[/red]", artifact="out/[bold].tflite", findings=said("[x] stays"))))
    assert "[red]net[/red]" in (seen := capfd.readouterr().out)
    assert "[x] stays" in seen


def test_a_plain_terminal_encoding_can_show_it():
    script = (
        "from edgecnn.report.record import *\nfrom edgecnn.report.table import render\n"
        "render(Report(command='validate', entries=(ReportEntry(model='m', target='tflite', device='host',"
        " artifact='m.tflite', size_bytes=1, precision='int8',"
        " checks=(Check.at_most('drop', None, 1.0, 'points'),)),)))"
    )
    environment = {"PYTHONIOENCODING": "ascii", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=True)
    assert b"drop  not measured  <= 1  FAILED" in done.stdout


def test_a_terminal_without_a_character_shows_its_number():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words in (
        ["-c", "from edgecnn.report.grid import *; line(console(), 'caf\xe9')"],
        ["-m", "edgecnn", "models", "show", "caf\xe9"],
    ):
        done = subprocess.run([sys.executable, *words], capture_output=True, env=environment, check=False)
        assert b"caf\\xe9" in done.stdout + done.stderr
        assert b"Traceback" not in done.stderr


def test_the_report_itself_needs_no_rich():
    script = "import sys, edgecnn; edgecnn.Report(command='x', entries=()).to_dict(); print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_report_shows_itself_in_a_terminal_and_in_a_notebook():
    made = report(FULL, entry(artifact="out/<b>.onnx", findings=said("a < b")))
    text, page = repr(made), made._repr_html_()
    for shown in ("FAILED  out/mobilenet_v2.tflite on host: agreement", "one op is not delegated"):
        assert shown in text
    assert "\x1b" not in text
    assert max(map(len, repr(report(FULL, FULL, FULL, FULL)).splitlines())) <= 80
    assert "<td>75.69</td>" in page
    assert "<b>failed</b> out/mobilenet_v2.tflite on host: agreement" in page
    assert "a &lt; b" in page
    assert "out/&lt;b&gt;.onnx" in page
