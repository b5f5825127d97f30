"""LiteRT sessions: what is in the file is what runs, on the kernels that were asked for, or it is said."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from golden_files import golden
from numpy.typing import NDArray

from edgecnn.errors import InputError, MissingDependencyError, UnsupportedError
from edgecnn_targets.runtimes.litert import RESOLVERS, RUNTIME, LiteRtSession
from edgecnn_targets.runtimes.litert_profile import rising

GOLDEN = golden("targets")["session"]
NETWORK = ("reshape", "linear")


def images(n: int, dtype: str) -> NDArray[np.generic]:
    noise = np.random.default_rng(1).normal(0, 40, (n, 2, 2, 3))
    return np.clip(noise, -128, 127).astype(dtype)


@pytest.mark.parametrize("kernels", RESOLVERS)
@pytest.mark.parametrize("integer", [True, False], ids=["int8", "fp32"])
def test_ports_and_ops_are_read_from_the_file(tflite, kernels, integer):
    session = LiteRtSession(tflite(*NETWORK, integer=integer), kernels=kernels)
    assert (session.input.shape, session.input.layout) == ((1, 2, 2, 3), "NHWC")
    assert (session.output.shape, session.output.layout) == ((1, 5), "NC")
    if integer:
        assert (session.input.dtype, session.input.zero_point) == ("int8", 3)
        assert session.input.scale == pytest.approx(0.02)
    else:
        assert (session.input.dtype, session.input.scale, session.input.zero_point) == ("float32", None, None)
    assert [op.kind for op in session.ops] == ["RESHAPE", "FULLY_CONNECTED"]
    assert [op.is_float for op in session.ops] == [not integer] * 2
    assert all(op.requested_kernels for op in session.ops)
    assert session.findings == ()


def test_float_input_and_output_of_an_integer_network_are_no_float_ops(tflite):
    session = LiteRtSession(tflite("quantize", *NETWORK, "dequantize", integer=True))
    assert (session.input.dtype, session.output.dtype) == ("float32", "float32")
    assert [op.kind for op in session.ops if op.is_float] == []
    inner = LiteRtSession(tflite(*NETWORK, integer=True))
    batch = inner.input.decode(images(20, "int8"))
    np.testing.assert_allclose(session.run(batch), inner.output.decode(inner.run(inner.input.encode(batch))), atol=1e-6)


def test_a_conversion_to_float_inside_an_integer_network_is_a_float_op(tflite):
    session = LiteRtSession(tflite(*NETWORK, "dequantize", "softmax", integer=True), kernels="reference")
    assert [str(op) for op in session.ops if op.is_float] == ["DEQUANTIZE result", "SOFTMAX probabilities"]


def test_float_network_computes_its_linear_layer(tflite):
    session = LiteRtSession(tflite(*NETWORK, integer=False))
    weight = np.random.default_rng(0).integers(-127, 128, (5, 12)).astype(np.float32) * np.float32(0.01)
    batch = images(7, "float32")
    np.testing.assert_allclose(session.run(batch), batch.reshape(7, 12) @ weight.T, rtol=1e-5, atol=1e-4)


def test_every_image_of_a_batch_is_its_own_inference(tflite):
    session = LiteRtSession(tflite(*NETWORK, integer=True))
    batch = images(6, "int8")
    whole = session.run(batch)
    assert whole.shape == (6, 5)
    assert whole.dtype == np.int8
    assert np.array_equal(whole, np.concatenate([session.run(batch[i : i + 1]) for i in (0, 1, 2, 3, 4, 5)]))
    assert np.array_equal(session.run(batch[::-1])[::-1], whole)
    assert session.run(batch[:0]).shape == (0, 5)


def test_xnnpack_is_within_the_stated_lsb_of_the_reference_kernels(tflite):
    path, batch = tflite(*NETWORK, integer=True), images(50, "int8")
    runs = {kernels: LiteRtSession(path, kernels=kernels).run(batch).astype(int) for kernels in RESOLVERS}
    assert np.abs(runs["xnnpack"] - runs["reference"]).max() <= GOLDEN["max_lsb_xnnpack"]
    assert np.ptp(runs["reference"]) > 50, "the network must use its output range for this to mean anything"


def test_an_op_that_xnnpack_leaves_out_is_a_finding_that_names_it(tflite):
    session = LiteRtSession(tflite(*NETWORK, "softmax", integer=True))
    assert [op.requested_kernels for op in session.ops] == [True, True, False]
    assert session.findings == ("XNNPACK leaves 1 of 3 ops out: SOFTMAX softmax",)


def test_a_network_that_xnnpack_cannot_run_at_all_is_an_error_not_a_fallback(tflite):
    path = tflite("softmax", integer=True)
    with pytest.raises(UnsupportedError, match="XNNPACK runs none of its 1 ops"):
        LiteRtSession(path)
    assert LiteRtSession(path, kernels="reference").findings == ()


def test_every_truncation_is_one_line_that_names_the_file(tflite, tmp_path):
    whole = tflite(*NETWORK, integer=True).read_bytes()
    for size in (*range(0, len(whole), 97), len(whole) - 1):
        path = tmp_path / "cut.tflite"
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut\.tflite is not a TFLite file that LiteRT can run") as caught:
            LiteRtSession(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"not a flatbuffer" * 40, b"\x89PNG\r\n\x1a\n" + bytes(500)])
def test_another_kind_of_file_is_an_input_error(tmp_path, content):
    path = tmp_path / "other.tflite"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a TFLite file"):
        LiteRtSession(path)


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path):
    for path in (tmp_path / "none.tflite", tmp_path):
        with pytest.raises(InputError, match="is not a file"):
            LiteRtSession(path)


def test_kernels_with_a_typo_name_the_right_ones(tflite):
    with pytest.raises(InputError, match="did you mean 'xnnpack'"):
        LiteRtSession(tflite(*NETWORK, integer=True), kernels="xnpack")


@pytest.mark.parametrize("batch", [np.zeros((1, 2, 2, 3), np.float32), np.zeros((1, 3, 2, 2), np.int8)])
def test_what_the_port_does_not_take_is_refused(tflite, batch):
    with pytest.raises(InputError, match="takes int8"):
        LiteRtSession(tflite(*NETWORK, integer=True)).run(batch)


def test_a_missing_runtime_is_the_command_that_installs_it(tflite, monkeypatch):
    path = tflite(*NETWORK, integer=True)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgecnn\[tflite\]'"):
        LiteRtSession(path)


def test_opening_prints_nothing_and_needs_neither_torch_nor_tensorflow(tflite):
    script = (
        "import sys, pathlib; from edgecnn_targets.runtimes.litert import LiteRtSession\n"
        "LiteRtSession(pathlib.Path(sys.argv[1])); sys.stderr.write('mine\\n')\n"
        "print([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    )
    path = str(tflite(*NETWORK, integer=True))
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert done.stderr == "mine\n"
    assert done.stdout == "[]\n"


def test_files_opened_side_by_side_leave_stderr_where_it_was(tflite, capfd):
    path = tflite(*NETWORK, integer=True)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(LiteRtSession, [path] * 40))) == 40
    os.write(2, b"still here")
    assert capfd.readouterr().err.endswith("still here")


def test_the_time_of_each_op_is_that_of_the_network_up_to_it_less_that_of_the_one_before(tflite):
    assert rising([1, 3, 2, 2, 5]) == pytest.approx([1, 7 / 3, 7 / 3, 7 / 3, 5])
    path = tflite(*NETWORK, integer=True)
    costs = RUNTIME.profile(path, 1)
    ops = LiteRtSession(path).ops
    assert [(cost.op, cost.name, cost.place) for cost in costs] == [(op.kind, op.name, "CPU") for op in ops]
    assert all(cost.ms >= 0 for cost in costs)
    assert sum(cost.ms for cost in costs) > 0
