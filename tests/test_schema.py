"""Every JSON document is what the published schema says, and figures are rounded to what they mean."""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path

import pytest
from commands import DEMO

import edgecnn
from edgecnn.cli import _parser, main
from edgecnn.cli.documents import documents, schema
from edgecnn.report.document import Envelope, document, rounded
from edgecnn.report.record import Accuracy, Check

jsonschema = pytest.importorskip("jsonschema", reason="validates JSON documents; pip install 'edgecnn[dev]'")

FILE = Path(edgecnn.__file__).parent / "report" / "schema.json"


def printed(capfd, *words, status=0):
    """Return the document that a command prints, after it was validated against the published schema."""
    capfd.readouterr()
    assert main([*map(str, words), "--json"]) == status
    found = json.loads(capfd.readouterr().out)
    jsonschema.validate(found, json.loads(FILE.read_text()), jsonschema.Draft202012Validator)
    return found


def leaves(parser, words=()):
    """Yield the words and the parser of each command, and of each action inside it."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, own in ((n, p) for action in inner for n, p in action.choices.items()):
        yield from leaves(own, (*words, name))
    if not inner:
        yield " ".join(words), parser


def test_the_published_schema_is_made_of_the_records(capfd):
    assert json.loads(FILE.read_text()) == schema(), "run: edgecnn schema > edgecnn/report/schema.json"
    assert main(["schema"]) == 0
    assert capfd.readouterr().out == FILE.read_text()
    jsonschema.Draft202012Validator.check_schema(schema())


def test_every_command_with_json_has_a_document():
    with_json = {words for words, parser in leaves(_parser()[0]) if "--json" in parser._option_string_actions}
    assert with_json <= set(documents()), "add the command to edgecnn/cli/documents.py"


LISTS = [
    "models",
    "models show resnet18",
    "models ops onnx",
    "targets",
    "targets show onnx",
    "devices",
    "devices show host",
    "recipes",
    "recipes show fast",
]


@pytest.mark.parametrize("words", [*LISTS, "doctor", f"inspect {DEMO}", "scale show --family resnet20", "study blocks"])
def test_what_needs_no_images_is_as_the_schema_says(words, capfd):
    found = printed(capfd, *words.split())
    assert list(found)[: len(Envelope.__dataclass_fields__)] == list(Envelope.__dataclass_fields__)
    assert found["command"] in words
    assert found["version"] == edgecnn.__version__
    assert datetime.fromisoformat(found["date"]).utcoffset().total_seconds() == 0


def test_reports_are_as_the_schema_says(exported, tmp_path, capfd):
    folder, _ = exported
    source, artifact = folder / f"{DEMO}.edgecnn", folder / f"{DEMO}.tflite"
    found = printed(capfd, "export", source, "--target", "onnx", "-o", tmp_path, "--data", "demo", "--limit", "10")
    assert json.loads((tmp_path / "report.json").read_text()) == found
    printed(capfd, "validate", artifact, "--data", "demo", "--limit", "20", "--max-drop", "-50", status=1)
    printed(capfd, "compare", artifact, tmp_path / f"{DEMO}.onnx", "--data", "demo", "--limit", "5", "--layers")
    words = ["benchmark", source, "--targets", "tflite", "--precisions", "int8", "-o", tmp_path / "b"]
    found = printed(capfd, *words, "--data", "demo", "--limit", "20")
    assert json.loads((tmp_path / "b" / "benchmark.json").read_text()) == found
    (tmp_path / "c.toml").write_text(f"[[network]]\nmodel = '{source}'\n[[network]]\nmodel = 'nosuch'")
    printed(capfd, "run", "--config", tmp_path / "c.toml", "-o", tmp_path / "c", status=2)
    printed(capfd, "run", "--config", tmp_path / "c.toml", "--dry-run", status=2)
    printed(capfd, "inspect", source, "--sensitivity", "--data", "demo", "--limit", "4")


def test_training_is_as_the_schema_says(tmp_path, capfd):
    words = ["train", "mobilenet_v1_0.25_32", "--data", "demo", "--images", "32", "--val-images", "16", "--epochs", "1"]
    printed(capfd, *words, "--batch", "16", "-o", tmp_path / "w.safetensors")


@pytest.mark.parametrize("change", [{"top2": 1}, {"entries": [{"model": "m"}]}, {"host": {}}, {"schema_version": 2}])
def test_the_schema_refuses_what_is_not_its(change):
    made = {**document("export", {"entries": []}), **change}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, schema())


def test_figures_are_rounded_to_what_they_mean():
    given = {"top1": 91.23456, "drop_ci95": (-1.23456, 0.004), "sqnr_db": 31.4159, "scale": 0.0123456789, "n": 7}
    assert rounded(given) == {**given, "top1": 91.23, "drop_ci95": [-1.23, 0.0], "sqnr_db": 31.42}
    assert rounded({"latency": {"median_ms": 1.23456, "p90_ms": 123.456}}) == {
        "latency": {"median_ms": 1.23, "p90_ms": 123.0}
    }
    found = Accuracy(n=3, top1=66.66667, metrics={"cosine": 0.99998765, "drop_of_mine": 12345678.0}).to_json()
    assert (found["top1"], found["cosine"], found["drop_of_mine"]) == (66.67, 0.999988, 12345700.0)


def test_a_rounded_figure_does_not_contradict_its_check():
    missed = Check.at_most("drop", 1.004, 1.0, "points").to_json()
    assert (missed["value"], missed["passed"]) == (1.004, False)
    held = Check.at_most("drop", 0.996, 1.0, "points").to_json()
    assert (held["value"], held["passed"]) == (1.0, True)
