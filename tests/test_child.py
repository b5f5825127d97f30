"""Native code in a child process: arrays go in and come out; crashes, hangs and memory are one line."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from child_functions import doubled
from graphs import random_graph

from edgecnn.artifact import Port, was_written_here, write_artifact
from edgecnn.child import Child, kept
from edgecnn.errors import DeviceFault, InputError, UnsupportedError
from edgecnn.graph.ir import Metadata
from edgecnn_converters.registry import converter
from edgecnn_targets.devices import device
from edgecnn_targets.interface import Description
from edgecnn_targets.kinds import foreign
from edgecnn_targets.kinds.foreign import ForeignSession
from edgecnn_targets.registry import kind_of, open_session, runtime

GRAPH = random_graph(3, pieces=4)


@pytest.fixture
def child(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    made = Child("kernel")
    yield made
    made.close()


def call(child, name, arrays=None, within_s=60.0, **given):
    return child.call(f"child_functions:{name}", given, arrays, within_s=within_s)


def test_arrays_of_any_size_go_in_and_come_out(child):
    for size in (1, 10, 10**6, 3):
        given = {"a": np.arange(size, dtype=np.float32), "b": np.ones((2, size, 1), np.int8)}
        said, made = call(child, "doubled", given, note="n")
        for name, array in doubled({}, {}, given)[1].items():
            np.testing.assert_array_equal(made[name], array)
    assert said == {"calls": 4, "note": "n"}


def test_an_error_there_is_the_same_error_here(child):
    with pytest.raises(UnsupportedError, match="^no such op$"):
        call(child, "refuse")
    with pytest.raises(InputError, match=r"kernel cannot run it: KeyError: 'gone' \(.*child_functions.py:\d+\)"):
        call(child, "wrong")
    assert call(child, "doubled")[0]["calls"] == 1


def test_a_crash_is_a_fault_with_the_signal_and_the_last_words(child):
    with pytest.raises(DeviceFault, match=r"kernel was killed by SIGABRT; its last output: .*in CONV_2D.*in abort"):
        call(child, "abort")


def test_a_hang_and_too_much_memory_are_faults(child):
    with pytest.raises(DeviceFault, match="ran out of the memory it may take.*--max-memory allows more"):
        call(child, "fill")
    with pytest.raises(DeviceFault, match="hung: no answer within 0.5 s"):
        call(child, "hang", within_s=0.5)


def test_a_child_is_kept_and_one_that_broke_is_replaced(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    for expected in (1, 2):
        with kept("some kernel") as child:
            assert call(child, "doubled")[0]["calls"] == expected
    with pytest.raises(DeviceFault), kept("some kernel") as child:
        call(child, "abort")
    with kept("some kernel") as child:
        assert call(child, "doubled")[0]["calls"] == 1


def test_a_child_ends_with_its_parent():
    code = (
        "from edgecnn.child import Child\nimport os\nchild = Child('x')\n"
        "print(child._runner._process.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    for _ in range(100):
        if not Path(f"/proc/{int(done.stdout)}/cmdline").exists():
            break
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


@pytest.mark.parametrize("target", ["tflite", "onnx", "openvino"])
def test_what_others_wrote_runs_in_a_child_and_computes_the_same(target, tmp_path):
    converted = converter(target).convert(GRAPH, precision="int8")
    path = write_artifact(tmp_path, "net", converted, Metadata(), {})
    assert was_written_here(path)
    own = open_session(device("host"), path)
    assert not isinstance(own, ForeignSession)
    for file in converter(target).files(path):
        file.write_bytes(file.read_bytes())
        os.utime(file, (1, 1))
    session = open_session(device("host"), path)
    assert isinstance(session, ForeignSession)
    assert session.description == own.description
    random = np.random.default_rng(0)
    fed = {p.name: random.integers(-9, 9, (5, *p.shape[1:])).astype(p.dtype) for p in own.inputs}
    for name, expected in own.run(fed).items():
        np.testing.assert_array_equal(session.run(fed)[name], expected)
    assert kind_of(device("host")).measure(device("host"), session).latency.runs == 100
    session.close()


@pytest.mark.parametrize("target", ["tflite", "onnx", "openvino"])
def test_ops_of_what_others_wrote_are_timed_in_a_child(target, tmp_path):
    path = write_artifact(tmp_path, "net", converter(target).convert(GRAPH, precision="int8"), Metadata(), {})
    for file in converter(target).files(path):
        os.utime(file, (1, 1))

    def here(path, threads):
        raise AssertionError("it is opened in this process")

    costs = foreign.profile(replace(runtime(target), profile=here), path)
    assert len(costs) >= 4
    assert all(cost.ms >= 0 and cost.name and cost.place == "CPU" for cost in costs)


def test_an_artifact_without_inputs_or_outputs_is_refused():
    port = Port(name="x", shape=(1, 2), layout="NC", dtype="float32")
    for side, ports in (("inputs", ((), (port,))), ("outputs", ((port,), ()))):
        with pytest.raises(UnsupportedError, match=f"the artifact has no {side}"):
            Description(inputs=ports[0], outputs=ports[1], ops=())


def test_a_file_that_a_runtime_refuses_is_refused_in_a_child_too(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"net.onnx is not an ONNX file that ONNX Runtime can run"):
        open_session(device("host"), tmp_path / "net.onnx")
    with pytest.raises(InputError, match="unknown kernels 'quick'"):
        ForeignSession(runtime("tflite"), tmp_path / "net.onnx", threads=1, kernels="quick")
