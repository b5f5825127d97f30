"""Without a limit a disaster fails, and an fp32 that is wrong itself is said with what would mend it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import DEMO, EXPORT, run
from int8_builder import Int8Builder
from torch import nn

import edgecnn
from edgecnn.cli import main
from edgecnn.data import demo
from edgecnn.evaluation.verdict import (
    MIN_AGREEMENT,
    MIN_SQNR_DB,
    PROBABILITY_POWER,
    interval,
    quantization_loss,
    signal_floors,
)
from edgecnn.graph.ir import Metadata
from edgecnn.loading import RANDOM
from edgecnn.report.record import Accuracy
from edgecnn_targets.accuracy_meter import OutputMeter

COLOURS = np.broadcast_to(np.random.default_rng(0).integers(0, 256, (60, 1, 1, 3), np.uint8), (60, 96, 96, 3))
PIXELS, LABELS = demo.images("test", range(60))
CHECK = ["--data", "demo", "--limit", "60"]


def colours(folder):
    """Return one-colour images as a user names them."""
    np.savez(folder / "colours.npz", x_train=COLOURS)
    return f"{folder / 'colours.npz'}:train"


def entry_of(capfd):
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    return entry


def found(entry, code):
    """Return severity and text of the finding of that code."""
    (finding,) = [f for f in entry["findings"] if f["code"] == code]
    return finding["severity"], finding["text"]


@pytest.fixture(scope="module")
def ruined(tmp_path_factory):
    """The demo network, calibrated on images of one colour and exported by the command: (folder, what it printed)."""
    folder = tmp_path_factory.mktemp("ruined")
    done = run(*EXPORT[:-1], colours(folder), *CHECK, "-o", folder)
    return folder, done


def test_a_disaster_exits_with_1_without_a_limit(ruined):
    folder, done = ruined
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  error")]
    assert "int8 is far from fp32 on 60 images (SQNR " in line
    for part in ("calibrate on 100 or more images", "--recipe best", "--quantize int16x8", "--allow-loss"):
        assert part in line
    assert "1 failed" in done.stdout
    assert (folder / f"{DEMO}.tflite").exists()
    (entry,) = json.loads((folder / "report.json").read_text())["entries"]
    assert found(entry, "quantization_loss")[0] == "error"
    assert entry["accuracy"]["sqnr_db"] < MIN_SQNR_DB
    severity, text = found(entry, "calibration")
    assert severity == "warning"
    assert "60 of 60 calibration images are of one colour" in text


@pytest.mark.parametrize(("words", "status"), [([], 1), (["--allow-loss"], 0)])
def test_an_artifact_that_is_a_disaster_fails_validate_unless_it_is_accepted(ruined, words, status, capfd):
    path = str(ruined[0] / f"{DEMO}.tflite")
    assert main(["validate", path, *CHECK, "--json", *words]) == status
    severity, text = found(entry_of(capfd), "quantization_loss")
    assert severity == ("warning" if words else "error")
    assert ("accepted" in text) == bool(words)


@pytest.mark.parametrize(("words", "status"), [([], 1), (["--allow-loss"], 0)])
def test_benchmark_counts_a_disaster_as_a_failed_cell(ruined, words, status, tmp_path, capfd):
    given = [str(ruined[0] / f"{DEMO}.edgecnn"), "--targets", "tflite", "--precisions", "int8", *CHECK, "--json"]
    assert main(["benchmark", *given, "-o", str(tmp_path), *words]) == status
    (cell,) = json.loads(capfd.readouterr().out)["entries"]
    assert cell["status"] == ("ok" if words else "failed")
    assert ("is far from fp32" in cell["error"]) == (not words)


def test_a_report_names_a_disaster(ruined):
    path = ruined[0] / f"{DEMO}.tflite"
    report = edgecnn.validate(path, PIXELS)  # no labels: class names say that outputs are classes
    assert not report.passed
    (failure,) = report.failures
    assert f"{path} on host: int8 is far from fp32" in failure
    assert "1 failed" in repr(report)
    assert "<b>failed</b>" in report._repr_html_()
    accepted = edgecnn.validate(path, PIXELS, allow_loss=True)
    assert accepted.passed
    assert "accepted" in repr(accepted)


def test_random_weights_are_no_failure(tmp_path):
    given = {"weights": "random", "classes": 16, "calibration": COLOURS // 16, "data": "demo", "limit": 60}
    report = edgecnn.export(DEMO, **given, limits=edgecnn.Limits(max_drop=100), output=tmp_path)
    entry = report.to_dict()["entries"][0]
    assert report.passed
    for code in ("quantization_loss", "fp32_wrong"):
        severity, text = found(entry, code)
        assert severity == "warning"
        assert "weights are random" in text
    assert edgecnn.validate(tmp_path / f"{DEMO}.tflite", "demo", limit=60).passed, "the artifact says so too"


def loss(agreement, n, sqnr=30.0, *, metadata=None, precision="int8", top1=None, allow_loss=False, **limits):
    accuracy = Accuracy(n=n, agreement=agreement, sqnr_db=sqnr, top1=top1)
    metadata = metadata or Metadata(labels=("a", "b"))
    given = edgecnn.Limits(**limits)
    return [f.severity for f in quantization_loss(precision, accuracy, metadata, given, allow_loss)]


def test_few_images_do_not_fail_by_chance():
    assert loss(80.0, 10) == []
    assert loss(80.0, 100) == ["error"]
    assert loss(89.0, 100) == []
    assert loss(89.0, 10_000) == ["error"]
    assert loss(MIN_AGREEMENT, 10**6) == []
    assert loss(100.0, 10, MIN_SQNR_DB - 0.1) == ["error"]
    assert loss(100.0, 10, MIN_SQNR_DB) == []
    assert loss(50.0, 100, allow_loss=True) == ["warning"]
    assert loss(50.0, 100, 0.0, metadata=Metadata(labels=("a", "b"), weights_sha256=RANDOM)) == ["warning"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8"])
def test_only_integer_artifacts_are_judged(precision):
    assert loss(10.0, 100, 1.0, precision=precision) == []


def test_agreement_decides_where_outputs_are_classes():
    unknown = Metadata(model="own")
    assert loss(50.0, 100, metadata=unknown) == ["warning"], "it may be an embedding"
    assert loss(50.0, 100, metadata=unknown, top1=40.0) == ["error"]
    assert loss(50.0, 100, metadata=Metadata(model="mobilenet_v2_0.5_96")) == ["error"]
    assert loss(None, 100) == [], "one number, a map and several outputs have no classes"
    assert loss(None, 100, 9.0) == ["error"]


def test_a_limit_of_ones_own_takes_the_place_of_the_threshold():
    assert loss(50.0, 100, 5.0, min_agreement=40, min_sqnr=4) == []
    assert loss(50.0, 100, 5.0, min_agreement=40) == ["error"]
    assert loss(50.0, 100, 15.0, min_sqnr=4) == ["error"]
    assert loss(50.0, 100, 15.0, max_drop=99) == ["error"]


def test_probabilities_near_zero_are_judged_by_what_a_half_would_be():
    b = Int8Builder((1, 2, 2, 4))
    gate = b.op("sigmoid", b.input)
    outputs = (b.op("reshape", gate, shape=(1, 16)), b.op("softmax", b.input), b.op("concat", gate, b.input, axis=3))
    graph = replace(b.graph(outputs[0]), outputs=outputs)
    half = PROBABILITY_POWER
    assert signal_floors(graph) == (half, half / 4, 0.0), "numbers beside probabilities are no probabilities"
    meter, small = OutputMeter(), np.full((3, 16), 0.01, np.float32)
    meter.update({"a": small, "b": small}, None, {"a": 2 * small, "b": 2 * small})
    judged = meter.sqnr_db((half, 0.0))
    assert meter.sqnr_db() == pytest.approx({"a": 6.02, "b": 6.02}, abs=0.01)
    assert judged == pytest.approx({"a": 33.98, "b": 6.02}, abs=0.01)
    (finding,) = quantization_loss("int8", meter.result(), Metadata(), edgecnn.Limits(), False, judged)
    assert "SQNR of output 'b' 6.0 dB, below 10" in finding.text
    assert not list(quantization_loss("int8", meter.result(), Metadata(), edgecnn.Limits(), False, {"a": 33.98}))


def test_the_interval_is_wilsons():
    low, high = interval(81, 263)  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


# --- an fp32 that is wrong itself ---


@pytest.fixture
def validate(exported, tmp_path, capfd):
    """Validate the demo's artifact on images by the command; return its status and entry."""

    def work(*words, x=PIXELS, y=LABELS):
        np.savez(tmp_path / "given.npz", x_test=x, y_test=y)
        path, data = str(exported[0] / f"{DEMO}.tflite"), f"{tmp_path / 'given.npz'}:test"
        status = main(["validate", path, "--data", data, "--json", *words])
        return status, entry_of(capfd)

    return work


