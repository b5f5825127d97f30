"""A card says every figure that is known, in one form, and nothing of those that are not; then what to do next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgecnn.report import card
from edgecnn.report.evidence import Disagreement
from edgecnn.report.evidence_blocks import _picture
from edgecnn.report.markup import tag
from edgecnn.report.record import (
    SQNR_CEILING_DB,
    Accuracy,
    BesideHost,
    Check,
    Finding,
    Latency,
    OutputFigures,
    Parity,
    ReportEntry,
    Resources,
)

BARE = ReportEntry(model="net", target="tflite", device=None, artifact="", size_bytes=0, precision="int8")
FULL = replace(
    BARE,
    device="cortex-a72",
    artifact="out/net.tflite",
    size_bytes=1_234_567,
    accuracy=Accuracy(
        n=1650, fp32_top1=76.3, top1=75.7, drop=0.6, drop_ci95=(-0.9, 2.1), agreement=94.8, sqnr_db=13.25,
        metrics={"cosine": 0.98765, "fp32_cosine": 1.0, "far": 0.25},
    ),
    parity=Parity(max_lsb=1, mean_lsb=0.01, arithmetic="xnnpack"),
    beside_host=BesideHost(n=16, max_lsb=0, agreement=100.0),
    latency=Latency(median_ms=1.5, p90_ms=1.625, threads=2, instructions=12_345_678),
    resources=Resources(
        cycles=2_345_678, sram_kib=1234.5, flash_kib=20.25, heap_kib=3.0, arena_bytes=123_456, npu_coverage=97.5,
        estimated_ms=0.25, instruction_mix={"alu": 9000, "dot": 1000}, cache_misses={"l1d": 1500},
    ),
    outputs=(
        OutputFigures(name="boxes", sqnr_db=31.5, max_lsb=2, mean_lsb=0.125),
        OutputFigures(name="scores", sqnr_db=None, max_lsb=None, mean_lsb=None),
    ),
    float_ops=("SOFTMAX scores",),
    seconds={"capture": 1.0, "validate": 6.254},
)  # fmt: skip


def test_every_figure_has_a_line():
    assert list(card.lines(FULL)) == [
        ("file", "out/net.tflite, 1.23 MB"),
        ("accuracy", "top-1 75.70 %, fp32 76.30 %"),
        ("accuracy", "drop +0.60 points (95 %: -0.90 to +2.10)"),
        ("accuracy", "agreement 94.80 %, SQNR 13.2 dB beside fp32"),
        ("accuracy", "on 1,650 images"),
        ("metrics", "cosine 0.9877, fp32 1"),
        ("metrics", "far 0.25"),
        ("oracle", "1 LSB away, rounding of xnnpack"),
        ("host", "0 LSB away, agreement 100.00 %, on 16 images"),
        ("latency", "1.50 ms, p90 1.62 ms, 2 threads"),
        ("count", "12.3 M instructions, 2.35 M cycles, 0.25 ms estimated"),
        ("memory", "SRAM 1,234.5 KiB, flash 20.2 KiB, heap 3.0 KiB, arena 123,456 B"),
        ("NPU", "97.5 % of the ops"),
    ]
    assert list(card.more(FULL)) == [
        ("output", "boxes: SQNR 31.50 dB, 2 LSB at most, 0.125 in the mean"),
        ("output", "scores: "),
        ("mix", "alu 9,000"),
        ("mix", "dot 1,000"),
        ("misses", "l1d 1,500"),
        ("float op", "SOFTMAX scores"),
        ("seconds", "capture 1.00"),
        ("seconds", "validate 6.25"),
    ]


def test_what_is_not_known_has_none():
    assert list(card.lines(BARE)) == list(card.more(BARE)) == []
    one = replace(BARE, latency=Latency(median_ms=2.0, threads=1), beside_host=BesideHost(n=2))
    assert list(card.lines(one)) == [("host", "on 2 images"), ("latency", "2.00 ms, 1 thread")]
    assert list(card.lines(replace(BARE, latency=Latency(median_ms=2.0)))) == [("latency", "2.00 ms")]
    equal = replace(BARE, accuracy=Accuracy(n=3, top1=50.0, drop=0.0, sqnr_db=SQNR_CEILING_DB))
    assert [text for _, text in card.lines(equal)] == [
        "top-1 50.00 %", "drop +0.00 points", "outputs equal beside fp32", "on 3 images"
    ]  # fmt: skip


def test_checks_say_their_figure_their_limit_and_whether_it_holds():
    checks = (
        Check.at_most("drop", 0.62345, 1.0, "points"),
        Check.at_least("agreement", 94.8, 97.0, "%"),
        Check.at_most("latency", None, 20.0, "ms"),
        Check.at_most("own", 1.0, 2.0, ""),
    )
    entry = replace(FULL, checks=checks)
    assert list(card.checks(entry)) == [
        ("drop", "0.6234 points", "<= 1", "passed"),
        ("agreement", "94.8 %", ">= 97", "FAILED"),
        ("latency", "not measured", "<= 20", "FAILED"),
        ("own", "1", "<= 2", "passed"),
    ]
    assert [card.verdict(e) for e in (entry, replace(FULL, checks=checks[:1]), FULL)] == [
        "2 failed", "passed", "not checked"
    ]  # fmt: skip
    assert (card.title(entry), card.title(BARE)) == ("net  tflite int8  cortex-a72", "net  tflite int8")


LOST = Finding(code="quantization_loss", text="far from fp32", severity="error")
PASSED = Check.at_most("drop", 0.5, 1, "points")


@pytest.mark.parametrize(
    ("changes", "command", "says"),
    [
        ({"artifact": ""}, "export", ""),
        ({"findings": (LOST,)}, "export", "edgecnn export net --target tflite --recipe best ..."),
        ({"checks": (Check.at_most("latency", 9.0, 1, "ms"),)}, "export", ""),
        ({"checks": (Check.at_most("drop", 9.0, 1, "points"),)}, "export",
         "edgecnn export net --target tflite --recipe best ..."),
        ({"checks": (Check.at_most("drop", 9.0, 1, "points"),), "precision": "fp32"}, "export", ""),
        ({"accuracy": Accuracy()}, "export", "edgecnn validate out/net.tflite --data DIR --max-drop 1"),
        ({}, "export", "edgecnn validate out/net.tflite --data DIR --max-drop 1"),
        ({"accuracy": Accuracy(n=3, sqnr_db=9.0)}, "export",
         "edgecnn validate out/net.tflite --data DIR --min-sqnr 20"),
        ({"checks": (PASSED,), "device": "host"}, "export",
         "edgecnn validate out/net.tflite --data DIR --device cortex-a72"),
        ({"checks": (PASSED,), "device": "host", "target": "c"}, "export",
         "edgecnn validate out/net.tflite --data DIR --device cortex-m7"),
        ({"checks": (PASSED,), "device": "host", "target": "openvino"}, "export", ""),
        ({"checks": (PASSED,), "device": "host"}, "validate", ""),
        ({"checks": (PASSED,)}, "export", ""),
    ],
)  # fmt: skip
def test_the_next_command_is_the_one_that_makes_sense(changes, command, says):
    assert card.following(replace(FULL, **changes), command) == says


def answer(artifact):
    return Disagreement(image="cat.png", fp32="cat", artifact=artifact, label="lynx", margin=1.0, thumbnail=b"\x89PNG")


def test_equal_answers_of_several_artifacts_are_one_line():
    one = _picture({"net tflite": answer("dog"), "net onnx": answer("dog")})
    assert one.rows == (("label", "lynx"), ("fp32", "cat"), ("tflite", "dog"))
    two = _picture({"net tflite": answer("dog"), "net onnx": answer("fox"), "net c": answer("dog")})
    assert two.rows == (("label", "lynx"), ("fp32", "cat"), ("net tflite, net c", "dog"), ("net onnx", "fox"))
    unlabelled = _picture({"net tflite": replace(answer("dog"), label=None)})
    assert unlabelled.rows == (("fp32", "cat"), ("tflite", "dog"))


def test_an_attribute_that_is_absent_or_false_is_not_written():
    made = str(tag("a", class_="b c", hidden=True, aria_label=None, open=False, title='1 < "2"', data_n=0))
    assert made.startswith('<a class="b c" hidden title="1 &lt; &quot;2&quot;" data-n="0"')
