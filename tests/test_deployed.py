"""The table of deployed files counts an output as below only where it is, and says what failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgecnn

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def deployed(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import deployed

    return deployed


def figures(sqnr_db):
    return {"boxes": {"sqnr_db": sqnr_db, "error": 0.5, "signal": 10.0}}


def row(ours, per_channel, defaults):
    rest = {"status": 0, "lsb": {"tflite": 0, "onnx": 0, "openvino": 1}, "float_ops": 0, "findings": ["is slow"]}
    peers = {"onnxruntime U8S8": figures(per_channel), "onnxruntime defaults": figures(defaults)}
    return {"network": "net", "edgecnn": figures(ours), **peers, **rest}


def test_the_table_holds_an_output_beside_the_better_of_two_peers(deployed):
    text = deployed.table([row(20.0, 18.0, 19.0)])
    assert "| net | boxes | 20.0 dB, 0.5 | 19.0 dB, 0.5 (defaults) | 10 |" in text
    assert "1 of 1 outputs not below onnxruntime; below: none" in text
    assert "| net | 0 | 0, 0, 1 | 0 | - |" in text
    assert text.endswith("net: is slow")


def test_the_table_names_outputs_that_are_below(deployed):
    assert "below: net boxes" in deployed.table([row(18.9, 18.0, 19.0)])
    assert "below: none" in deployed.table([row(18.96, 18.0, 19.0)])


def test_the_table_has_latency_and_what_failed(deployed):
    timed = {"ms": {"import": 1.0, "file": 2.0}, "ratio": {"median": 0.5, "quartiles": [0.4, 0.6]}}
    timed |= {"ops": {"import": 7, "file": 9}, "load": 0.1}
    text = deployed.table([row(20.0, 18.0, 19.0) | timed, {"network": "other", "error": "no such op"}])
    assert "| 1.00 ms, 2.00 ms, 0.500 [0.400, 0.600]; 7, 9; 0.1 |" in text
    assert "| other | failed: no such op | | | |" in text


def test_a_name_that_is_not_there_is_refused(deployed, tmp_path):
    words = ["--out", "o", "--files", str(tmp_path), "--calibration", "c", "--data", "d", "--networks", "lenet"]
    with pytest.raises(SystemExit, match="--networks lenet: none below .*; allowed: face_detection"):
        deployed.deployed(deployed.arguments().parse_args(words))


def test_an_fp32_artifact_is_judged_as_fp32(deployed, tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    fed = edgecnn.Preprocess(mean=(0.0,) * 3, std=(255.0,) * 3)
    network = edgecnn.load(module, input_shape=(3, 8, 8), preprocess=fed)
    path = edgecnn.convert(network, "onnx").save(tmp_path / "net.onnx").path
    pixels = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    (found,) = deployed.judged(network, path, pixels).values()
    assert found["sqnr_db"] > 100
    assert found["error"] < 1e-5 * found["signal"]
