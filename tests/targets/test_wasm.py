"""ONNX Runtime Web under Node: pinned, installed once, and computing what ONNX Runtime computes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from golden_files import golden

from edgecnn.cli import main
from edgecnn.errors import DeviceFault, MissingDependencyError, UnsupportedError
from edgecnn_targets.devices import device
from edgecnn_targets.kinds import wasm
from edgecnn_targets.registry import kind_of, missing, open_session

GOLDEN = golden("targets")["wasm"]
HERE = Path(wasm.__file__).parent


def test_every_package_is_pinned_by_its_checksum_and_no_registry_is_named():
    text = (HERE / "package-lock.json").read_text()
    packages = {name: row for name, row in json.loads(text)["packages"].items() if name}
    assert all(row["integrity"].startswith("sha512-") for row in packages.values())
    assert "://" not in text
    asked = json.loads((HERE / "package.json").read_text())["dependencies"]
    assert asked == {"onnxruntime-web": packages["node_modules/onnxruntime-web"]["version"]}


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """`tools(node=script, npm=script)` are the only ones that are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("EDGECNN_CACHE", str(tmp_path / "cache"))

    def give(**scripts):
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)

    return give


def test_what_is_missing_is_said_with_the_command_that_installs_it(tools):
    web = device("wasm")
    assert missing(web, "onnx") == "apt-get install nodejs npm"
    with pytest.raises(MissingDependencyError, match="apt-get install nodejs npm"):
        kind_of(web).setup(web, print)
    tools(node="", npm="echo > installed")
    assert missing(web, "onnx") == "edgecnn devices setup wasm"
    assert kind_of(web).setup(web, lambda line: None)
    assert missing(web, "onnx") is None
    assert (wasm.folder() / "installed").exists()
    assert not kind_of(web).setup(web, print)


def test_an_npm_that_fails_leaves_nothing_half_set_up(tools):
    tools(node="", npm="echo > half; echo no such package >&2; exit 1")
    with pytest.raises(DeviceFault, match="npm ended with status 1; its last output: no such package"):
        kind_of(device("wasm")).setup(device("wasm"), lambda line: None)
    assert missing(device("wasm"), "onnx") == "edgecnn devices setup wasm"
    tools(npm="echo > installed")
    assert kind_of(device("wasm")).setup(device("wasm"), lambda line: None)
    assert not (wasm.folder() / "half").exists()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo out of memory >&2; exit 134", "wasm ended with status 134; .*out of memory"),
        ("echo hello", "which is no answer|ended"),
    ],
)
def test_a_node_that_breaks_is_a_fault_of_the_device(tools, tmp_path, script, message):
    tools(node=script)
    artifact = tmp_path / "m.onnx"
    artifact.write_bytes(b"anything")
    with pytest.raises(DeviceFault, match=message):
        open_session(device("wasm"), artifact)


@pytest.fixture(scope="module")
def web():
    """The device, set up."""
    try:
        kind_of(device("wasm")).setup(device("wasm"), lambda line: None)
    except (MissingDependencyError, DeviceFault) as error:
        pytest.skip(str(error))
    return device("wasm")


@pytest.mark.slow
def test_webassembly_computes_what_the_runtime_with_exact_sums_computes(web, demo, capfd):
    path = demo / "mobilenet_v2_0.35_96.onnx"
    session, here = open_session(web, path), open_session(device("host"), path, kernels="exact")
    assert (session.input, session.output) == (here.input, here.output)
    fed = np.random.default_rng(3).uniform(-1, 1, (20, *session.input.shape[1:])).astype(np.float32)
    there, exact = session.run(fed), here.run(fed)
    assert np.mean(there == exact) >= GOLDEN["equal"]
    assert np.array_equal(there.argmax(axis=1), exact.argmax(axis=1))
    assert np.array_equal(session.run(fed), there)
    session.close()
    words = ["validate", str(path), "--device", "wasm", "--data", "demo", "--limit", "40", "--min-agreement", "95"]
    assert main([*words, "--json"]) == 0
    entry = json.loads(capfd.readouterr().out)["entries"][0]
    assert entry["parity"]["max_lsb"] <= GOLDEN["oracle_lsb"]
    assert entry["latency"]["runs"] == 50


@pytest.mark.slow
def test_a_file_that_webassembly_does_not_run_is_refused(web, tmp_path):
    junk = tmp_path / "m.onnx"
    junk.write_bytes(b"junk")
    with pytest.raises(UnsupportedError, match="device 'wasm' cannot run it: .*protobuf parsing failed"):
        open_session(web, junk)
