"""Several inputs and outputs, any channels, vectors and sound: in every format on this machine, and side by side."""

from __future__ import annotations

import json

import numpy as np
import pytest
from golden_files import golden
from ports import NETWORKS, samples
from runtimes import WRITERS, assert_integers_are_the_graphs

import edgecnn
from edgecnn.artifact import read_manifest
from edgecnn.errors import InputError

SQNR = golden("sqnr")
QUIET = edgecnn.Progress()
FORMATS = sorted(WRITERS)
ALL = [*FORMATS, "c"]


@pytest.fixture(scope="module")
def quantized():
    made = {}

    def of(name):
        if name not in made:
            network = NETWORKS[name]()
            made[name] = network, edgecnn.quantize(network, samples(network, 64), progress=QUIET)
        return made[name]

    return of


@pytest.mark.parametrize("target", ALL)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_output_is_the_oracles_in_every_format(quantized, tmp_path, name, target):
    network, int8 = quantized(name)
    artifact = edgecnn.convert(int8, target).save(tmp_path)
    assert_integers_are_the_graphs(int8.graph, target, artifact.converted)
    assert [port.name for port in artifact.converted.inputs] == list(network.graph.inputs)
    manifest = read_manifest(artifact.path, target)
    assert (manifest.inputs, manifest.outputs) == (artifact.converted.inputs, artifact.converted.outputs)
    report = edgecnn.validate(artifact, samples(network, 20, 5), exact_kernels=True, progress=QUIET)
    (entry,) = report.entries
    assert report.passed, report.failures
    assert [output.name for output in entry.outputs] == list(network.outputs)
    for output in entry.outputs:
        assert output.max_lsb == 0
        assert output.sqnr_db >= SQNR["ports"][name]
    assert entry.accuracy.sqnr_db == min(output.sqnr_db for output in entry.outputs)
    assert entry.parity.max_lsb == 0
    assert (entry.accuracy.agreement is None) == (network.classes is None)
    assert entry.task == "custom"
    assert json.loads(json.dumps(report.to_dict()))["entries"][0]["outputs"][0]["max_lsb"] == 0


@pytest.mark.parametrize("io", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_all_inputs_and_outputs_have_the_type_that_is_asked_for(quantized, tmp_path, target, io):
    network, int8 = quantized("on_the_way")
    artifact = edgecnn.convert(int8, target, io=io).save(tmp_path)
    ports = (*artifact.converted.inputs, *artifact.converted.outputs)
    assert {port.dtype for port in ports} == {io}
    scales = {port.name: port.scale for port in ports}
    if io != "float32":
        assert scales == {n: pytest.approx(float(int8.graph.quant(n).scale[0])) for n in scales}
    report = edgecnn.validate(artifact, samples(network, 20, 5), exact_kernels=True, progress=QUIET)
    assert [output.max_lsb for output in report.entries[0].outputs] == [0, 0, 0, 0]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8"])
@pytest.mark.parametrize("target", FORMATS)
def test_other_precisions_take_and_give_the_same(tmp_path, target, precision):
    network = NETWORKS["detector"]()
    made = edgecnn.quantize(network, precision="w8", progress=QUIET) if precision == "w8" else network
    artifact = edgecnn.convert(made, target, precision=precision).save(tmp_path)
    report = edgecnn.validate(artifact, samples(network, 20, 5), progress=QUIET)
    assert report.entries[0].accuracy.sqnr_db >= SQNR["precisions"][precision]


def test_two_artifacts_are_compared_output_by_output(quantized, tmp_path):
    network, int8 = quantized("detector")
    a, b = (edgecnn.convert(int8, target).save(tmp_path) for target in ("tflite", "onnx"))
    found = edgecnn.compare(a, b, samples(network, 20, 5), exact_kernels=True, by_layer=True, progress=QUIET)
    assert found.same_integers
    assert found.agreement is None
    assert [(output.name, output.max_lsb) for output in found.outputs] == [(name, 0) for name in network.outputs]
    assert max(layer.max_lsb for layer in found.layers) == 0
    beside = edgecnn.compare(int8, b, samples(network, 20, 5), exact_kernels=True, progress=QUIET)
    assert (beside.max_lsb, beside.mean_lsb) == (0, 0)


def test_a_file_is_validated_beside_its_network(quantized, tmp_path):
    network, int8 = quantized("vector")
    artifact = edgecnn.convert(int8, "onnx").save(tmp_path)
    report = edgecnn.validate(artifact.path, samples(network)["x"], exact_kernels=True, progress=QUIET)
    assert report.entries[0].parity.max_lsb == 0


def test_labels_make_a_classifier_a_task_of_classes(quantized, tmp_path):
    network, int8 = quantized("grey")
    artifact = edgecnn.convert(int8, "tflite").save(tmp_path)
    pixels = samples(network)["image"]
    labels = np.arange(len(pixels)) % 5
    (entry,) = edgecnn.validate(artifact, pixels, labels=labels, progress=QUIET).entries
    assert entry.task == "classification"
    assert entry.accuracy.top1 is not None


def test_a_limit_on_classes_of_a_network_without_is_one_line(quantized, tmp_path):
    network, int8 = quantized("four_channels")
    artifact = edgecnn.convert(int8, "tflite").save(tmp_path)
    pixels = samples(network)["image"]
    labels = np.zeros(len(pixels), np.int64)
    with pytest.raises(InputError, match="--min-sqnr or --max-lsb"):
        edgecnn.validate(artifact, pixels, labels=labels, limits=edgecnn.Limits(max_drop=1), progress=QUIET)


@pytest.mark.parametrize("name", ["detector", "on_the_way", "audio"])
@pytest.mark.parametrize("target", FORMATS)
def test_a_file_for_several_samples_at_a_time_gives_the_same(quantized, tmp_path, name, target):
    network, int8 = quantized(name)
    artifact = edgecnn.convert(int8, target, batch=3).save(tmp_path)
    assert {port.shape[0] for port in (*artifact.converted.inputs, *artifact.converted.outputs)} == {3}
    data = samples(network, 20, 5)
    report = edgecnn.validate(artifact, data, exact_kernels=True, progress=QUIET)
    assert report.passed, report.failures
    assert [output.max_lsb for output in report.entries[0].outputs] == [0] * len(network.outputs)
    beside = edgecnn.compare(edgecnn.convert(int8, target), artifact, data, exact_kernels=True, progress=QUIET)
    assert (beside.n, beside.max_lsb, beside.same_integers) == (20, 0, True)


def test_c_takes_one_sample(quantized):
    with pytest.raises(edgecnn.EdgecnnError, match="call it 3 times"):
        edgecnn.convert(quantized("grey")[1], "c", batch=3)
    with pytest.raises(InputError, match="at least 1"):
        edgecnn.convert(quantized("grey")[1], "tflite", batch=0)
