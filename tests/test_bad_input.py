"""Bad input to the command line: one clear line, the right status, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from commands import DEMO, EXPORT, QUICK, error_of
from PIL import Image

from edgecnn.artifact import read_manifest
from edgecnn.cli import main
from edgecnn.graph.serialize import load


def folder_of(path, count=3):
    for i in range(count):
        path.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (96, 96, 3), np.uint8)
        Image.fromarray(pixels).save(path / f"{i}.png")
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["export", "mobilnet_v2", "--target", "tflite", "--calibration", "demo"], "did you mean 'mobilenet_v2'"),
        (["export", DEMO, "--target", "tflit", "--calibration", "demo"], "unknown target 'tflit'"),
        (["export", DEMO, "--target", "tflite"], "int8 needs calibration images"),
        (["export", "mobilenet_v2", "--target", "tflite", "--calibration", "demo"], "needs --weights FILE"),
        ([*EXPORT, "--quantize", "int16x8", "--target", "onnx"], "int16x8: ONNX Runtime computes in float"),
        ([*EXPORT, "--quantize", "int16x8", "--target", "openvino"], "OpenVINO's CPU plugin computes in float"),
        ([*EXPORT, "--quantize", "int16x8", "--io", "int8"], "int16x8 has int16 or float32 input and output"),
        ([*EXPORT, "--target", "all", "--io", "int8"], "--io int8 does not fit: in int8, openvino takes float32"),
        ([*EXPORT, "--target", "c", "--io", "uint8"], "in int8, c takes int8; leave --io out"),
        (["export", DEMO, "--target", "tflite", "--quantize", "int16x8"], "int16x8 needs calibration images"),
        ([*EXPORT, "--recipe", "bset"], "unknown recipe"),
        ([*EXPORT, "--max-drop", "1"], "--max-drop needs labelled images"),
        ([*EXPORT, "--max-drop", "nan", "--data", "demo"], "give a finite number"),
        ([*EXPORT, "--data", "demo", "--device", "pixel"], "unknown device 'pixel'"),
        ([*EXPORT, "--weights", "random", "--data", "demo"], "16 class folders but the network has 1000 outputs"),
        ([*EXPORT, "--preprocess", "size=3"], "--preprocess 'size=3'"),
        ([*EXPORT, "--weights", "none.safetensors"], "no weight file at none.safetensors"),
        ([*EXPORT, "--calibration", "no/such/folder"], "no/such/folder is not a folder"),
        (["export", "no.edgecnn", "--target", "tflite"], "no.edgecnn is not a readable"),
        (["export", DEMO, "--target", "tflite", "--quantize", "fp16", "--calibration", "demo"], "--calibration is for"),
        (["export", DEMO, "--target", "tflite", "--quantize", "fp16", "--io", "uint8"], "--io uint8 is for"),
        (["validate", "no.tflite", "--data", "demo"], "no artifact at no.tflite"),
        (["validate", "no.txt", "--data", "demo"], "no.txt is no artifact"),
        (["inspect", "no.tflite"], "cannot read no.tflite"),
        (["train", "mobilenet_v2_0.35_96", "--data", "demo", "-o", "w.pt"], "written as .safetensors"),
        (["train", "mobilenet_v2_0.35_96", "--data", "none", "-o", "w.safetensors"], "none is not a folder"),
        (["recipes", "show"], r"recipes show needs a name \(fast, .*\) or a .toml file"),
        (["sweep", "a.toml", "b.toml"], "give one FILE.toml, or report DIR; got a.toml b.toml"),
    ],
)  # fmt: skip
def test_bad_words_are_one_line_and_leave_nothing(words, message, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert re.search(message, error_of(capfd, *words))
    assert list(tmp_path.rglob("*.tflite")) == list(tmp_path.rglob("*.edgecnn")) == []


def test_an_option_that_one_format_lacks_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("edgecnn.exporting.load", None)
    words = [*EXPORT, "--target", "all", "--io", "int8", "-o", tmp_path / "out"]
    assert "openvino takes float32; leave --io out, or name another --target" in error_of(capfd, *words)
    assert not (tmp_path / "out").exists()


def weights(tmp_path, change):
    from edgecnn.models import resolve
    from edgecnn.models.checkpoint import demo_weights

    state = demo_weights(resolve(DEMO))[0].state_dict()
    change(state)
    torch.save(state, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_bad_files_are_one_line_and_leave_nothing(tmp_path, capfd):
    out = tmp_path / "out"
    words = [*EXPORT[:6], "--data", "demo", "-o", out]

    def with_nan(state):
        state["features.0.conv.weight"][0, 0, 0, 0] = float("nan")

    nan = weights(tmp_path, with_nan)
    assert "holds NaN" in error_of(capfd, *EXPORT, "--weights", nan, "-o", out)
    (tmp_path / "empty").mkdir()
    assert "no images in" in error_of(capfd, *words, "--calibration", tmp_path / "empty")
    good = folder_of(tmp_path / "good" / "stop")
    assert "unknown class 'cat'" in error_of(
        capfd, *EXPORT, *QUICK, "--data", folder_of(tmp_path / "cats" / "cat").parent, "-o", out
    )
    (good / "1.png").write_bytes((good / "1.png").read_bytes()[:200])
    assert "1 of 3 images" in error_of(capfd, *words, "--calibration", good)
    table = tmp_path / "table"
    folder_of(table / "images")
    (table / "labels.csv").write_text("file,class_index\n0.png,16\n")
    assert "has class 16" in error_of(capfd, *EXPORT, *QUICK, "--data", table, "-o", out)
    (tmp_path / "file").write_text("in the way")
    assert "is not a writable directory" in error_of(capfd, *EXPORT, "-o", tmp_path / "file" / "out")


def test_few_noisy_images_are_a_warning_and_a_finding(tmp_path, capfd):
    noise = folder_of(tmp_path / "noise", 5)
    words = [*EXPORT[:6], "--calibration", str(noise), "-o", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    captured = capfd.readouterr()
    assert "warning: only 5 calibration images" in captured.err
    assert "look like noise" in captured.err
    assert len(json.loads(captured.out)["entries"][0]["findings"]) == 2


def test_skipped_images_are_counted(tmp_path, capfd):
    folder = folder_of(tmp_path / "data" / "stop", 4)
    (folder / "2.png").write_bytes(b"")
    words = [*EXPORT, *QUICK, "-o", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
    words += ["--skip-bad-images", "--json"]
    assert main([*words, "--allow-loss"]) == 0  # the images are noise, on which classes change
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    assert entry["accuracy"]["n"] == 3
    assert "1 unreadable images were left out" in [finding["text"] for finding in entry["findings"]]


def test_an_artifact_that_is_not_what_its_manifest_says(exported, tmp_path, capfd):
    for name in (f"{DEMO}.tflite", f"{DEMO}.tflite.json", f"{DEMO}.edgecnn"):
        (tmp_path / name).write_bytes((exported[0] / name).read_bytes())
    path = tmp_path / f"{DEMO}.tflite"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "sha256 differs" in error_of(capfd, "validate", path, "--data", "demo")
    (tmp_path / f"{DEMO}.tflite.json").unlink()
    path.write_bytes(data[:1000])
    assert "TFLite file" in error_of(capfd, "validate", path, "--data", "demo")
    path.write_bytes(b"")
    assert "TFLite file" in error_of(capfd, "validate", path, "--data", "demo")


def test_a_missing_library_is_status_3_and_the_command_that_installs_it(tmp_path):
    code = (
        "import sys; sys.modules['ai_edge_litert'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n.startswith('ai_edge_litert') else find(n, *a)\n"
        "from edgecnn.cli import main\n"
        f"sys.exit(main({[*EXPORT, '-o', str(tmp_path)]!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'edgecnn[tflite]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.3])
def test_a_killed_export_leaves_no_half_artifact(exported, tmp_path, delay):
    """SIGKILL while files are being replaced, again and again, at moments that differ."""
    source = exported[0] / f"{DEMO}.edgecnn"
    code = (
        "import sys\nfrom edgecnn.cli import main\n"
        f"print('ready', flush=True)\n"
        f"while True: main(['export', {str(source)!r}, '--target', 'tflite', '-o', {str(tmp_path)!r}])"
    )
    want = (exported[0] / f"{DEMO}.tflite").read_bytes()
    for attempt in range(2):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout.readline() == b"ready\n"
        time.sleep(0.6 + delay + 0.037 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        visible = [p for p in tmp_path.iterdir() if not p.name.startswith(".")]
        for path in visible:
            if path.suffix == ".tflite":
                assert path.read_bytes() == want
                read_manifest(path, "tflite")
            elif path.suffix == ".json":
                json.loads(path.read_text())
            else:
                assert load(path).precision == "int8"


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/x"),
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
    ],
)
def test_a_full_disk_is_one_line(fault, monkeypatch, capfd):
    from edgecnn.cli import devices

    def full(options):
        raise fault

    monkeypatch.setattr(devices, "run", full)
    assert main(["devices"]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"edgecnn: error: {fault.strerror}")
    assert said.endswith("make room, or set TMPDIR to a folder that has some\n")
    assert said.count("\n") == 1