def test_a_sound_network_has_no_such_finding(validate):
    status, entry = validate("--max-drop", "10")
    assert status == 0
    assert [f for f in entry["findings"] if f["code"] in ("fp32_wrong", "quantization_loss")] == []


@pytest.mark.parametrize(
    ("words", "status", "severity"),
    [
        ([], 0, "warning"),
        (["--min-agreement", "80"], 0, "warning"),
        (["--max-drop", "10"], 1, "error"),
        (["--max-drop", "10", "--allow-loss"], 0, "warning"),
    ],
)
def test_labels_moved_by_one_are_said_and_a_drop_beside_them_does_not_pass(validate, words, status, severity):
    kept = LABELS < 15
    got, entry = validate(*words, x=PIXELS[kept], y=LABELS[kept] + 1)
    found_severity, text = found(entry, "fp32_wrong")
    assert (got, found_severity) == (status, severity)
    assert "; with --label-offset -1 it would be 9" in text
    assert all(check["passed"] for check in entry["checks"])
    assert ("--max-drop means nothing" in text) == ("--max-drop" in words)
    got, entry = validate("--label-offset", "-1", x=PIXELS[kept], y=LABELS[kept] + 1)
    assert entry["accuracy"]["fp32_top1"] > 90, "the option is what it says"


