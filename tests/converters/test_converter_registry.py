"""The registries of converters and importers: what ships uses the same door as any package, and a row is light."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from graphs import random_graph

from edgecnn.errors import InputError
from edgecnn.graph.importers import EDGECNN, importer_of
from edgecnn.graph.serialize import save
from edgecnn_converters import registry
from edgecnn_converters.tflite import CONVERTER

HEAVY = ("torch", "tensorflow", "ai_edge_litert", "flatbuffers", "onnx", "onnxruntime", "openvino")
LIGHT = """
import sys
from edgecnn_converters.registry import converters
for row in converters().values():
    row.require("int8")
print(*(name for name in {names} if name in sys.modules))
"""


def test_a_row_imports_no_format_library():
    made = subprocess.run([sys.executable, "-c", LIGHT.format(names=HEAVY)], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == ""


def test_other_packages_converters_follow_edgecnns(monkeypatch):
    other = replace(CONVERTER, target="aaa", in_all=True)
    rows = {"aaa": other, **registry.converters()}
    monkeypatch.setattr(registry, "registry", lambda group, kind: rows)
    assert list(registry.converters()) == ["tflite", "onnx", "openvino", "c", "aaa"]
    assert registry.targets_of_all() == ("tflite", "onnx", "openvino", "aaa")
    assert registry.converter("aaa") is other


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precisions": ("int4",)}, "converter tflite: unknown precision 'int4'"),
        ({"refusals": {"int9": "no"}}, "unknown precision 'int9'"),
        ({"suffixes": ()}, "names no suffix"),
    ],
)
def test_a_wrong_row_says_what_is_wrong(changed, message):
    with pytest.raises(InputError, match=message):
        replace(CONVERTER, **changed)


@pytest.mark.parametrize("target", ["tflite", "onnx", "openvino", "c"])
@pytest.mark.parametrize("io", ["int8", "uint8", "int16", "float32"])
def test_a_row_says_which_input_and_output_types_convert_takes(target, io):
    row = registry.converter(target)
    if io in row.io["int8"]:
        assert row.convert(random_graph(0), precision="int8", io=io).input.dtype == io
    else:
        with pytest.raises(InputError, match="unknown input and output type"):
            row.convert(random_graph(0), precision="int8", io=io)


def test_a_plugin_is_named_after_its_target(monkeypatch):
    monkeypatch.setattr(registry, "registry", lambda group, kind: {"mine": CONVERTER})
    with pytest.raises(InputError, match="plugin 'mine' of edgecnn.converters writes 'tflite'"):
        registry.converters()


def test_a_target_that_is_none_is_named_with_what_there_is():
    with pytest.raises(InputError, match=r"unknown target 'tflit' \(did you mean 'tflite'"):
        registry.converter("tflit")


def test_edgecnns_own_file_is_read_by_an_importer(tmp_path):
    graph = random_graph(0)
    save(graph, tmp_path / "net.edgecnn")
    importer = importer_of(tmp_path / "net.edgecnn")
    assert importer is EDGECNN
    assert importer.read(tmp_path / "net.edgecnn").graph.nodes == graph.nodes
    assert importer_of(Path("mobilenet_v2")) is None
