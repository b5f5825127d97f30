"""Golden figures: the demo, and real weights on real images where those are at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden_files import golden
from PIL import Image

from edgecnn.cli import main
from edgecnn.data import demo, open_images
from edgecnn.graph.oracle import run
from edgecnn.graph.serialize import load
from edgecnn_converters.tflite.reader import read
from edgecnn_targets.runtimes.litert import LiteRtSession

GOLDEN = golden("accuracy")
SHARED = Path(__file__).parents[2] / "shared" / "data"
REAL = {"mobilenet_v2": "mobilenet_v2_1.0_224_google", "mobilenet_v1_0.75_224": "mobilenet_v1_0.75_224"}
IMAGES = 100  # on which oracle and LiteRT are compared bit for bit
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data (real weights and images) is not there")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo_of_all(tmp_path_factory):
    """The demo in every format, checked on all images: path without suffix, accuracy in TFLite."""
    folder = tmp_path_factory.mktemp("demo")
    words = ["export", "mobilenet_v2_0.35_96", "--target", "all", "--weights", "demo", "--calibration", "demo"]
    assert main([*words, "--data", "demo", "--exact-kernels", "-o", str(folder)]) == 0
    entries = json.loads((folder / "report.json").read_text())["entries"]
    return folder / "mobilenet_v2_0.35_96", entries[0]["accuracy"]


def test_the_demo_is_trained_and_survives_int8(demo_of_all):
    (_, accuracy), golden = demo_of_all, GOLDEN["demo"]
    assert accuracy["n"] == 2000
    assert accuracy["fp32_top1"] == pytest.approx(golden["fp32_top1"], abs=golden["fp32_tolerance"])
    assert 90 <= accuracy["fp32_top1"] <= 97
    assert accuracy["drop"] <= golden["max_drop"]
    assert accuracy["agreement"] >= golden["min_agreement"]
    assert accuracy["sqnr_db"] >= golden["min_sqnr_db"]


def test_16_bit_activations_leave_only_the_rounding_of_the_weights(tmp_path):
    words = ["export", "mobilenet_v2_0.35_96", "--target", "tflite", "--quantize", "int16x8", "--weights", "demo"]
    words += ["--calibration", "demo", "--calibration-images", "60", "--data", "demo", "--limit", "100"]
    assert main([*words, "-o", str(tmp_path)]) == 0
    (entry,) = json.loads((tmp_path / "report.json").read_text())["entries"]
    golden = GOLDEN["demo"]["int16x8"]
    assert entry["accuracy"]["agreement"] >= golden["min_agreement"]
    assert entry["accuracy"]["sqnr_db"] >= golden["min_sqnr_db"]
    assert entry["parity"]["max_lsb"] <= golden["max_lsb"]
    assert entry["float_ops"] == []


def test_the_runtimes_and_the_reference_answer_alike(demo_of_all, capsys):
    (stem, _), golden = demo_of_all, GOLDEN["demo"]["alike"]
    capsys.readouterr()
    for other, extra in ((".onnx", ()), (".xml", ()), (".edgecnn", ("--arithmetic", "litert"))):
        words = ["compare", f"{stem}.tflite", f"{stem}{other}", "--data", "demo", "--limit", "200", "--exact-kernels"]
        assert main([*words, *extra, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["same_integers"]
        assert found["max_lsb"] <= golden["max_lsb" if extra else "max_lsb_of_runtimes"], other
        assert found["agreement"] >= golden["min_agreement"], other


def test_the_demo_is_hard_enough_to_show_a_bad_quantizer(tmp_path):
    dim = tmp_path / "dim"
    dim.mkdir()
    for i, pixels in enumerate(demo.images("calibration", range(40))[0]):
        Image.fromarray(pixels // 3 + 80).save(dim / f"{i}.png")
    words = ["export", "mobilenet_v2_0.35_96", "--target", "tflite", "--weights", "demo", "--data", "demo"]
    assert main([*words, "--limit", "400", "--calibration", str(dim), "-o", str(tmp_path)]) == 0
    (entry,) = json.loads((tmp_path / "report.json").read_text())["entries"]
    assert entry["accuracy"]["agreement"] <= GOLDEN["demo"]["dim"]["max_agreement"]


@pytest.fixture(scope="module", params=REAL)
def real(request, tmp_path_factory):
    """(golden figures, report entry, path of the artifact without its suffix)."""
    folder = tmp_path_factory.mktemp("real")
    weights = SHARED / REAL[request.param] / "model.safetensors"
    words = ["export", request.param, "--target", "tflite", "--weights", str(weights)]
    words += ["--calibration", str(SHARED / "imagenet_sample500"), "--data", str(SHARED / "imagenet_val650")]
    assert main([*words, "-o", str(folder)]) == 0
    (entry,) = json.loads((folder / "report.json").read_text())["entries"]
    return GOLDEN[request.param], entry, folder / request.param


@needs_shared
def test_real_weights_score_what_the_manifest_says(real):
    golden, entry, _ = real
    one_image = 100 / 650
    assert entry["accuracy"]["n"] == 650
    assert entry["accuracy"]["fp32_top1"] == pytest.approx(golden["fp32_top1"], abs=one_image + 0.01)
    assert entry["accuracy"]["fp32_top5"] == pytest.approx(golden["fp32_top5"], abs=one_image + 0.01)


@needs_shared
def test_int8_is_at_least_as_near_to_fp32_as_the_best_peer(real):
    golden, entry, _ = real
    assert entry["accuracy"]["agreement"] >= golden["min_agreement"]
    assert entry["accuracy"]["sqnr_db"] >= golden["min_sqnr_db"]


@needs_shared
def test_the_oracle_is_litert_bit_for_bit_and_xnnpack_is_near(real):
    golden, _, stem = real
    graph, artifact = load(Path(f"{stem}.edgecnn")), Path(f"{stem}.tflite")
    assert len(read(artifact.read_bytes()).ops) <= golden["max_ops"]
    images = open_images(str(SHARED / "imagenet_val650"), demo_split="test", labelled=False, limit=IMAGES)
    exact, fast = LiteRtSession(artifact, kernels="reference"), LiteRtSession(artifact)
    assert fast.findings == ()
    grid = graph.tensors[graph.inputs[0]].quant
    worst = 0
    for pixels, _ in images.batches(graph.metadata.preprocess, 4):
        x = grid.quantize(graph.metadata.preprocess.normalise(pixels))
        want = run(graph, x)[graph.outputs[0]]
        np.testing.assert_array_equal(exact.run(x), want)
        worst = max(worst, int(np.abs(fast.run(x).astype(int) - want).max()))
    assert worst <= golden["max_lsb_xnnpack"]
