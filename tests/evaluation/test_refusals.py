"""What cannot be checked or compared is one line, before anything runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drawn import pixels
from graphs import random_graph
from int8_builder import Int8Builder, float_graph

import edgecnn
from edgecnn.errors import InputError, UnsupportedError
from edgecnn.evaluation import references
from edgecnn.evaluation.check import _require_another
from edgecnn.evaluation.collector import op_costs
from edgecnn.evaluation.limits import Limits
from edgecnn.evaluation.metrics import Metric, MetricMeter
from edgecnn.evaluation.subject import Checking
from edgecnn.graph.serialize import save
from edgecnn.report.record import BesideHost
from edgecnn_targets.devices import device

IMAGES = pixels(4, 6, 6)


def network(outputs=1, size=6, preprocess=None):
    """A quantized graph with as many outputs."""
    b = Int8Builder((1, size, size, 3))
    x = b.op("mean", b.weighted("conv2d", b.input, (4, 1, 1, 3)))
    made = [b.weighted("fully_connected", x, (5, 4)) for _ in range(outputs)]
    graph = b.graph(made[0])
    return replace(graph, outputs=tuple(made), metadata=replace(graph.metadata, preprocess=preprocess))


@pytest.fixture
def file(tmp_path):
    """``file(graph, name)`` is its ``.edgecnn`` file."""

    def write(graph, name):
        save(graph, tmp_path / f"{name}.edgecnn")
        return tmp_path / f"{name}.edgecnn"

    return write


FED = edgecnn.Preprocess(resize=(6, 6))


def test_what_cannot_be_compared(file):
    one, two = file(network(preprocess=FED), "one"), file(network(2, preprocess=FED), "two")
    wide, unsaid = file(network(size=8), "wide"), file(network(), "unsaid")
    exact = file(float_graph(network(preprocess=FED)), "exact")
    for a, b, options, said in (
        (one, two, {}, r"one.edgecnn has outputs \S+, .*two.edgecnn \S+, \S+$"),
        (one, wide, {}, r"takes images of \(6, 6, 3\) and .*wide.edgecnn of \(8, 8, 3\); only equal inputs"),
        (unsaid, unsaid, {}, "neither .*unsaid.edgecnn nor .* says how images are fed; pass --preprocess resize"),
        (exact, exact, {"by_layer": True}, "--layers compares integers: both artifacts must be int8"),
        (one, one, {"arithmetic": "lite"}, "unknown arithmetic 'lite'"),
    ):
        with pytest.raises(InputError, match=said):
            edgecnn.compare(a, b, IMAGES, **options)
    same = edgecnn.compare(unsaid, unsaid, IMAGES, preprocess="resize=6x6")
    assert (same.max_lsb, same.same_integers, same.n) == (0, True, 4)


def test_where_an_artifact_is_checked():
    with pytest.raises(InputError, match="--device cortex-m4 does not run onnx; see `edgecnn devices`"):
        Checking(devices=("cortex-m4",)).places(["onnx"], "int8")
    with pytest.raises(UnsupportedError, match="device 'cortex-m4' does not run fp32 artifacts; it runs: int8"):
        Checking(devices=("cortex-m4",)).places(["c"], "fp32")
    with pytest.raises(InputError, match="--max-sram-kib needs a device that finds out sram_kib; host finds out: "):
        Checking(limits=Limits(max_sram_kib=1)).places(["tflite"], "int8")
    assert [target for target, _ in Checking().places(["tflite", "onnx"], "int8")] == ["tflite", "onnx"]


def test_limits_on_images_need_images():
    with pytest.raises(InputError, match="--max-drop needs labelled images to compare on; pass --data"):
        Checking(limits=Limits(max_drop=1)).need(None)
    with pytest.raises(InputError, match="metric far needs images; pass --data"):
        Checking(metrics=(("far", lambda outputs, references: {}),)).need(None)
    Checking(limits=Limits(max_drop=1)).need("demo")
    Checking(limits=Limits(max_latency_ms=1)).need(None)


def test_of_formats_one_that_cannot_be_run_is_no_error_while_another_can():
    class Run:
        def __init__(self, target, refusal=None):
            self.subject = type("Subject", (), {"target": target})
            self.refusal = refusal

    refused = Run("onnx", InputError("not this one"))
    _require_another([refused, Run("tflite")])
    with pytest.raises(InputError, match="not this one"):
        _require_another([refused, Run("onnx")])  # another device of the same format
    with pytest.raises(InputError, match="not this one"):
        _require_another([refused])


def test_a_metric_that_is_not_per_image_is_named(monkeypatch):
    wrong = Metric(name="far", unit="", measure=lambda outputs, labels, reference: np.zeros(1))
    monkeypatch.setattr("edgecnn.evaluation.metrics.registry", lambda group, kind: {"far": wrong})
    with pytest.raises(InputError, match=r"metric 'far' returned \(1,\); return a number per image, \(3,\)"):
        MetricMeter().update(np.zeros((3, 2), np.float32), None, None)


def test_a_float_network_of_other_weights_is_no_reference(tmp_path):
    def made(seed):
        graph = random_graph(seed, 1, body=("pointwise",))
        return replace(graph, metadata=replace(graph.metadata, weights_sha256=str(seed) * 64))

    from edgecnn.evaluation.validate import _beside_file

    save(made(1), tmp_path / "net.edgecnn")
    for seed, own in ((1, False), (2, True)):
        given = tmp_path / "net.tflite", None, made(seed).metadata, "int8", False, Limits()
        if own:
            with pytest.raises(InputError, match="holds other weights than .*net.tflite; export again, or pass --ref"):
                _beside_file(*given)
        else:
            assert _beside_file(*given).reference is not None
    with pytest.raises(InputError, match="--min-sqnr needs the fp32 reference, but there is no .*none.edgecnn; pass"):
        _beside_file(tmp_path / "none.tflite", None, made(1).metadata, "int8", False, Limits(min_sqnr=10))
    (finding,) = _beside_file(tmp_path / "none.tflite", None, made(1).metadata, "int8", False, Limits()).findings
    assert finding.code == "no_reference"
    assert _beside_file(tmp_path / "net.tflite", "none", made(1).metadata, "int8", False, Limits()).findings == ()


def test_without_the_runtime_here_nothing_is_beside_the_host(tmp_path, monkeypatch):
    assert references.beside_host(tmp_path / "net.x", "nothing", None, None) == BesideHost()
    monkeypatch.setattr(references, "missing", lambda device, target: "pip install it")
    monkeypatch.setattr(references, "device", lambda name: type("Host", (), {"targets": ("tflite",)}))
    assert references.beside_host(tmp_path / "net.tflite", "tflite", None, None) == BesideHost()


def test_a_device_that_does_not_say_what_ops_cost_gives_no_costs(tmp_path):
    assert op_costs(device("mcu-tflm"), "tflite", tmp_path / "net.tflite") == ()
    assert op_costs(device("cortex-m4"), "onnx", tmp_path / "net.onnx") == (), "it runs no such files"
