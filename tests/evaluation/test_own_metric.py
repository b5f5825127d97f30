"""Figures of the user's own: what a function of outputs and references returns stands in the report and has limits."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import DEMO

from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.evaluation.own_metric import FP32, Gathered, figures, own_metrics

A, B = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


def distance(outputs, references):
    return {"distance": np.abs(outputs - references).max()}


def right(outputs, references, labels):
    return {"right": float((outputs.argmax(axis=1) == labels).mean())}


def test_figures_of_the_artifact_stand_beside_those_of_fp32():
    metrics, labels = own_metrics([distance, right]), np.array([1, 0])
    found = figures(metrics, A, B, labels) | figures(metrics, B, B, labels, prefix=FP32)
    assert found == {"distance": 1.0, "fp32_distance": 0.0, "right": 0.5, "fp32_right": 0.5}
    assert figures(own_metrics(right), A, None, np.array([1, 1])) == {"right": 1.0}


def test_outputs_are_joined_and_several_are_named():
    one, two = Gathered(), Gathered()
    for part in (A, B):
        one.add({"logits": part})
        two.add({"boxes": part, "scores": part[:, :1]})
    assert one.whole().shape == (4, 2)
    assert {name: values.shape for name, values in two.whole().items()} == {"boxes": (4, 2), "scores": (4, 1)}
    assert Gathered().whole() is None


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        (lambda outputs, references: 1 / 0, "raised ZeroDivisionError"),
        (lambda outputs, references: 0.5, "returned float '0.5'; return a mapping of names to numbers"),
        (lambda outputs, references: {}, "return a mapping of names to numbers"),
        (lambda outputs, references: {"a": "x"}, "return a mapping of names to numbers"),
        (lambda outputs, references: {"a": float("nan")}, "return finite numbers"),
        (lambda outputs, references: {"top1": 1.0}, "another figure's name"),
        (lambda: {"a": 1}, "raised TypeError"),
    ],
)
def test_a_metric_that_raises_or_returns_no_numbers_is_one_line(metric, said):
    with pytest.raises(InputError, match=said) as error:
        figures(own_metrics(metric), A, B, None)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [("nowhere:f", "cannot import"), ("json:nothing", "has no 'nothing'"), ("json", "give package.module:function"),
     ("json:decoder", "give a function")],
)  # fmt: skip
def test_a_metric_that_is_not_there_is_one_line(given, said):
    with pytest.raises(InputError, match=said):
        own_metrics(given)


def test_the_command_line_takes_one_with_a_limit(tmp_path, monkeypatch, capfd):
    (tmp_path / "own_distance.py").write_text(
        "import numpy as np\n"
        "def far(outputs, references):\n"
        "    assert outputs.shape == references.shape == (20, 16)\n"
        "    return {'far': np.abs(outputs - references).max()}\n"
    )
    monkeypatch.chdir(tmp_path)
    words = ["export", DEMO, "--weights", "demo", "--quantize", "none", "--data", "demo", "--limit", "20"]
    words += ["--metric", "own_distance:far", "-o", "out"]
    assert main([*words, "--require", "far<=0.001"]) == 0
    (entry,) = json.loads((tmp_path / "out" / "report.json").read_text())["entries"]
    assert 0 <= entry["accuracy"]["far"] <= 0.001
    assert entry["accuracy"]["fp32_far"] == 0
    assert {"name": "far", "passed": True}.items() <= entry["checks"][0].items()
    assert main([*words, "--require", "far>=1"]) == 1
    assert main([*words, "--require", "near>=1"]) == 2
    assert "unknown figure 'near'" in capfd.readouterr().err
