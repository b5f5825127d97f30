"""``--target all``: one format's obstacle does not hide the others' success."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import edgecnn
from edgecnn.cli import main
from edgecnn_converters import registry as converters
from edgecnn_targets import interface
from edgecnn_targets import registry as runtimes

FED = edgecnn.Preprocess(mean=127.5, std=127.5)
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), np.uint8)
ALL = ("tflite", "onnx", "openvino")
ROWS = converters.converters()


@pytest.fixture(scope="module")
def quantized():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    module = nn.Sequential(*layers).eval()
    network = edgecnn.load(module, input_shape=(3, 24, 24), preprocess=FED, name="own")
    return edgecnn.quantize(network, PIXELS)


def cannot_hold(monkeypatch, *targets):
    """Converters that cannot hold the network."""
    rows = dict(ROWS)
    for target in targets:
        rows[target] = replace(rows[target], unsupported=lambda graph, precision: [("logits", "no such op")])
    monkeypatch.setattr(converters, "registry", lambda group, kind: rows)


def are_missing(monkeypatch, *libraries):
    """Libraries that are not installed."""
    find = interface.find_spec
    monkeypatch.setattr(interface, "find_spec", lambda name: None if name in libraries else find(name))


def exported(network, folder, **given):
    return edgecnn.export(network, target="all", data=PIXELS, output=folder, **given)


def assert_others_passed(report, target, said):
    """An entry per format in the formats' order, and only one of them failed, with its reason."""
    assert tuple(entry.target for entry in report.entries) == ALL
    for entry in report.entries:
        if entry.target == target:
            assert [said in failure for failure in entry.failures] == [True]
        else:
            assert entry.failures == ()
            assert entry.parity.max_lsb is not None
    assert not report.passed


def files(folder):
    return {path.name.removeprefix("own.") for path in folder.iterdir()}


def test_a_format_that_cannot_hold_the_network_has_its_line(quantized, tmp_path, monkeypatch):
    cannot_hold(monkeypatch, "openvino")
    report = exported(quantized, tmp_path)
    said = "not written: openvino cannot hold logits: no such op"
    assert_others_passed(report, "openvino", said)
    assert files(tmp_path) == {"tflite", "tflite.json", "onnx", "onnx.json", "edgecnn", "report.json"}
    assert f"openvino: {said}" in str(report)
    (entry,) = (e for e in json.loads((tmp_path / "report.json").read_text())["entries"] if e["target"] == "openvino")
    assert (entry["artifact"], entry["device"], entry["size_bytes"]) == (None, None, 0)
    assert "not_written" in [finding["code"] for finding in entry["findings"]]


def test_the_command_ends_with_1_and_with_2_where_no_format_is_left(quantized, tmp_path, monkeypatch, capfd):
    words = ["export", str(quantized.save(tmp_path)), "--target", "all", "-o", str(tmp_path / "out")]
    cannot_hold(monkeypatch, *ALL)
    assert main(words) == 2
    said = capfd.readouterr().err
    assert all(f"{target} cannot hold logits: no such op" in said for target in ALL)
    assert not list((tmp_path / "out").glob("own.*"))
    cannot_hold(monkeypatch, "onnx")
    assert main(words) == 1
    assert "FAILED  onnx: not written: onnx cannot hold logits: no such op" in capfd.readouterr().out


def test_a_missing_library_leaves_the_others_and_alone_is_status_3(quantized, tmp_path, monkeypatch, capfd):
    are_missing(monkeypatch, "openvino")
    assert_others_passed(exported(quantized, tmp_path), "openvino", "pip install 'edgecnn[openvino]'")
    words = ["export", str(quantized.save(tmp_path)), "-o", str(tmp_path / "out"), "--target"]
    assert main([*words, "openvino"]) == 3
    are_missing(monkeypatch, "openvino", "onnxruntime", "ai_edge_litert")
    assert main([*words, "all"]) == 3
    assert "pip install 'edgecnn[tflite]'" in capfd.readouterr().err


def test_a_format_that_cannot_be_run_has_its_line_and_alone_is_an_error(quantized, tmp_path, monkeypatch):
    def refuses(path, **how):
        raise edgecnn.InputError(f"{path.name} is not an ONNX file that ONNX Runtime can run")

    rows = {**runtimes.runtimes(), "onnx": replace(runtimes.runtime("onnx"), open_session=refuses)}
    real = runtimes.registry
    monkeypatch.setattr(runtimes, "registry", lambda group, kind: rows if group == "runtimes" else real(group, kind))
    assert_others_passed(exported(quantized, tmp_path), "onnx", "cannot be run: own.onnx is not an ONNX file")
    with pytest.raises(edgecnn.InputError, match=r"own\.onnx is not an ONNX file"):
        edgecnn.validate(tmp_path / "own.onnx", PIXELS)
    with pytest.raises(edgecnn.InputError, match=r"own\.onnx is not an ONNX file"):
        edgecnn.export(quantized, target="onnx", data=PIXELS, output=tmp_path)
