"""--dry-run: what would be done, what is missing and how long it takes are said, and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import DEMO

from edgecnn.cli import main
from edgecnn.planning import plan_export
from edgecnn_targets import registry
from edgecnn_targets.runtimes import litert

HELD = ["--weights", "demo", "--calibration", "demo", "--data", "demo"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(capfd, *words, status=0):
    """Return the plans that a command prints as JSON."""
    capfd.readouterr()
    assert main([*map(str, words), "--dry-run", "--json"]) == status
    return json.loads(capfd.readouterr().out)["entries"]


def test_the_files_that_are_named_are_those_that_are_written(exported, here, capfd):
    words = ["export", exported[0] / f"{DEMO}.edgecnn", "--target", "tflite,onnx,openvino,c", "-o", "out"]
    (plan,) = planned(capfd, *words)
    assert list(here.iterdir()) == [], "a plan writes nothing"
    assert main(list(map(str, words))) == 0
    assert set(plan["files"]) == {str(p.relative_to(here)) for p in here.rglob("*") if p.is_file()}
    assert plan["missing"] == []


def test_a_plan_says_stages_and_time(capfd):
    (plan,) = planned(capfd, "export", DEMO, *HELD, "--limit", "100", "--max-drop", "1", "--calibration-images", "50")
    does = {stage["name"]: stage["does"] for stage in plan["stages"]}
    assert list(does) == ["capture", "calibrate", "quantize", "convert", "validate"]
    assert "M MACs" in does["capture"]
    assert does["calibrate"] == "50 images of demo"
    assert does["quantize"].startswith("int8, recipe fast: input_quantization")
    assert does["validate"] == "100 images on host; --max-drop 1"
    assert plan["seconds"] == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]), rel=0.1)
    assert main(["export", DEMO, *HELD, "--dry-run"]) == 0
    shown = capfd.readouterr().out
    assert "(about " in shown
    assert "nothing was run or written" in shown


def test_more_images_take_longer(monkeypatch):
    monkeypatch.setattr("edgecnn.planning.inference_seconds", lambda network: 0.01)
    few, many = (plan_export(DEMO, weights="demo", calibration="demo", calibration_images=n) for n in (10, 100))
    seconds = [{stage.name: stage.seconds for stage in plan.stages} for plan in (few, many)]
    assert seconds[0]["calibrate"] < seconds[1]["calibrate"]
    assert seconds[0]["quantize"] < seconds[1]["quantize"]


def test_everything_that_is_missing_is_said_at_once(here, monkeypatch, capfd):
    monkeypatch.setattr(registry, "missing", lambda device, target: f"edgecnn devices setup {device.name}")
    words = ["export", "nosuch", "--calibration", "no/images", "--data", "no/val", "--device", "cortex-a72"]
    (plan,) = planned(capfd, *words, status=3)
    said = "\n".join(missing["text"] for missing in plan["missing"])
    for part in ("unknown model 'nosuch'", "no/images", "no/val", "edgecnn devices setup cortex-a72"):
        assert part in said, said
    assert {missing["status"] for missing in plan["missing"]} == {2, 3}
    assert plan["seconds"] is None
    assert list(here.iterdir()) == []


def test_a_missing_library_is_the_command_that_installs_it(monkeypatch, capfd):
    monkeypatch.setattr(litert.RUNTIME.__class__, "missing", lambda row: "pip install 'edgecnn[x]'", raising=True)
    (plan,) = planned(capfd, "export", DEMO, "--weights", "demo", "--calibration", "demo", status=3)
    assert any("pip install 'edgecnn[x]'" in missing["text"] for missing in plan["missing"])


def test_a_validation_is_planned_too(exported, capfd):
    path = exported[0] / f"{DEMO}.tflite"
    (plan,) = planned(capfd, "validate", path, "--data", "demo", "--limit", "40")
    assert [stage["name"] for stage in plan["stages"]] == ["validate"]
    assert plan["seconds"] > 0
    assert plan["files"] == []
    (plan,) = planned(capfd, "validate", "no.tflite", "--data", "demo", status=2)
    assert "no artifact at no.tflite" in plan["missing"][0]["text"]


def test_a_run_is_planned_network_by_network(exported, here, capfd):
    text = f"""
        [export]
        data = "demo"
        limit = 20
        [[network]]
        model = "{exported[0] / f"{DEMO}.edgecnn"}"
        [[network.validate]]
        device = "host"
        max_latency_ms = 5
        [[network]]
        model = "nosuch"
        quantize = "none"
        """
    Path("edgecnn.toml").write_text(text)
    export, again, failing = planned(capfd, "run", status=2)
    assert (export["does"], again["does"], failing["does"]) == ("export", "validate", "export")
    assert export["missing"] == again["missing"] == []
    assert again["stages"][0]["does"] == "20 images on host; --max-latency-ms 5"
    assert "unknown model 'nosuch'" in failing["missing"][0]["text"]
    assert [path.name for path in here.iterdir()] == ["edgecnn.toml"]
