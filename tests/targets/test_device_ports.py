"""Several inputs and outputs on devices that emulate, interpret or compile; where they are set up."""

from __future__ import annotations

import pytest
from ports import NETWORKS, samples

import edgecnn
from edgecnn_targets.devices import device
from edgecnn_targets.registry import missing

QUIET = edgecnn.Progress()
PLACES = {"mcu-tflm": "tflite", "ethos-u55-128": "tflite", "cortex-m4": "c", "wasm": "onnx", "cortex-a53": "onnx"}


@pytest.mark.parametrize("name", ["detector", "audio"])
@pytest.mark.parametrize("place", PLACES)
def test_a_device_takes_all_inputs_and_gives_all_outputs(tmp_path, place, name):
    if (lacks := missing(device(place), PLACES[place])) is not None:
        pytest.skip(f"{place} is not set up: {lacks}")
    network = NETWORKS[name]()
    int8 = edgecnn.quantize(network, samples(network), progress=QUIET)
    artifact = edgecnn.convert(int8, PLACES[place], devices=(place,)).save(tmp_path)
    data = None if place.startswith("ethos") else samples(network, 6, 5)
    report = edgecnn.validate(artifact, data, devices=[place], progress=QUIET)
    (entry,) = report.entries
    if data is not None:
        assert [output.name for output in entry.outputs] == list(network.outputs)
        assert [output.max_lsb for output in entry.outputs] == [0] * len(network.outputs)
        assert entry.beside_host.max_lsb in (0, None)
    assert not [check for check in entry.checks if not check.passed and check.name != "npu_coverage"], report.failures
