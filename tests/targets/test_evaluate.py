"""The driver: real images in, figures out, whatever the artifact's layout and types."""

from __future__ import annotations

import time

import numpy as np
import pytest
from golden_files import golden

from edgecnn.artifact import Port
from edgecnn.errors import InputError
from edgecnn_targets.accuracy_meter import AccuracyMeter
from edgecnn_targets.evaluate import fixed_input, latency, logits, timing
from edgecnn_targets.interface import Description, Session
from edgecnn_targets.runtimes.litert import LiteRtSession

SQNR = golden("sqnr")["session"]
OUTPUT = Port(name="y", shape=(1, 3), layout="NC", dtype="float32")
PORTS = {
    "float NHWC": Port(name="x", shape=(1, 2, 4, 3), layout="NHWC", dtype="float32"),
    "float NCHW": Port(name="x", shape=(1, 3, 2, 4), layout="NCHW", dtype="float32"),
    "int8 NHWC": Port(name="x", shape=(1, 2, 4, 3), layout="NHWC", dtype="int8", scale=1 / 32, zero_point=0),
    "uint8 NCHW": Port(name="x", shape=(1, 3, 2, 4), layout="NCHW", dtype="uint8", scale=1 / 32, zero_point=128),
    "int16 NHWC": Port(name="x", shape=(1, 2, 4, 3), layout="NHWC", dtype="int16", scale=1 / 8192, zero_point=0),
}


class ChannelMeans(Session):
    """A network whose logits are the channels' means."""

    def __init__(self, source, result=OUTPUT):
        super().__init__(Description(inputs=(source,), outputs=(result,), ops=()))
        self.fed = 0

    def execute(self, batch):
        (fed,) = batch.values()
        self.fed += len(fed)
        means = self.input.decode(fed).mean(axis=(1, 2))
        if self.output.scale is not None:
            means = np.rint(means / self.output.scale + self.output.zero_point).astype(self.output.dtype)
        return {self.output.name: means}


def pictures(n):
    rng = np.random.default_rng(0)
    inputs = np.clip(rng.normal(0, 1, (n, 2, 4, 3)), -3, 3).astype(np.float32)
    means = inputs.mean(axis=(1, 2))
    return inputs, means.argmax(axis=1), means


def evaluate(session, batches):
    meter = AccuracyMeter()
    for inputs, labels, reference in batches:
        meter.update(logits(session, inputs), labels, reference)
    return meter.result()


@pytest.mark.parametrize("name", PORTS)
def test_every_layout_and_type_gives_the_same_figures(name):
    inputs, labels, reference = pictures(24)
    batches = [(inputs[i : i + 5], labels[i : i + 5], reference[i : i + 5]) for i in range(0, 24, 5)]
    found = evaluate(ChannelMeans(PORTS[name]), iter(batches))
    assert found.n == 24
    assert found.fp32_top1 == 100
    assert found.agreement >= 95
    assert found.sqnr_db >= SQNR[name]


def test_times_are_the_median_and_what_nine_of_ten_do_not_exceed():
    found = timing([k * 1_000_000 for k in reversed(range(1, 102))], threads=3)
    assert (found.median_ms, found.p90_ms) == (51, 91)
    assert (found.runs, found.threads) == (101, 3)


def test_integer_outputs_are_decoded():
    output = Port(name="y", shape=(1, 3), layout="NC", dtype="int8", scale=0.02, zero_point=-5)
    inputs, _, means = pictures(4)
    got = logits(ChannelMeans(PORTS["float NHWC"], output), inputs)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, means, atol=0.0101)


def test_images_of_another_size_say_what_the_artifact_takes():
    with pytest.raises(InputError, match=r"takes images of \(2, 4, 3\) \(NHWC\), the preprocessing makes \(4, 2, 3\)"):
        logits(ChannelMeans(PORTS["float NCHW"]), np.zeros((1, 4, 2, 3), np.float32))


def test_batches_are_consumed_one_at_a_time():
    session, held = ChannelMeans(PORTS["float NHWC"]), []

    def stream():
        inputs, labels, reference = pictures(8)
        for i in range(8):
            held.append(session.fed)
            yield inputs[i : i + 1], labels[i : i + 1], reference[i : i + 1]

    evaluate(session, stream())
    assert held == list(range(8))


@pytest.mark.parametrize("port", PORTS.values(), ids=PORTS)
def test_latency_times_the_runs_after_the_warm_up(port):
    session = ChannelMeans(port)
    found = latency(session, runs=50, warmup=3)
    assert session.fed == 53
    assert (found.threads, found.runs, found.instructions) == (1, 50, None)
    assert 0 < found.median_ms <= found.p90_ms
    assert np.array_equal(fixed_input(session)["x"], fixed_input(session)["x"])


def test_the_warm_up_is_not_counted():
    class ColdStart(ChannelMeans):
        def execute(self, batch):
            if self.fed < 30:
                time.sleep(0.01)
            return super().execute(batch)

    assert latency(ColdStart(PORTS["float NHWC"]), runs=50, warmup=30).p90_ms < 10


@pytest.mark.parametrize(("runs", "warmup"), [(49, 5), (50, 0)])
def test_latency_over_too_few_runs_is_refused(runs, warmup):
    with pytest.raises(InputError, match="at least 50 after at least 1"):
        latency(ChannelMeans(PORTS["float NHWC"]), runs=runs, warmup=warmup)


@pytest.mark.parametrize("integer", [True, False], ids=["int8", "fp32"])
def test_a_real_artifact_agrees_with_itself_in_float(tflite, integer):
    inputs = np.random.default_rng(2).normal(0, 1, (40, 2, 2, 3)).astype(np.float32)
    reference = logits(LiteRtSession(tflite("reshape", "linear", integer=False)), inputs)
    session = LiteRtSession(tflite("reshape", "linear", integer=integer))
    found = evaluate(session, [(inputs, reference.argmax(axis=1), reference)])
    assert found.fp32_top1 == 100
    assert found.agreement == found.top1 == 100 - found.drop
    assert found.sqnr_db >= SQNR["linear_int8" if integer else "linear_fp32"]
    assert latency(session).median_ms > 0
