"""An import is compared with the runtime of its file; what float32 rounds away is no fault of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.graph import capture
from edgecnn.graph.builder import Builder
from edgecnn.graph.importers import Imported
from edgecnn.graph.ir import Constant, Metadata
from edgecnn.import_check import check_import


def cancelling() -> tuple[str, Imported]:
    """``(x + 1e5) - 1e5``, of which float32 keeps three digits; the reference has them all."""
    builder = Builder(channels_last=True)
    x = builder.input("x", (1, 50))
    made = builder.binary("add", builder.binary("add", x, 1e5), -1e5)
    graph = builder.graph([made], Metadata())
    (name,) = graph.outputs
    return name, Imported(graph=graph, reference=lambda values: {name: values["x"]})


def test_what_float32_rounds_away_is_no_difference():
    _, imported = cancelling()
    checked = check_import(imported, imported.graph)
    assert checked.text.endswith("; the network is that sensitive to float32 rounding")


def test_what_rounding_does_not_explain_is_one():
    name, imported = cancelling()
    wrong = Imported(graph=imported.graph, reference=lambda values: {name: values["x"] * 1.05})
    with pytest.raises(InputError, match="differs from the original runtime by"):
        check_import(wrong, wrong.graph)


def chaotic(wrong: float = 1.0) -> Imported:
    """Sixty times ``4 x (1 - x)``, which doubles what rounding loses; the reference rounds otherwise."""
    builder = Builder(channels_last=True)
    x = builder.input("x", (1, 50))
    for _ in range(60):
        x = builder.binary(
            "mul", builder.binary("mul", x, 4.0), builder.binary("add", builder.binary("mul", x, -1.0), 1.0)
        )
    graph = builder.graph([builder.binary("mul", x, 0.5)], Metadata())

    def reference(values):
        held = dict(values)
        factor = np.float32(wrong)
        for node in graph:
            first = held[node.inputs[0]]
            second = held[node.inputs[1]] if node.inputs[1] in held else graph.constant(node.inputs[1]).value
            made = first + second if node.op == "add" else first * second * factor
            held[node.output] = np.nextafter(made, np.float32(0))
        return held

    return Imported(graph=graph, reference=reference)


def test_a_network_that_amplifies_rounding_is_checked_op_by_op(monkeypatch):
    monkeypatch.setattr(
        "edgecnn.import_check.random_inputs",
        lambda graph: {"x": np.random.default_rng(0).uniform(0.1, 0.9, (1, 50)).astype(np.float32)},
    )
    checked = check_import(chaotic(), chaotic().graph)
    assert checked.differences is not None
    assert max(checked.differences.values()) > 0.1
    with pytest.raises(InputError, match="differs from the original runtime by"):
        check_import(chaotic(wrong=0.9999), chaotic().graph)


def test_a_graph_that_simplifying_changed_is_a_fault_of_ours(tmp_path, monkeypatch, capfd):
    def halved(graph):
        name, value = next((n, t.value) for n, t in graph.tensors.items() if n.endswith(".weight"))
        return replace(graph, tensors={**graph.tensors, name: Constant(name=name, value=value / 2)})

    (tmp_path / "plain_code.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(3, 4, 3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(capture, "simplified", halved)
    words = ["export", "plain_code:net", "--preprocess", "resize=8x8,mean=0,std=1", "--quantize", "none"]
    assert main(words) == 70
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("edgecnn: internal error: AssertionError: simplifying the graph changed output 'conv2d' by")
    assert "Traceback" in Path(line.split("report it with ")[1]).read_text()
    assert not (tmp_path / "out").exists()
