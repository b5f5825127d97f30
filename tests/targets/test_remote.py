"""Sessions in another process: the same as here, and one line when the other end crashes, hangs or talks nonsense."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest
from drawn import int8

from edgecnn.child import Command
from edgecnn.errors import DeviceFault, InputError, UnsupportedError
from edgecnn_targets import cache
from edgecnn_targets.kinds.remote import RemoteSession, _described
from edgecnn_targets.results import ResultCache
from edgecnn_targets.runtimes import onnxruntime, runner
from edgecnn_targets.runtimes.litert import LiteRtSession

NETWORK = ("reshape", "linear")
SAMPLE = (2, 2, 3)
REAL = (sys.executable, runner.__file__)


@pytest.fixture
def remote(tflite):
    """Opens the tiny network in a runner; what is still open is closed afterwards."""
    opened = []

    def opener(words=REAL, ops=NETWORK, integer=True, open_s=60.0, image_s=60.0, **options):
        command = Command(device="board", words=tuple(map(str, words)), open_s=open_s, image_s=image_s)
        opened.append(RemoteSession(command, tflite(*ops, integer=integer), "tflite", **options))
        return opened[-1]

    yield opener
    for session in opened:
        session.close()


@pytest.mark.parametrize("integer", [True, False], ids=["int8", "fp32"])
@pytest.mark.parametrize("kernels", ["xnnpack", "reference"])
def test_it_is_the_session_that_opens_here(remote, tflite, integer, kernels):
    there, here = (
        remote(integer=integer, kernels=kernels),
        LiteRtSession(tflite(*NETWORK, integer=integer), kernels=kernels),
    )
    assert (there.input, there.output, there.ops, there.findings) == (here.input, here.output, here.ops, here.findings)
    batch = int8(SAMPLE, 5).astype(here.input.dtype)
    assert np.array_equal(there.run(batch), here.run(batch))


def test_several_runners_share_a_batch_of_any_size_and_keep_its_order(remote, tflite):
    there, here = remote(runners=3), LiteRtSession(tflite(*NETWORK, integer=True))
    for n in (0, 1, 2, 3, 10):
        assert np.array_equal(there.run(int8(SAMPLE, n)), here.run(int8(SAMPLE, n)))


def test_times_are_those_of_the_other_ends_clock(remote):
    found = remote().time({"input": int8(SAMPLE, 1)}, warmup=2, runs=7)
    assert found.latency.runs == 7
    assert found.latency.median_ms > 0


def test_what_the_port_does_not_take_is_refused_here(remote):
    with pytest.raises(InputError, match="takes int8"):
        remote().run(int8(SAMPLE, 1).astype(np.float32))


def test_a_network_that_the_other_end_cannot_open_says_why(remote):
    with pytest.raises(UnsupportedError, match="XNNPACK runs none of its 1 ops"):
        remote(ops=("softmax",))


def test_a_file_that_is_no_network_says_why(tmp_path):
    path = tmp_path / "other.tflite"
    path.write_bytes(b"not a flatbuffer" * 9)
    with pytest.raises(
        UnsupportedError, match="device 'board' cannot run it: ValueError: The model is not a valid Flatbuffer"
    ):
        RemoteSession(Command(device="board", words=REAL), path, "tflite")
    with pytest.raises(InputError, match=r"cannot read .*none\.tflite: No such file"):
        RemoteSession(Command(device="board", words=REAL), tmp_path / "none.tflite", "tflite")
    with pytest.raises(InputError, match="did you mean 'xnnpack'"):
        RemoteSession(Command(device="board", words=REAL), path, "tflite", kernels="xnpack")


# --- what it has answered before ---


def test_what_is_known_is_not_run_again(remote, tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    batch = int8(SAMPLE, 7)
    first = remote(results=ResultCache(b"artifact", b"device"))
    some = first.run(batch[:4])
    assert np.array_equal(first.run(batch[:2]), some[:2])
    assert first.findings == ()
    again = remote(results=ResultCache(b"artifact", b"device"))
    assert again._runners == []
    assert np.array_equal(again.run(batch)[:4], some)
    assert again.findings[0].startswith("4 of 7 outputs are of an earlier run, in ")
    no_device = remote(["no-such-emulator"], results=ResultCache(b"artifact", b"device"))
    assert np.array_equal(no_device.run(batch[::-1]), again.run(batch)[::-1])
    assert no_device.ops == first.ops
    with pytest.raises(DeviceFault, match="cannot start no-such-emulator"):
        no_device.run(int8(SAMPLE, 9))


def test_another_artifact_or_version_has_other_results(tmp_path, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    ResultCache(b"a", b"1").put_outputs([b"x"], [b"y"])
    assert ResultCache(b"a", b"1").output(b"x") == b"y"
    assert ResultCache(b"a", b"1").output(b"z") is None
    for parts in ((b"a", b"2"), (b"b", b"1"), (b"a1",), (b"a", b"1", b"")):
        assert ResultCache(*parts).output(b"x") is None


# --- the other end breaks ---

SPEAK = (
    "import json, sys, os, time, signal; line = sys.stdin.readline(); print('booting', file=sys.stderr, flush=True); "
)
BROKEN = {
    "ends at once": ("import sys; sys.exit('no such board')", "ended with status 1; its last output: no such board"),
    "crashes": (SPEAK + "os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV; its last output: booting"),
    "hangs": (SPEAK + "time.sleep(600)", "hung: no answer within 1.5 s; its last output: "),
    "garbage": (SPEAK + "print('Segmentation fault (core dumped)')", r"answered b'Segmentation fault .*no answer"),
    "no size": (SPEAK + "print(json.dumps({'inputs': []}))", "which is no answer"),
    "half an answer": (SPEAK + "print(json.dumps({'bytes': 9}))", "ended with status 0"),
    "reads nothing": ("import time; time.sleep(600)", "hung: no answer within 1.5 s"),
}


@pytest.mark.parametrize(("script", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_device_is_a_fault_with_its_last_words(remote, script, message):
    start = time.monotonic()
    with pytest.raises(DeviceFault, match=message) as caught:
        remote([sys.executable, "-S", "-c", script], open_s=1.5 if "sleep" in script else 300)
    assert str(caught.value).startswith("board ")
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 300, "it must not wait for a device that hangs"


def test_a_device_that_cannot_be_started_is_a_fault(remote):
    with pytest.raises(DeviceFault, match="cannot start no-such-emulator: No such file"):
        remote(["no-such-emulator"])


@pytest.mark.parametrize(
    ("how", "message"),
    [("os.kill(os.getpid(), 9)", "was killed by SIGKILL; its last output: .*working"), ("time.sleep(60)", "hung")],
    ids=["crashes", "hangs"],
)
def test_a_device_that_breaks_in_the_middle_is_a_fault(remote, how, message):
    script = (
        "import os, sys, time; sys.argv = ['runner']; from edgecnn_targets.runtimes import runner\n"
        "def broken(network, request, raw):\n"
        f"    print('working', file=sys.stderr, flush=True); {how}\n"
        "runner.run = broken; runner.main()"
    )
    session = remote([sys.executable, "-c", script], image_s=0.5 if "sleep" in how else 300)
    with pytest.raises(DeviceFault, match=message):
        session.run(int8(SAMPLE, 2))


def test_ops_are_those_of_the_graph_that_the_other_end_made(tmp_path):
    helper = pytest.importorskip("onnx", reason="onnx is not installed; edgecnn[onnx] has it").helper
    ends = [helper.make_tensor_value_info(name, 1, (1, 4)) for name in ("x", "y")]
    here, there = (
        helper.make_model(
            helper.make_graph([helper.make_node(op, ["x"], ["y"])], "g", ends[:1], ends[1:]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        )
        for op in ("Relu", "Abs")
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(here.SerializeToString())
    details = runner.onnx_details(onnxruntime.open_file(path, 1, "fast")[0])
    for graph, kind in ((there.SerializeToString(), "Abs"), (b"", "Relu")):  # none: it cannot be shown there
        assert [op.kind for op in _described(path, "onnx", None, details, graph, vnni=True).ops] == [kind]
