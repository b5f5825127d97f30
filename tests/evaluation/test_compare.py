"""``--target all`` and ``edgecnn compare``: one calibration, three files, and the proof that they are one network."""

from __future__ import annotations

import json
import re
import shutil
import sys
from itertools import combinations

import numpy as np
import pytest
from commands import assert_same_figures
from golden_files import golden

from edgecnn.cli import main
from edgecnn.data.demo import images
from edgecnn.graph.serialize import load, save
from edgecnn_converters.onnx import lowering
from edgecnn_targets.runtimes.saturation import has_vnni

DEMO = "mobilenet_v2_0.35_96"
FILES = ("tflite", "onnx", "xml", "edgecnn")
SAFE = [] if has_vnni() else ["--reduce-range"]  # OpenVINO has no exact 8-bit kernels without VNNI
ALIKE = golden("accuracy")["demo"]["alike"]
ON = ["--data", "demo", "--limit", "40", "--json"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("all")
    words = ["export", DEMO, "--target", "all", "--weights", "demo", "--calibration", "demo", "--data", "demo"]
    words += ["--calibration-images", "40", "--limit", "60", "--min-agreement", "90", "-o", str(folder), *SAFE]
    assert main(words) == 0
    return folder


def found(capfd, *words):
    capfd.readouterr()
    status = main(["compare", *map(str, words), *ON])
    return status, json.loads(capfd.readouterr().out)


def largest(*formats):
    """The limit for two formats: the oracle rounds as LiteRT's reference kernels do, which no fast runtime does."""
    return "max_lsb" if "edgecnn" in formats else "max_lsb_of_runtimes"


def test_one_calibration_gives_three_checked_artifacts(exported):
    entries = {e["target"]: e for e in json.loads((exported / "report.json").read_text())["entries"]}
    assert set(entries) == {"tflite", "onnx", "openvino"}
    names = {p.name for p in exported.iterdir()}
    assert {f"{DEMO}.{s}" for s in ("tflite", "onnx", "xml", "bin", "edgecnn")} <= names
    assert {f"{DEMO}.{t}.json" for t in entries} <= names
    assert len({e["accuracy"]["fp32_top1"] for e in entries.values()}) == 1
    for target, entry in entries.items():
        assert entry["accuracy"]["agreement"] >= ALIKE["min_agreement_with_fp32"]
        assert entry["parity"]["arithmetic"] == {"tflite": "xnnpack", "onnx": "onnxruntime"}.get(target, target)
        assert entry["parity"]["max_lsb"] <= ALIKE["max_lsb_of_runtimes"]
        assert entry["float_ops"] == []
        assert all(c["passed"] for c in entry["checks"])
        assert not entry["findings"]


@pytest.fixture(scope="module")
def eight_bits(exported, tmp_path_factory):
    """The same network with 8-bit weights, where that is not what ``exported`` has."""
    if has_vnni():
        return exported
    folder = tmp_path_factory.mktemp("eight")
    words = ["export", DEMO, "--target", "all", "--weights", "demo", "--calibration", "demo", "-o", str(folder)]
    assert main([*words, "--calibration-images", "40"]) == 0
    return folder


def findings(capfd, path, *words):
    capfd.readouterr()
    main(["validate", str(path), "--data", "demo", "--limit", "60", "--json", *words])
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    return entry, " ".join(finding["text"] for finding in entry["findings"])


@pytest.mark.parametrize(("suffix", "runtime"), [("onnx", "ONNX Runtime"), ("xml", "OpenVINO"), ("tflite", None)])
def test_where_sums_saturate_the_user_is_told_and_what_to_do(eight_bits, exported, suffix, runtime, capfd):
    _, said = findings(capfd, eight_bits / f"{DEMO}.{suffix}")
    if has_vnni() or runtime is None:
        assert said == ""
    else:
        assert f"this CPU has no VNNI: {runtime}'s int8 kernels add pairs of products in 16 bits" in said
        assert "--reduce-range" in said
        assert "--exact-kernels" in said
    assert findings(capfd, exported / f"{DEMO}.{suffix}")[1] == "", "7 bits cannot saturate"


@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_exact_kernels_give_on_any_cpu_what_vnni_gives(eight_bits, suffix, capfd):
    """On a CPU with VNNI they are the same kernels; without, the report says which ran, in OpenVINO's case float."""
    entry, said = findings(capfd, eight_bits / f"{DEMO}.{suffix}", "--exact-kernels")
    assert entry["accuracy"]["agreement"] >= ALIKE["min_agreement_with_fp32"]
    assert entry["parity"]["max_lsb"] <= ALIKE["max_lsb_of_runtimes"]
    without = {"onnx": "ran with session.x64quantprecision=1", "xml": "ran in float32"}[suffix]
    assert (without in said) is not has_vnni()
    assert entry["float_ops"] == [], "float kernels that were asked for are not the artifact's"
    status = main(["compare", *(str(eight_bits / f"{DEMO}.{s}") for s in (suffix, "tflite")), *ON, "--exact-kernels"])
    result = json.loads(capfd.readouterr().out)
    assert status == 0
    assert result["agreement"] == 100
    assert result["max_lsb"] <= ALIKE["max_lsb_of_runtimes"]
    assert (without in " ".join(result["findings"])) is not has_vnni()


@pytest.mark.skipif(has_vnni(), reason="this CPU has VNNI; tests/targets/test_other_cpus.py shows it")
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
def test_without_vnni_eight_bits_do_saturate(eight_bits, suffix, capfd):
    entry, _ = findings(capfd, eight_bits / f"{DEMO}.{suffix}")
    assert entry["parity"]["max_lsb"] > 30


@pytest.mark.parametrize(("a", "b"), list(combinations(FILES, 2)))
def test_any_two_hold_the_same_integers_and_agree(exported, a, b, capfd):
    status, result = found(capfd, exported / f"{DEMO}.{a}", exported / f"{DEMO}.{b}")
    assert status == 0
    assert result["same_integers"] is True
    assert result["differing"] == []
    assert result["n"] == 40
    assert result["agreement"] >= ALIKE["min_agreement"]
    assert result["max_lsb"] <= ALIKE[largest(a, b)]
    assert result["mean_lsb"] <= ALIKE["mean_lsb"]


def test_an_artifact_equals_itself(exported, capfd):
    _, result = found(capfd, exported / f"{DEMO}.onnx", exported / f"{DEMO}.onnx")
    assert (result["max_lsb"], result["mean_lsb"], result["agreement"]) == (0, 0, 100)


def test_one_changed_integer_is_found_and_is_status_1(exported, tmp_path, capfd):
    graph = load(exported / f"{DEMO}.edgecnn")
    name = graph.nodes[3].inputs[1]
    tensor = graph.tensors[name]
    integers = tensor.integers.copy()
    integers.flat[0] += 1 if integers.flat[0] < 127 else -1
    from dataclasses import replace

    save(graph.with_tensors(replace(tensor, integers=integers)), tmp_path / "other.edgecnn")
    for suffix in FILES:
        status, result = found(capfd, exported / f"{DEMO}.{suffix}", tmp_path / "other.edgecnn")
        assert status == 1
        assert result["differing"] == [name]


def test_float_and_int8_have_no_integers_to_compare(exported, tmp_path, capfd):
    source = str(exported / f"{DEMO}.edgecnn")
    assert main(["export", source, "--target", "onnx", "--quantize", "none", "-o", str(tmp_path)]) == 0
    status, result = found(capfd, tmp_path / f"{DEMO}.onnx", exported / f"{DEMO}.tflite")
    assert status == 0
    assert result["same_integers"] is None
    assert result["max_lsb"] is None
    assert result["sqnr_db"] >= golden("sqnr")["export"]["compared"]


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_validate_takes_every_format(exported, target, capfd):
    suffix = {"onnx": "onnx", "openvino": "xml"}[target]
    capfd.readouterr()
    words = ["validate", str(exported / f"{DEMO}.{suffix}"), "--data", "demo", "--limit", "60", "--json"]
    assert main(words) == 0
    (entry,) = json.loads(capfd.readouterr().out)["entries"]
    before = next(e for e in json.loads((exported / "report.json").read_text())["entries"] if e["target"] == target)
    assert_same_figures(entry, before)
    assert entry["size_bytes"] == before["size_bytes"]


def test_wrong_pairs_are_one_line(exported, tmp_path, monkeypatch, capfd):
    nets = tmp_path / "nets.py"
    layers = "nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()"
    nets.write_text(f"from torch import nn\ndef net():\n    return nn.Sequential({layers})\n")
    monkeypatch.chdir(tmp_path)
    feed = ["--preprocess", "resize=8x8,mean=127.5,std=127.5", "--quantize", "none"]
    assert main(["export", "nets:net", "--target", "onnx", "-o", str(tmp_path), *feed]) == 0
    capfd.readouterr()
    for words, message in (
        ((exported / f"{DEMO}.onnx", tmp_path / "net.onnx"), "only equal inputs can be compared"),
        ((exported / f"{DEMO}.onnx", tmp_path / "none.onnx"), "no artifact at"),
        ((exported / f"{DEMO}.onnx", tmp_path / "a.txt"), "is no artifact"),
    ):
        assert main(["compare", *map(str, words), *ON]) == 2
        assert message in capfd.readouterr().err


def refused(capfd, *words):
    """The one line on stderr of a command that must end with status 2."""
    capfd.readouterr()
    assert main(list(map(str, words))) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("edgecnn: error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("target", ["tflite", "onnx", "openvino"])
def test_broken_artifacts_are_one_line_in_every_command(exported, target, tmp_path, capfd):
    suffixes = {"tflite": ["tflite"], "onnx": ["onnx"], "openvino": ["xml", "bin"]}[target]
    for name in (*suffixes, f"{target}.json", "edgecnn"):
        shutil.copy(exported / f"{DEMO}.{name}", tmp_path)
    main_file, last = tmp_path / f"{DEMO}.{suffixes[0]}", tmp_path / f"{DEMO}.{suffixes[-1]}"
    commands = [["validate", main_file, "--data", "demo"], ["compare", main_file, exported / f"{DEMO}.onnx", *ON]]
    whole = last.read_bytes()
    last.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for words in commands:
        assert "is not the file that" in refused(capfd, *words), "the hash in its manifest"
    (tmp_path / f"{DEMO}.{target}.json").unlink()
    last.write_bytes(whole[: len(whole) // 2])
    for words in commands:
        assert str(tmp_path) in refused(capfd, *words) or target == "openvino", "truncated"
    last.write_bytes(whole)
    main_file.write_bytes((exported / f"{DEMO}.{'onnx' if target == 'tflite' else 'tflite'}").read_bytes())
    for words in commands:
        refused(capfd, *words)


@pytest.mark.parametrize(
    ("suffix", "library"), [("tflite", "ai_edge_litert"), ("onnx", "onnxruntime"), ("xml", "openvino")]
)
def test_a_runtime_that_is_not_installed_is_status_3(exported, suffix, library, monkeypatch, capfd):
    hidden = [library, *(name for name in sys.modules if name.startswith(f"{library}."))]
    for name in hidden:
        monkeypatch.setitem(sys.modules, name, None)
    capfd.readouterr()
    assert main(["compare", *(str(exported / f"{DEMO}.{s}") for s in (suffix, "edgecnn")), *ON]) == 3
    assert "pip install 'edgecnn[" in capfd.readouterr().err


def test_the_oracle_takes_the_arithmetic_of_any_runtime(exported, capfd):
    for suffix, arithmetic in (("tflite", "xnnpack"), ("onnx", "onnxruntime")):
        pair = (exported / f"{DEMO}.{suffix}", exported / f"{DEMO}.edgecnn")
        _, result = found(capfd, *pair, "--arithmetic", arithmetic)
        assert result["max_lsb"] <= ALIKE["max_lsb_of_runtimes"]
        assert f"the integer oracle rounds as {arithmetic} does" in " ".join(result["findings"])
    assert "unknown arithmetic 'mlas'" in refused(capfd, "compare", *pair, *ON, "--arithmetic", "mlas")


HARD_SWISH = """
from torch import nn
def net():
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Hardswish(), *pool, nn.Linear(8, 16))
"""


def test_a_float_op_in_an_int8_artifact_fails_unless_allowed(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(lowering.LOWERINGS, "hard_swish", lowering._unary("HardSwish"))
    (tmp_path / "swish.py").write_text(HARD_SWISH)
    monkeypatch.chdir(tmp_path)
    words = ["export", "swish:net", "--target", "onnx", "--calibration", "demo", "--calibration-images", "40"]
    words += ["--preprocess", "resize=48x48,mean=127.5,std=127.5", "--data", "demo", "--limit", "10"]
    assert main(words) == 1
    assert re.search(r"float_ops .*FAILED", capfd.readouterr().out)
    assert main([*words, "--allow-float", "--max-lsb", "2"]) == 0, "another kernel than the oracle's"
    (entry,) = json.loads((tmp_path / "out" / "report.json").read_text())["entries"]
    assert any("HardS" in op for op in entry["float_ops"])
    capfd.readouterr()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert main(words) == 0, "as it is written, it computes in integers"


def test_a_matrix_of_formats_and_precisions_survives_a_failing_cell(exported, tmp_path, capfd):
    capfd.readouterr()
    np.savez(tmp_path / "few.npz", x_train=images("calibration", range(20))[0])
    words = ["benchmark", str(exported / f"{DEMO}.edgecnn"), "mobilenet_v1", "--targets", "tflite,openvino"]
    words += ["--precisions", "fp32,int16x8,int8", "--calibration", f"{tmp_path / 'few.npz'}:train"]
    words += ["--data", "demo", "--limit", "20", "-o", str(tmp_path), "--json"]
    assert main(words) == 1
    cells = json.loads(capfd.readouterr().out)["entries"]
    assert len(cells) == 2 * 2 * 3
    ok = [c for c in cells if c["status"] == "ok"]
    assert {(c["target"], c["precision"]) for c in ok} == {
        *((t, p) for t in ("tflite", "openvino") for p in ("fp32", "int8")),
        ("tflite", "int16x8"),
    }
    for cell in ok:
        assert cell["images_per_s"] == pytest.approx(1000 / cell["median_ms"], rel=0.01)  # both are rounded
        assert cell["agreement"] >= 90
        assert cell["error"] == ""
    failed = {(c["model"], c["precision"]): c["error"] for c in cells if c["status"] == "failed"}
    assert "needs --weights FILE" in failed["mobilenet_v1", "int8"]
    assert "not written in int16x8" in failed[str(exported / f"{DEMO}.edgecnn"), "int16x8"]
    assert json.loads((tmp_path / "benchmark.json").read_text())["entries"] == cells
    assert (tmp_path / "benchmark.csv").read_text().count("\n") == 13
    assert main(["benchmark", DEMO, "--targets", "tflit", "--data", "demo"]) == 2
    assert "unknown target 'tflit'" in capfd.readouterr().err


@pytest.mark.parametrize(("a", "b"), list(combinations(FILES, 2)))
def test_layers_say_where_two_artifacts_part(exported, a, b, capfd):
    _, result = found(capfd, exported / f"{DEMO}.{a}", exported / f"{DEMO}.{b}", "--layers")
    layers = {layer["name"]: layer for layer in result["layers"]}
    graph = load(exported / f"{DEMO}.edgecnn")
    assert set(layers) >= {n.output for n in graph} - set(graph.outputs)
    assert layers[graph.nodes[0].output]["max_lsb"] == 0
    assert max(layer["max_lsb"] for layer in layers.values()) <= ALIKE[largest(a, b)]
    assert max(layer["mean_lsb"] for layer in layers.values()) <= ALIKE["layer_mean_lsb"]
    assert result["parts_at"] is None or layers[result["parts_at"]]["max_lsb"] > 0


def test_layers_find_the_changed_weight(exported, tmp_path, capfd):
    from dataclasses import replace

    graph = load(exported / f"{DEMO}.edgecnn")
    node = graph.nodes[5]
    tensor = graph.tensors[node.inputs[1]]
    save(graph.with_tensors(replace(tensor, integers=-tensor.integers)), tmp_path / "other.edgecnn")
    _, result = found(capfd, exported / f"{DEMO}.edgecnn", tmp_path / "other.edgecnn", "--layers")
    assert result["parts_at"] == node.output


@pytest.mark.parametrize("suffix", ["tflite", "onnx", "xml"])
def test_inspect_shows_every_format(exported, suffix, capfd):
    capfd.readouterr()
    rows = {}
    for name in (f"{DEMO}.edgecnn", f"{DEMO}.{suffix}"):
        assert main(["inspect", str(exported / name), "--json"]) == 0
        rows[name] = json.loads(capfd.readouterr().out)["entries"]
    graph, artifact = rows.values()
    assert sum(r["macs"] for r in artifact) == sum(r["macs"] for r in graph)
    assert sum(r["macs"] > 0 for r in artifact) == 53
    assert main(["inspect", str(exported / f"{DEMO}.{suffix}")]) == 0
    assert "MACs" in capfd.readouterr().out


def test_a_person_reads_a_card(exported, capfd):
    pair = [str(exported / f"{DEMO}.{suffix}") for suffix in ("tflite", "onnx")]
    capfd.readouterr()
    assert main(["compare", *pair, *ON[: ON.index("--json")]]) == 0
    verdict, *figures = capfd.readouterr().out.splitlines()
    assert verdict == "the same integers"
    assert figures[0].split() == ["A", pair[0]]
    assert figures[1].split() == ["B", pair[1]]
    assert re.search(r"agreement +100\.00 % of the images get the same class", "\n".join(figures))
