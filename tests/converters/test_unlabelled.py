"""The precision of a file that does not say it is seen from the types in it, in every format."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from graphs import random_graph
from int8_builder import float_graph, weight_only_graph

from edgecnn_converters.metadata import KEY
from edgecnn_converters.registry import converter

FORMS = {"int8": lambda g: g, "fp32": float_graph, "fp16": float_graph, "w8": weight_only_graph}


def without_notes(target, files):
    """The files without what the writer noted of the network."""
    if target == "onnx":
        import onnx

        model = onnx.ModelProto.FromString(files[".onnx"])
        assert KEY in {p.key for p in model.metadata_props}
        del model.metadata_props[:]
        return {".onnx": model.SerializeToString()}
    root = ElementTree.fromstring(files[".xml"])
    notes = root.find("rt_info")
    notes.remove(notes.find(KEY))
    return {**files, ".xml": ElementTree.tostring(root)}


@pytest.mark.parametrize("precision", FORMS)
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_the_precision_of_a_file_that_does_not_say_is_seen(target, precision, tmp_path):
    row = converter(target)
    for seed in (2, 5):
        files = without_notes(target, row.convert(FORMS[precision](random_graph(seed)), precision=precision).files)
        for suffix, data in files.items():
            (tmp_path / f"net{suffix}").write_bytes(data)
        _, found, metadata = row.described(tmp_path / f"net{row.suffixes[0]}")
        assert (found, metadata) == (precision, None)
