"""The command line, end to end: what it prints, what it leaves, and the status it exits with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import DEMO, EXPORT, QUICK, assert_same_figures, error_of, run
from golden_files import golden

from edgecnn.artifact import read_manifest
from edgecnn.cli import main
from edgecnn.data.synthetic import SyntheticImages
from edgecnn.evaluation.references import float_logits
from edgecnn.graph.serialize import load
from edgecnn_converters.tflite.reader import integers


def test_export_writes_artifact_graph_manifest_and_report(exported):
    folder, (entry,) = exported
    assert {p.name for p in folder.iterdir()} == {
        f"{DEMO}.tflite", f"{DEMO}.tflite.json", f"{DEMO}.edgecnn", "report.json"
    }  # fmt: skip
    assert set(entry) >= {
        "model", "target", "device", "artifact", "size_bytes", "accuracy", "latency", "parity", "checks", "seconds"
    }  # fmt: skip
    assert (entry["model"], entry["target"], entry["device"]) == (DEMO, "tflite", "host")
    assert entry["size_bytes"] == (folder / f"{DEMO}.tflite").stat().st_size
    accuracy = entry["accuracy"]
    assert accuracy["n"] == 60
    assert accuracy["drop"] == pytest.approx(accuracy["fp32_top1"] - accuracy["top1"], abs=0.011), "each is rounded"
    low, high = accuracy["drop_ci95"]
    assert low <= accuracy["drop"] <= high
    assert accuracy["agreement"] >= 95
    assert accuracy["sqnr_db"] >= golden("sqnr")["export"]["command"]
    assert entry["latency"]["runs"] >= 50
    assert entry["latency"]["threads"] == 1
    assert entry["parity"]["max_lsb"] is not None
    assert entry["float_ops"] == []
    assert {c["name"]: c["passed"] for c in entry["checks"]} == {"drop": True, "float_ops": True, "oracle_lsb": True}
    assert all(entry["seconds"][s] > 0 for s in ("capture", "calibrate", "quantize", "convert", "validate"))


def test_the_manifest_says_how_it_was_made_and_what_was_measured(exported):
    folder, (entry,) = exported
    manifest = read_manifest(folder / f"{DEMO}.tflite", "tflite")
    assert manifest.precision == "int8"
    assert manifest.metadata.quantization["calibration"]["images"] == 40
    assert len(manifest.metadata.quantization["calibration"]["sha256"]) == 64
    assert manifest.metadata.quantization["recipe"]["name"] == "fast"
    assert len(manifest.metadata.labels) == 16
    assert manifest.metadata.preprocess.resize == (96, 96)
    assert "torch" in manifest.versions
    assert [dict(f) for f in manifest.figures] == [entry]


def test_the_same_command_gives_the_same_bytes_in_another_process(exported, tmp_path):
    done = run(*EXPORT, *QUICK, "-o", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in (f"{DEMO}.tflite", f"{DEMO}.edgecnn"):
        assert (tmp_path / name).read_bytes() == (exported[0] / name).read_bytes()


def test_without_calibration_data_the_loss_is_said(tmp_path, capfd):
    words = ["export", DEMO, "--target", "tflite", "--weights", "demo", "--calibration", "none", *QUICK]
    assert main([*words, "--data", "demo", "--limit", "60", "-o", str(tmp_path), "--json"]) == 0
    captured = capfd.readouterr()
    (entry,) = json.loads(captured.out)["entries"]
    assert "calibrated without data" in entry["findings"][0]["text"]
    assert "calibrated without data" in captured.err
    assert entry["accuracy"]["agreement"] >= 90
    graph = load(tmp_path / f"{DEMO}.edgecnn")
    images = SyntheticImages(count=40, seed=0)
    seen = [
        float_logits(graph)(graph.metadata.preprocess.normalise(x))
        for x, _ in images.batches(graph.metadata.preprocess, 40)
    ]
    (quant,) = (graph.tensors[name].quant for name in graph.outputs)
    high = (quant.limits[1] - quant.zero_point[0]) * quant.scale[0]
    assert 1.9 * np.max(seen) < high < 2.1 * np.max(seen)  # logits of photographs go further


def test_validate_finds_reference_and_oracle_beside_the_artifact(exported, capfd):
    path = exported[0] / f"{DEMO}.tflite"
    assert main(["validate", str(path), "--data", "demo", "--limit", "60", "--min-agreement", "90", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    before = exported[1][0]
    assert_same_figures(entry, before)


def test_validate_without_reference(exported, tmp_path, capfd):
    alone = tmp_path / "alone.tflite"
    alone.write_bytes((exported[0] / f"{DEMO}.tflite").read_bytes())
    assert main(["validate", str(alone), "--data", "demo", "--limit", "20", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    assert entry["accuracy"]["top1"] > 50
    assert entry["accuracy"]["fp32_top1"] is None
    assert "not compared with fp32" in entry["findings"][0]["text"]
    message = error_of(capfd, "validate", alone, "--data", "demo", "--max-drop", "1")
    assert "--max-drop needs the fp32 reference" in message


def test_a_float_artifact_serves_as_reference(exported, tmp_path, capfd):
    source = exported[0] / f"{DEMO}.edgecnn"
    assert main(["export", str(source), "--target", "tflite", "--quantize", "none", "-o", str(tmp_path)]) == 0
    capfd.readouterr()
    words = ["validate", str(exported[0] / f"{DEMO}.tflite"), "--data", "demo", "--limit", "60", "--json"]
    assert main([*words, "--reference", str(tmp_path / f"{DEMO}.tflite")]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    assert entry["accuracy"]["agreement"] == exported[1][0]["accuracy"]["agreement"]
    assert entry["accuracy"]["sqnr_db"] == pytest.approx(exported[1][0]["accuracy"]["sqnr_db"], abs=0.1)


def test_a_graph_file_emits_again_without_torch(exported, tmp_path):
    source = exported[0] / f"{DEMO}.edgecnn"
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgecnn.cli import _parser, main\n"
        f"sys.exit(main(['export', {str(source)!r}, '--target', 'tflite', '-o', {str(tmp_path)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{DEMO}.tflite").read_bytes() == (exported[0] / f"{DEMO}.tflite").read_bytes()


@pytest.mark.parametrize("quantize", ["none", "fp16", "w8"])
def test_other_precisions(quantize, tmp_path, capfd):
    words = ["export", DEMO, "--target", "tflite", "--quantize", quantize, "--weights", "demo", "-o", str(tmp_path)]
    assert main([*words, "--data", "demo", "--limit", "40", "--min-agreement", "97", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    assert entry["precision"] == {"none": "fp32"}.get(quantize, quantize)
    assert entry["accuracy"]["sqnr_db"] > (25 if quantize == "w8" else 45)


@pytest.mark.parametrize("io", ["uint8", "float32"])
def test_input_and_output_types(io, exported, tmp_path, capfd):
    source = exported[0] / f"{DEMO}.edgecnn"
    words = ["export", str(source), "--target", "tflite", "--io", io, "-o", str(tmp_path), "--data", "demo"]
    assert main([*words, "--limit", "60", "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    assert entry["accuracy"]["agreement"] == exported[1][0]["accuracy"]["agreement"]
    assert entry["parity"]["max_lsb"] == exported[1][0]["parity"]["max_lsb"]
    assert entry["float_ops"] == []


@pytest.mark.parametrize(
    ("limit", "name"),
    [("--max-drop=-50", "drop"), ("--min-agreement=100.1", "agreement"), ("--max-latency-ms=0.0001", "latency")],
)
def test_a_missed_limit_is_status_1_and_keeps_the_artifacts(exported, tmp_path, limit, name, capfd):
    source = exported[0] / f"{DEMO}.edgecnn"
    words = ["export", str(source), "--target", "tflite", "-o", str(tmp_path), "--data", "demo", "--limit", "20"]
    assert main([*words, limit]) == 1
    assert re.search(rf"{name} .*FAILED", capfd.readouterr().out)
    (entry,) = json.loads((tmp_path / "report.json").read_text())["entries"]
    assert {c["name"]: c["passed"] for c in entry["checks"]}[name] is False
    assert (tmp_path / f"{DEMO}.tflite").exists()


def test_threads_are_passed_on(exported, capfd):
    path = exported[0] / f"{DEMO}.tflite"
    assert main(["validate", str(path), "--data", "demo", "--limit", "10", "--threads", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["entries"][0]["latency"]["threads"] == 2


FACTORY = """
from torch import nn
def net():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16))
class Odd(nn.Module):
    def forward(self, x):
        return x.sort(1).values