def test_labels_that_no_offset_fits_must_move(validate):
    _, entry = validate(y=(LABELS + 1) % 16)
    assert "; with labels moved by -1 it would be" in found(entry, "fp32_wrong")[1]


def test_a_wrong_input_range_is_said_with_the_option_that_mends_it(validate):
    _, entry = validate("--preprocess", "mean=0,std=9000")
    _, text = found(entry, "fp32_wrong")
    assert "of 16 classes no more than chance: with --preprocess mean=127.5,std=127.5 it would be 9" in text


def test_nothing_that_mends_it_is_said_too(validate):
    shuffled = np.random.default_rng(1).permutation(LABELS)
    _, entry = validate(y=shuffled)
    assert "no other label offset, channel order or input range mends it" in found(entry, "fp32_wrong")[1]


def test_channels_in_another_order_are_said():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).eval()
    with torch.no_grad():
        net[2].weight.copy_(torch.tensor([[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]))
    fed = edgecnn.Preprocess(mean=127.5, std=127.5)
    network = edgecnn.load(net, input_shape=(3, 8, 8), preprocess=fed)
    labels = np.arange(40) % 2
    pixels = np.random.default_rng(0).integers(60, 120, (40, 8, 8, 3), np.uint8)
    pixels[np.arange(40), :, :, 2 * labels] += 100  # red is class 0, blue is class 1
    artifact = edgecnn.convert(network, "tflite")
    assert edgecnn.validate(artifact, pixels, labels=labels).entries[0].findings == ()
    (finding,) = edgecnn.validate(artifact, pixels[..., ::-1], labels=labels).entries[0].findings
    assert "fp32 is right on 0 % of 40 images" in finding.text
    assert "with blue and red swapped (edgecnn feeds RGB" in finding.text
    assert "it would be 100 % of 40 images" in finding.text


def test_few_images_are_not_called_chance(validate):
    wrong = (LABELS[:3] + 5) % 16
    _, entry = validate(x=PIXELS[:3], y=wrong)
    assert [f for f in entry["findings"] if f["code"] == "fp32_wrong"] == []


@pytest.mark.parametrize(("least", "status"), [("50", 0), ("99.9", 1)])
def test_the_top1_of_a_float_artifact_is_gated_without_a_reference(exported, tmp_path, least, status, capfd):
    source = str(exported[0] / f"{DEMO}.edgecnn")
    words = ["export", source, "--target", "tflite", "--quantize", "none", "-o", str(tmp_path)]
    assert main([*words, *CHECK, "--min-top1", least]) == status
    path = str(tmp_path / f"{DEMO}.tflite")
    capfd.readouterr()
    words = ["--reference", "none", "--min-top1", least, "--json"]
    assert main(["validate", path, "--data", "demo", "--limit", "300", *words]) == status
    (check,) = entry_of(capfd)["checks"]
    assert (check["name"], check["passed"]) == ("top1", status == 0)
