"""The model card as the Hub reads it, and pushing to the Hub, with a library that only writes down what it is asked."""

from __future__ import annotations

import sys
from inspect import signature
from types import SimpleNamespace

import pytest
from commands import DEMO, EXPORT, QUICK, error_of

from edgecnn.cli import main

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed; edgecnn[dev] has it")


@pytest.fixture
def hub(monkeypatch):
    """Stand in for huggingface_hub; `hub.calls` are its calls, `hub.error` is raised by an upload."""
    made = SimpleNamespace(calls=[], error=None)

    class HfApi:
        def create_repo(self, **given):
            made.calls.append(("create_repo", given))
            return f"https://hub/{given['repo_id']}"

        def upload_folder(self, **given):
            made.calls.append(("upload_folder", given))
            if made.error:
                raise made.error

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(HfApi=HfApi))
    return made


def export(folder, *options):
    return main([*EXPORT, *QUICK, "--recipe", "minmax", "--no-guard", "-o", str(folder), *options])


def card_of(folder):
    text = (folder / "README.md").read_text("utf-8")
    return yaml.safe_load(text.split("---\n")[1]), text


def test_a_card_has_the_metadata_of_the_hub_and_the_figures(tmp_path):
    options = ("--data", "demo", "--limit", "20", "--allow-loss", "--model-card", "--license", "apache-2.0")
    assert export(tmp_path / "out", *options) == 0
    head, text = card_of(tmp_path / "out")
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "edgecnn"
    assert head["tags"] == ["edgecnn", "quantized", "int8", "tflite"]
    assert (head["pipeline_tag"], head["metrics"]) == ("image-classification", ["accuracy"])
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert model["name"] == DEMO
    assert result["dataset"] == {"type": "demo", "name": "demo"}
    assert result["metrics"][0]["type"] == "accuracy"
    assert 0 <= result["metrics"][0]["value"] <= 100
    for said in (f"| {DEMO}.tflite | int8 |".replace("_", r"_"), "Recipe `minmax`", "16 classes: limit_3", "```sh"):
        assert said in text


LIBRARY = "huggingface_hub is not installed; edgecnn[hub] has it"


def test_the_library_of_the_hub_reads_the_card(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    library = pytest.importorskip("huggingface_hub", reason=LIBRARY)
    options = ("--data", "demo", "--limit", "20", "--allow-loss", "--model-card", "--license", "apache-2.0")
    assert export(tmp_path / "out", *options) == 0
    read = library.ModelCard.load(tmp_path / "out" / "README.md").data
    assert (read.license, read.library_name, read.pipeline_tag) == ("apache-2.0", "edgecnn", "image-classification")
    assert (read.tags, read.metrics) == (["edgecnn", "quantized", "int8", "tflite"], ["accuracy"])
    (result,) = read.eval_results
    assert (result.dataset_type, result.metric_type) == ("demo", "accuracy")
    assert read.model_name == DEMO
    assert 0 <= result.metric_value <= 100


@pytest.mark.parametrize("name", ["create_repo", "upload_folder"])
def test_the_library_of_the_hub_takes_what_is_asked_of_it(tmp_path, hub, name, monkeypatch):
    stand_in = sys.modules.pop("huggingface_hub")
    library = pytest.importorskip("huggingface_hub", reason=LIBRARY)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    assert export(tmp_path, "--push-to-hub", "me/net") == 0
    signature(getattr(library.HfApi, name)).bind(None, **dict(hub.calls)[name])


def test_without_figures_there_is_no_model_index_and_the_license_is_unknown(tmp_path):
    assert export(tmp_path / "out", "--model-card") == 0
    head, _ = card_of(tmp_path / "out")
    assert head["license"] == "unknown"
    assert "model-index" not in head


def test_a_readme_of_the_users_own_is_not_replaced_and_without_the_option_none_is_written(tmp_path, capfd):
    (tmp_path / "README.md").write_text("# my own\n")
    words = [*EXPORT, *QUICK, "-o", tmp_path, "--model-card"]
    assert f"README.md is not the card of {DEMO}" in error_of(capfd, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert export(tmp_path) == 0
    assert (tmp_path / "README.md").read_text() == "# my own\n"


def test_pushing_sends_what_was_written_and_nothing_else(tmp_path, hub, capfd):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "other.tflite").write_bytes(b"of another export")
    assert export(folder, "--push-to-hub", "me/net") == 0
    (_, created), (_, sent) = hub.calls
    assert created == {"repo_id": "me/net", "repo_type": "model", "exist_ok": True}
    assert sent["folder_path"] == str(folder)
    assert sorted(sent["allow_patterns"]) == sorted(
        ["README.md", f"{DEMO}.edgecnn", f"{DEMO}.tflite", f"{DEMO}.tflite.json"]
    )
    assert "pushed to https://hub/me/net" in capfd.readouterr().err
    assert export(folder, "--push-to-hub", "me/net") == 0, "its own card is replaced"


def test_what_failed_a_check_is_not_pushed(tmp_path, hub, capfd):
    assert export(tmp_path, "--push-to-hub", "me/net", "--max-latency-ms", "0.00001") == 1
    assert hub.calls == []
    assert "not pushed to me/net: a check failed" in capfd.readouterr().err


def test_a_hub_that_refuses_is_one_line(tmp_path, hub, capfd):
    hub.error = RuntimeError("401 Client Error\nUnauthorized")
    words = [*EXPORT, *QUICK, "--recipe", "minmax", "--no-guard", "-o", tmp_path, "--push-to-hub", "me/net"]
    assert "cannot push to me/net (401 Client Error Unauthorized); log in with `hf auth login`" in error_of(
        capfd, *words
    )
    assert "is no repository; give USER/NAME" in error_of(capfd, *[*words[:-1], "a b"])


def test_without_the_library_the_command_that_installs_it_is_said_before_work_starts(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    words = [*EXPORT, "-o", tmp_path / "out", "--push-to-hub", "me/net"]
    assert "pip install 'edgecnn[hub]'" in error_of(capfd, *words, status=3)
    assert not (tmp_path / "out").exists()
