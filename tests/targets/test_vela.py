"""Ethos-U by Vela: what it computes is reported and kept, what stays on the CPU fails, a broken Vela is said."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from commands import texts
from golden_files import golden

from edgecnn.artifact import read_manifest
from edgecnn.cli import main
from edgecnn.errors import DeviceFault, UnsupportedError
from edgecnn_targets.devices import device, devices
from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.kinds import vela
from edgecnn_targets.registry import kind_of, layers, open_session

GOLDEN = golden("npu")
NPUS = [d.name for d in devices() if d.kind == "vela"]


@pytest.fixture
def network(tflite):
    return tflite("reshape", "linear", integer=True)


def validated(capfd, path, *words):
    status = main(["validate", str(path), "--device", "ethos-u55-128", *words, "--json"])
    return status, json.loads(capfd.readouterr().out)["entries"][0]


def test_an_integer_network_is_the_npus_alone_and_what_was_compiled_is_kept(network, capfd):
    status, entry = validated(capfd, network)
    assert status == 0
    found = entry["resources"]
    assert found["npu_coverage"] == 100
    assert found["estimated_ms"] == pytest.approx(found["cycles"] / 500e3)
    assert min(found["cycles"], found["flash_kib"]) > 0
    assert found["sram_kib"] is not None  # some bytes, which round to 0.0 KiB
    assert all(value is None for value in (entry["accuracy"]["top1"], entry["latency"]["median_ms"]))
    assert "accuracy is not measured there" in texts(entry)[0]
    kept = network.with_name(f"{network.stem}.ethos-u55-128.tflite")
    manifest = read_manifest(kept, "tflite")
    assert manifest.versions["ethos-u-vela"] == "5.2.0"
    assert (manifest.input.zero_point, manifest.output.shape) == (3, (1, 5))
    first = kept.read_bytes()
    validated(capfd, network)
    assert kept.read_bytes() == first


def test_a_float_network_fails_loudly_though_vela_takes_it(tflite, capfd):
    status, entry = validated(capfd, tflite("reshape", "linear", integer=False))
    assert status == 1
    (check,) = [c for c in entry["checks"] if not c["passed"]]
    assert (check["name"], check["value"], check["limit"]) == ("npu_coverage", 0, 100)
    assert entry["resources"]["cycles"] is None
    assert any("the CPU runs 2 of 2 ops" in f and "unsupported DataType Float32" in f for f in texts(entry))


def test_an_op_on_the_cpu_fails_unless_it_is_allowed(tflite, capfd):
    path = tflite("quantize", "reshape", "linear", integer=True)
    status, entry = validated(capfd, path)
    assert status == 1
    assert entry["resources"]["npu_coverage"] == pytest.approx(200 / 3, abs=0.01)
    assert any("the CPU runs 1 of 3 ops" in f and "QUANTIZE quantized" in f for f in texts(entry))
    assert validated(capfd, path, "--npu-coverage", "60")[0] == 0
    places = [(layer.op, layer.place, layer.cycles is None) for layer in layers(device("ethos-u55-128"), path)]
    assert places[0] == ("QUANTIZE", "CPU", True)
    assert places[-1] == ("FULLY_CONNECTED", "NPU", False)


@pytest.mark.parametrize(
    ("option", "limit"), [("--max-sram-kib", "0.01"), ("--max-flash-kib", "0.01"), ("--max-cycles", "1")]
)
def test_limits_are_held(network, capfd, option, limit):
    status, entry = validated(capfd, network, option, limit)
    assert status == 1
    assert [c["limit"] for c in entry["checks"] if not c["passed"]] == [float(limit)]


def test_inspect_says_cycles_and_place_of_each_op(network, capfd):
    assert main(["inspect", str(network), "--device", "ethos-u55-128", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["entries"]
    compiled = open_session(device("ethos-u55-128"), network)
    npu = device("ethos-u55-128")
    assert sum(row["cycles"] for row in rows) == kind_of(npu).measure(npu, compiled).resources.cycles
    assert {row["place"] for row in rows} == {"NPU"}


def test_the_compiled_file_is_refused_where_it_does_not_run(network, capfd):
    open_session(device("ethos-u55-128"), network)
    kept = network.with_name(f"{network.stem}.ethos-u55-128.tflite")
    for name in ("host", "ethos-u55-128"):
        assert main(["validate", str(kept), "--data", "demo", "--preprocess", "resize=2x2", "--device", name]) == 2
        assert "is compiled for an Ethos-U and runs on that alone" in capfd.readouterr().err


def test_an_npu_runs_no_images(network):
    session = open_session(device("ethos-u55-128"), network)
    with pytest.raises(UnsupportedError, match="does not run images"):
        session.run(fixed_input(session))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import os; print('half way', flush=True); os.kill(os.getpid(), 11)", "was killed by SIGSEGV; .*half way"),
        ("import sys; sys.exit('no such section')", "ended with status 1; .*no such section"),
        ("import time; time.sleep(600)", "did not end within 0.5 s; "),
        ("", "left other files than it should"),
    ],
)
def test_a_vela_that_breaks_is_a_fault_of_the_device(network, monkeypatch, script, message):
    monkeypatch.setattr(vela, "VELA", (sys.executable, "-S", "-c", script))
    monkeypatch.setattr(vela, "TIMEOUT_S", 0.5 if "sleep" in script else 300)
    with pytest.raises(DeviceFault, match=message):
        open_session(device("ethos-u55-128"), network)


def test_a_missing_vela_is_status_3_and_the_command_that_installs_it(network):
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n.startswith('ethosu') else find(n, *a)\n"
        "from edgecnn.cli import main\n"
        f"sys.exit(main(['validate', {str(network)!r}, '--device', 'ethos-u55-128']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "pip install 'edgecnn[npu]'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", NPUS)
def test_the_demo_network_is_the_npus_alone_at_the_figures_that_are_known(demo, name):
    place = device(name)
    found = kind_of(place).measure(place, open_session(place, demo / "mobilenet_v2_0.35_96.tflite")).resources
    assert found.npu_coverage == 100
    for figure, known in GOLDEN[name].items():
        assert getattr(found, figure) == pytest.approx(known, rel=GOLDEN["tolerance"]), figure
