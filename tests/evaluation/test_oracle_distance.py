"""The distance from the integer oracle is bound on this machine: whoever made the artifact, and on any CPU."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from commands import DEMO, EXPORT, QUICK

from edgecnn.artifact import write_artifact
from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.graph.serialize import load
from edgecnn_converters.registry import converter
from edgecnn_targets import registry
from edgecnn_targets.devices import device, read
from edgecnn_targets.interface import INSTRUCTION_SETS
from edgecnn_targets.runtimes import saturation

FILES = {"tflite": "tflite", "onnx": "onnx", "openvino": "xml"}
AVX2, VNNI = frozenset({"sse2", "avx2"}), frozenset({"sse2", "avx2", "avx512_vnni"})


@pytest.fixture(scope="module")
def eight_bits(tmp_path_factory):
    """The demo with 8-bit weights in every format."""
    folder = tmp_path_factory.mktemp("eight")
    assert main([*EXPORT, *QUICK, "--target", "all", "-o", str(folder)]) == 0
    return folder


def validated(capfd, path, *words):
    """Exit status, entry, and texts of its findings."""
    capfd.readouterr()
    status = main(["validate", str(path), "--data", "demo", "--limit", "10", "--json", *words])
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    return status, entry, " ".join(finding["text"] for finding in entry["findings"])


def checks(entry):
    return {check["name"]: check for check in entry["checks"]}


def on_cpu(monkeypatch, flags):
    """Have every runtime take this CPU for one with those flags."""
    monkeypatch.setattr(saturation, "cpu_flags", lambda: flags)


def shuffled(graph, folder, target):
    """Write an artifact as if it were the graph's, with the outputs of the last layer's weights in another order."""
    last = [node for node in graph if node.op == "fully_connected"][-1]
    weights = graph.tensors[last.inputs[1]]
    other = graph.with_tensors(replace(weights, integers=np.roll(weights.integers, 1, axis=0)))
    converted = converter(target).convert(other, precision="int8")
    return write_artifact(folder, DEMO, converted, graph.metadata)


@pytest.mark.parametrize("target", FILES)
def test_an_artifact_of_other_integers_fails_and_passes_where_nothing_is_beside_it(target, eight_bits, tmp_path, capfd):
    graph = load(eight_bits / f"{DEMO}.edgecnn")
    path = shuffled(graph, tmp_path, target)
    status, entry, said = validated(capfd, path, "--exact-kernels")
    assert entry["parity"]["max_lsb"] is None
    assert "oracle_lsb" not in checks(entry)
    assert "not compared with fp32" in said
    assert status == 0
    graph_file = tmp_path / f"{DEMO}.edgecnn"
    graph_file.write_bytes((eight_bits / f"{DEMO}.edgecnn").read_bytes())
    status, entry, _ = validated(capfd, path, "--exact-kernels", "--allow-loss")
    assert status == 1
    assert entry["parity"]["max_lsb"] > 20
    assert not checks(entry)["oracle_lsb"]["passed"]
    assert [check["name"] for check in entry["checks"] if not check["passed"]] == ["oracle_lsb"]
    capfd.readouterr()
    assert main(["validate", str(path), "--exact-kernels", "--allow-loss", "--device", "host", "--max-lsb", "255"]) == 0


@pytest.mark.parametrize("target", FILES)
def test_a_sound_artifact_is_within_the_bound_of_its_runtime(target, eight_bits, capfd):
    status, entry, _ = validated(capfd, eight_bits / f"{DEMO}.{FILES[target]}", "--exact-kernels")
    bound = device("host").tolerances.from_oracle(target, saturation.instruction_set())
    assert status == 0
    assert bound is not None
    assert checks(entry)["oracle_lsb"]["limit"] == bound


@pytest.mark.parametrize("target", FILES)
def test_where_sums_saturate_there_is_no_bound_and_a_finding_says_so(target, eight_bits, monkeypatch, capfd):
    on_cpu(monkeypatch, AVX2)
    _, entry, said = validated(capfd, eight_bits / f"{DEMO}.{FILES[target]}")
    assert ("oracle_lsb" in checks(entry)) is (target == "tflite")
    unbound = "the distance from the integer oracle is not checked: int8 sums can saturate here"
    assert (unbound in said) is (target != "tflite")


@pytest.mark.parametrize(("target", "ran"), [("onnx", "session.x64quantprecision=1"), ("openvino", "ran in float32")])
def test_exact_kernels_are_bound_and_their_float_ops_are_not_the_artifacts(target, ran, eight_bits, monkeypatch, capfd):
    on_cpu(monkeypatch, AVX2)
    status, entry, said = validated(capfd, eight_bits / f"{DEMO}.{FILES[target]}", "--exact-kernels")
    assert ran in said
    assert entry["float_ops"] == []
    assert checks(entry)["float_ops"]["passed"]
    assert checks(entry)["oracle_lsb"]["passed"]
    assert status == 0


@pytest.mark.parametrize(("float_in", "failing"), [(("exact",), 0), ((None, "exact"), 1)])
def test_a_float_op_of_the_usual_kernels_counts_with_exact_kernels_too(
    float_in, failing, eight_bits, monkeypatch, capfd
):
    row = registry.runtime("onnx")

    def opened(path, *, threads, kernels):
        session = row.open_session(path, threads=threads, kernels=kernels)
        ops = [replace(op, is_float=op.is_float or kernels in float_in) for op in session.ops]
        session.ops = tuple(ops)
        return session

    rows, real = {**registry.runtimes(), "onnx": replace(row, open_session=opened)}, registry.registry
    monkeypatch.setattr(registry, "registry", lambda group, kind: rows if group == "runtimes" else real(group, kind))
    status, entry, _ = validated(capfd, eight_bits / f"{DEMO}.onnx", "--exact-kernels")
    assert status == failing
    assert bool(entry["float_ops"]) is bool(failing)


@pytest.mark.parametrize(
    ("flags", "vnni", "name"),
    [
        (VNNI, True, "vnni"),
        (frozenset({"sse2", "avx2", "avx_vnni"}), True, "vnni"),
        (AVX2, False, "avx2"),
        (frozenset({"sse2", "ssse3"}), False, "other"),
        (frozenset({"asimd", "asimddp"}), True, "other"),
        (frozenset(), True, "other"),
    ],
)
def test_an_instruction_set_is_told_by_the_flags_of_the_cpu(flags, vnni, name, monkeypatch):
    on_cpu(monkeypatch, flags)
    assert saturation.has_vnni() is vnni
    assert saturation.instruction_set() == name
    assert name in INSTRUCTION_SETS


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        ("host", "{ avx3 = 0 }", "oracle_lsb: unknown instruction set 'avx3' .*; allowed: avx2, other, vnni"),
        ("wasm", "{ avx2 = 0 }", "oracle_lsb by instruction set is for kind 'host'"),
        ("host", '{ avx2 = "0" }', "expected int"),
    ],
)
def test_a_wrong_bound_is_one_line_that_names_the_file(kind, table, message, tmp_path):
    board = tmp_path / "board.toml"
    board.write_text(
        f'kind = "{kind}"\ndescription = "mine"\ntargets = ["onnx"]\ntolerances.oracle_lsb.onnx = {table}\n'
    )
    with pytest.raises(InputError, match=f"board.toml: .*{message}"):
        read(board)
