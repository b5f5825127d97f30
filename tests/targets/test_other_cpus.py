"""The demo on CPUs of the other kind: x86 without VNNI, in OpenVINO by oneDNN's limit and in the others under QEMU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from commands import DEMO, EXPORT, QUICK
from graphs import PIECES, piece_graph
from int8_builder import random_images
from runtimes import seven_bits

from edgecnn.child import Runner
from edgecnn.cli import main
from edgecnn.errors import EdgecnnError
from edgecnn.graph.oracle import run
from edgecnn_converters.registry import converter
from edgecnn_targets.devices import device
from edgecnn_targets.kinds import qemu
from edgecnn_targets.registry import kind_of
from edgecnn_targets.runtimes import saturation
from edgecnn_targets.runtimes.saturation import ONEDNN_LIMIT, cpu_flags, has_vnni

X86 = "x86-avx2"
needs_x86 = pytest.mark.skipif("avx2" not in cpu_flags(), reason=f"{ONEDNN_LIMIT}=AVX2 takes an x86 CPU with AVX2")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports the demo in every format: bits of the weights to folder."""

    @cache
    def work(bits):
        folder = tmp_path_factory.mktemp(f"bits{bits}")
        words = [*EXPORT, *QUICK, "--target", "all", "-o", str(folder)]
        assert main([*words, "--reduce-range"] if bits == 7 else words) == 0
        return folder

    return work


def validated(path, *words):
    """Exit status, entry and findings, in a process of its own that has OpenVINO without VNNI."""
    given = ["validate", str(path), "--data", "demo", "--limit", "4", "--json", *words]
    command = [sys.executable, "-m", "edgecnn", *given]
    environment = {**os.environ, ONEDNN_LIMIT: "AVX2"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout, done.stderr
    (entry,) = json.loads(done.stdout)["entries"]
    return done.returncode, entry, " ".join(finding["text"] for finding in entry["findings"])


def checks(entry):
    return {check["name"]: check["value"] for check in entry["checks"]}


@needs_x86
def test_openvino_without_vnni_is_bound_with_7_bits(exported):
    status, entry, said = validated(exported(7) / f"{DEMO}.xml")
    assert (status, checks(entry)["oracle_lsb"], entry["float_ops"], said) == (0, 0, [], "")


@pytest.mark.slow
@needs_x86
def test_openvino_without_vnni_saturates_with_8_bits_and_says_why(exported):
    status, entry, said = validated(exported(8) / f"{DEMO}.xml")
    assert status == 0
    assert entry["parity"]["max_lsb"] > 10
    assert "oracle_lsb" not in checks(entry)
    why = f"{ONEDNN_LIMIT}=AVX2 leaves VNNI out" if has_vnni() else "this CPU has no VNNI"
    assert f"{why}: OpenVINO's int8 kernels add pairs of products in 16 bits" in said


@pytest.mark.slow
@needs_x86
def test_openvino_in_float_is_what_a_cpu_with_vnni_computes(exported):
    status, entry, said = validated(exported(8) / f"{DEMO}.xml", "--exact-kernels")
    assert (status, checks(entry)["oracle_lsb"], entry["float_ops"]) == (0, 0, [])
    assert "ran in float32" in said


@pytest.mark.parametrize(
    ("limit", "flags", "vnni"),
    [
        ("avx2", "avx512_vnni", False),
        ("AVX512_CORE", "avx512_vnni", False),
        ("AVX512_CORE_VNNI", "avx512_vnni", True),
        ("AVX2_VNNI", "avx512_vnni", False),
        ("AVX2_VNNI", "avx_vnni", True),
        ("DEFAULT", "avx512_vnni", True),
        ("DEFAULT", "fma", False),
    ],
)
def test_onednns_limit_decides_about_openvino_alone(limit, flags, vnni, monkeypatch):
    monkeypatch.setenv(ONEDNN_LIMIT, limit)
    monkeypatch.setattr(saturation, "cpu_flags", lambda: frozenset({"sse2", "avx2", flags}))
    assert saturation.onednn_has_vnni() is vnni
    assert saturation.has_vnni() is (flags != "fma")


@pytest.fixture(scope="module")
def emulated():
    """Set up the emulated CPU without VNNI."""
    try:
        kind_of(device(X86)).setup(device(X86), print)
    except EdgecnnError as error:
        pytest.skip(f"{X86} cannot be set up here: {error}")
    return X86


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suffix", "bits", "words"), [("tflite", 8, ()), ("onnx", 7, ()), ("onnx", 8, ("--exact-kernels",))]
)
def test_the_emulated_cpu_has_the_oracles_bits(suffix, bits, words, emulated, exported):
    status, entry, _ = validated(exported(bits) / f"{DEMO}.{suffix}", "--device", emulated, *words)
    assert status == 0
    assert checks(entry)["oracle_lsb"] == 0


@pytest.mark.slow
def test_onnx_runtime_saturates_there_with_8_bits(emulated, exported):
    _, entry, said = validated(exported(8) / f"{DEMO}.onnx", "--device", emulated)
    assert entry["parity"]["max_lsb"] > 10
    assert "oracle_lsb" not in checks(entry)
    assert "this CPU has no VNNI: ONNX Runtime's" in said


@pytest.mark.slow
@pytest.mark.parametrize(("target", "arithmetic"), [("tflite", "xnnpack"), ("onnx", "onnxruntime")])
def test_every_op_has_the_oracles_bits_there(target, arithmetic, emulated):
    """Run every op with 7-bit weights in an emulator."""
    graphs = {piece: seven_bits(piece_graph(piece, 1)) for piece in PIECES}
    worst = {}
    runner = Runner(qemu.command(device(emulated)))
    try:
        for name, graph in graphs.items():
            images, made = random_images(graph, 4), converter(target).convert(graph, precision="int8", io="int8")
            opening = {"do": "open", "target": target, "threads": 1, "kernels": {"tflite": "BUILTIN"}.get(target, "0")}
            runner.ask(opening, *made.files.values(), within_s=300)
            details, _ = runner.answer()
            fed = np.ascontiguousarray(images.transpose(0, 3, 1, 2)) if made.input.layout == "NCHW" else images
            runner.ask({"do": "run"}, fed.tobytes(), within_s=300)
            got = np.frombuffer(runner.answer()[1], np.int8).reshape(len(images), *made.output.shape[1:])
            if made.output.layout == "NCHW":
                got = got.transpose(0, 2, 3, 1)
            want = run(graph, images, arithmetic=arithmetic)[graph.outputs[0]].astype(int)
            if target == "onnx" or any(op["op_name"] == "DELEGATE" for op in details["ops"]):
                worst[name] = int(np.abs(got.reshape(want.shape) - want).max())
    finally:
        runner.close()
    assert {name: lsb for name, lsb in worst.items() if lsb} == {}
    assert len(worst) > len(graphs) / 2
