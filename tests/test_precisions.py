"""int16x8 and --mixed from end to end: what runs, what is refused, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from edgecnn.artifact import read_manifest
from edgecnn.cli import main
from edgecnn.graph.serialize import load
from edgecnn.quant.promotion_search import fewest
from edgecnn.quant.recipe import recipe as named
from edgecnn_converters.tflite.reader import read
from edgecnn_targets.runtimes.litert import LiteRtSession

DEMO = "mobilenet_v2_0.35_96"
TARGETS = ["tflite", "onnx", "openvino"]
PREPROCESS = "resize=12x12,crop=none,mean=127.5,std=127.5"


class Hurt(torch.nn.Module):
    """Two classes of images that differ faintly, read through an activation with a channel 3,000 times the others.

    The loud channel carries nothing, and no weight can be moved across the addition to quieten it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 4, 1)
        self.second = torch.nn.Conv2d(3, 4, 1)
        self.last = torch.nn.Conv2d(4, 4, 3, padding=1)
        self.head = torch.nn.Linear(4, 2)
        with torch.no_grad():
            for conv, share in ((self.first, 0.5), (self.second, 0.5)):
                conv.weight.zero_()
                conv.bias.zero_()
                conv.weight[:3, :, 0, 0] = share * torch.eye(3)
                conv.weight[3, :, 0, 0] = 3000 * share
            self.last.weight.zero_()
            self.last.bias.zero_()
            for channel in range(3):
                self.last.weight[channel, channel, 1, 1] = 1.0
            self.head.weight.copy_(torch.tensor([[1.0, -1.0, 0, 0], [-1.0, 1.0, 0, 0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head(self.last(self.first(x) + self.second(x)).mean((2, 3)))


def hurt():
    return Hurt()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """40 images; red is a little above green in the first class, and below it in the other."""
    made = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for label, sign in (("a", 1), ("b", -1)):
        (made / label).mkdir()
        for i in range(20):
            pixels = rng.integers(40, 216, (12, 12, 1)) + np.array([sign * 12, -sign * 12, 0])
            Image.fromarray(pixels.astype(np.uint8)).save(made / label / f"{i}.png")
    return made


@pytest.fixture(scope="module")
def mixed(folder, tmp_path_factory):
    """(report entries, folder) of the hurt network in all formats, with --mixed."""
    out = tmp_path_factory.mktemp("mixed")
    assert main([*words(folder, out), "--target", "all", "--mixed", "--max-drop", "5", "--allow-loss"]) == 0
    return json.loads((out / "report.json").read_text())["entries"], out


def kept(graph):
    """Return what the recorded recipe keeps in 16 bits."""
    rows = graph.metadata.quantization["recipe"]["steps"]
    (keep,) = (row["keep"] for row in rows if row["name"] == "int16_promotion")
    return keep


def words(folder, out):
    given = ["export", "test_precisions:hurt", "--preprocess", PREPROCESS, "--recipe", "minmax", "-o", str(out)]
    return [*given, "--calibration", str(folder), "--data", str(folder)]


def test_one_bad_layer_makes_int8_miss_the_limit(folder, tmp_path):
    for target in TARGETS:
        assert main([*words(folder, tmp_path), "--target", target, "--max-drop", "5"]) == 1
        (entry,) = json.loads((tmp_path / "report.json").read_text())["entries"]
        assert entry["accuracy"]["drop"] > 20


def test_mixed_holds_it_with_one_activation_kept_in_every_format(mixed):
    entries, out = mixed
    assert [e["target"] for e in entries] == TARGETS
    for entry in entries:
        assert entry["accuracy"]["drop"] <= 5
        assert all(check["passed"] for check in entry["checks"])
        assert any("kept in 16 bits, or in float" in finding["text"] for finding in entry["findings"])
        assert any("ms beside" in finding["text"] for finding in entry["findings"])
        assert bool(entry["float_ops"]) == (entry["target"] != "tflite")
    graph = load(out / "hurt.edgecnn")
    assert 1 <= len(kept(graph)) <= 2
    assert graph.precision == "int8"
    manifest = read_manifest(out / "hurt.onnx", "onnx")
    assert manifest.metadata.quantization["recipe"] == graph.metadata.quantization["recipe"]
    assert set(graph.kept) <= set(manifest.metadata.quantization["kept"])


def test_what_is_kept_runs_in_16_bits_and_the_rest_in_8(mixed):
    _, out = mixed
    model = read((out / "hurt.tflite").read_bytes())
    types = {tensor.dtype for tensor in model.tensors}
    assert {"int8", "int16", "int64"} <= types
    assert not {t for t in types if t.startswith("float")}
    assert [op.name for op in model.ops].count("QUANTIZE") >= 2
    session = LiteRtSession(out / "hurt.tflite")
    assert any("16-bit activations" in finding for finding in session.findings)
    assert {op.requested_kernels for op in session.ops} == {True, False}
    exact = json.loads((out / "report.json").read_text())["entries"][0]["parity"]
    assert exact["max_lsb"] <= 1


def test_a_mixed_network_is_emitted_again_as_it_was(mixed, tmp_path):
    _, out = mixed
    for target, suffix in (("tflite", ".tflite"), ("onnx", ".onnx"), ("openvino", ".bin")):
        assert main(["export", str(out / "hurt.edgecnn"), "--target", target, "-o", str(tmp_path)]) == 0
        assert (tmp_path / f"hurt{suffix}").read_bytes() == (out / f"hurt{suffix}").read_bytes()
    assert (
        main(["export", str(out / "hurt.edgecnn"), "--target", "onnx", "--quantize", "none", "-o", str(tmp_path)]) == 0
    )
    assert not [n for n in load(tmp_path / "hurt.edgecnn") if n.op == "requantize"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([], "pass --max-drop POINTS and --data DIR"),
        (["--max-drop", "1"], "--max-drop needs labelled images"),
        (["--data", "demo"], "pass --max-drop POINTS and --data DIR"),
        (["--quantize", "w8", "--max-drop", "1", "--data", "demo"], "--mixed is for --quantize int8"),
        (["--quantize", "fp16", "--max-drop", "1", "--data", "demo"], "--mixed is for --quantize int8"),
        (["--quantize", "int16x8", "--max-drop", "1", "--data", "demo"], "int16x8"),
    ],
)
def test_mixed_without_what_it_needs_is_one_line(extra, message, tmp_path, capfd):
    given = ["export", DEMO, "--target", "tflite", "--weights", "demo", "--mixed", "-o", str(tmp_path), *extra]
    if not {"w8", "fp16"} & set(extra):
        given += ["--calibration", "demo"]
    assert main(given) == 2
    err = capfd.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("bad", "wanted"), [({"c"}, ("c",)), ({"a", "d"}, ("a", "d")), ({"a"}, ("a",)), ({"a", "b", "c", "d", "e"}, None)]
)
def test_the_fewest_are_kept(bad, wanted):
    def holds(keep):
        return bad <= set(keep)

    assert fewest("abcd", holds) == (wanted if bad <= set("abcd") else None)


def test_a_recipe_can_say_what_to_keep(folder, tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text(named("minmax").with_settings("int16_promotion", keep="nothing").to_toml())
    given = [*words(folder, tmp_path), "--target", "tflite", "--recipe", str(recipe)]
    assert main(given) == 2
    assert main([*given, "--mixed", "--max-drop", "1"]) == 2


def test_int16x8_from_end_to_end(folder, tmp_path):
    given = [*words(folder, tmp_path), "--target", "tflite", "--quantize", "int16x8", "--max-drop", "0"]
    assert main(given) == 0
    (entry,) = json.loads((tmp_path / "report.json").read_text())["entries"]
    assert entry["precision"] == "int16x8"
    assert entry["parity"]["max_lsb"] == 0
    assert entry["accuracy"]["sqnr_db"] > 40
    assert any("LiteRT's built-in kernels run" in finding["text"] for finding in entry["findings"])
    session = LiteRtSession(tmp_path / "hurt.tflite")
    assert session.input.dtype == session.output.dtype == "int16"
    assert not any(op.requested_kernels for op in session.ops)
    words_again = ["export", str(tmp_path / "hurt.edgecnn"), "--target", "tflite", "--quantize", "int16x8"]
    assert main([*words_again, "--io", "float32", "-o", str(tmp_path / "float")]) == 0
    assert LiteRtSession(tmp_path / "float" / "hurt.tflite").input.dtype == "float32"
    before = (tmp_path / "hurt.tflite").read_bytes()
    assert main([*words_again, "-o", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "hurt.tflite").read_bytes() == before


def test_targets_show_the_matrix(capfd):
    assert main(["targets"]) == 0
    shown = capfd.readouterr().out
    assert "int16x8" in shown
    assert main(["targets", "show", "onnx"]) == 0
    assert "ONNX Runtime computes in float" in capfd.readouterr().out
    assert main(["targets", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)["entries"]}
    assert "int16x8" in rows["tflite"]["precisions"]
    assert rows["openvino"]["refusals"]["int16x8"].startswith("OpenVINO's CPU plugin")


@pytest.mark.parametrize(("dtype", "fused"), [("uint8", True), ("int16", False)])
def test_onnx_runtime_computes_in_float_between_16_bit_conversions(dtype, fused, tmp_path):
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    stored = {
        "s": np.float32(0.01),
        "z": np.array(0, dtype),
        "w": np.ones((8, 8, 3, 3), np.int8),
        "ws": np.full(8, 0.01, np.float32),
        "wz": np.zeros(8, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0),
        helper.make_node("Conv", ["xd", "wd"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["yq"]),
        helper.make_node("DequantizeLinear", ["yq", "s", "z"], ["o"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [1, 8, 9, 9]), ("o", None))]
    graph = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(v, k) for k, v in stored.items()]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "made.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = {node.op_type for node in onnx.load(tmp_path / "made.onnx").graph.node}
    assert ("QLinearConv" in kinds, "Conv" in kinds) == (fused, not fused)


@pytest.mark.parametrize(("levels", "kind"), [(256, "u8"), (65536, "f32")])
def test_openvino_computes_in_float_after_65536_levels(levels, kind):
    import openvino
    from openvino import opset8 as ops

    x = ops.parameter([1, 8, 9, 9], np.float32)
    reach = np.float32(3.2)
    fed = ops.fake_quantize(x, -reach, reach, -reach, reach, levels)
    weight = ops.convert(ops.constant(np.ones((8, 8, 3, 3), np.int8)), "f32")
    scaled = ops.multiply(weight, ops.constant(np.full((8, 1, 1, 1), 0.01, np.float32)))
    made = ops.convolution(fed, scaled, [1, 1], [0, 0], [0, 0], [1, 1])
    out = ops.fake_quantize(made, -reach, reach, -reach, reach, levels)
    model = openvino.Model([ops.result(out)], [x], "m")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    found = [i["runtimePrecision"].astype(str) for i in infos if i["layerType"].astype(str) == "Convolution"]
    assert found == [kind]


def test_layers_of_a_wide_network_are_compared_in_its_own_steps(folder, tmp_path, capfd):
    given = [*words(folder, tmp_path), "--target", "tflite", "--quantize", "int16x8"]
    assert main(given) == 0
    capfd.readouterr()
    pair = [str(tmp_path / "hurt.tflite"), str(tmp_path / "hurt.edgecnn")]
    assert main(["compare", *pair, "--data", str(folder), "--layers", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["same_integers"] is True
    assert found["max_lsb"] == 0