def odd():
    return nn.Sequential(nn.Conv2d(3, 4, 3), Odd())
"""


def test_a_users_own_module(tmp_path, monkeypatch, capfd):
    (tmp_path / "mynets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    words = ["export", "mynets:net", "--target", "tflite", "--calibration", "demo", "--calibration-images", "40"]
    feed = ["--preprocess", "resize=48x48,mean=127.5,std=127.5"]
    assert main([*words, *feed, "--data", "demo", "--limit", "20", "--min-agreement", "80"]) == 0
    assert (tmp_path / "out" / "net.tflite").exists()
    assert "does not say how images become its input" in error_of(capfd, *words)
    message = error_of(capfd, "export", "mynets:odd", *words[2:], *feed)
    assert "sort" in message
    assert " in 1 at" in message
    assert " ops are supported" in message
    assert "`edgecnn models ops torch` lists all" in message
    assert main(["inspect", "mynets:net", *feed]) == 0
    assert "conv2d" in capfd.readouterr().out


def test_the_files_integers_are_the_graphs(exported):
    folder, _ = exported
    graph = load(folder / f"{DEMO}.edgecnn")
    for name, (quant, values) in integers((folder / f"{DEMO}.tflite").read_bytes()).items():
        assert quant.same_as(graph.tensors[name].quant)
        assert values is None or np.array_equal(values, graph.tensors[name].integers)


def test_paths_are_only_what_the_user_gave(exported):
    folder, _ = exported
    for name in (f"{DEMO}.tflite", f"{DEMO}.edgecnn"):
        assert str(Path.home()).encode() + b"/" not in (folder / name).read_bytes()
