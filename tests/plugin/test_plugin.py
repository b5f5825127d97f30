"""A package of another's, installed beside edgecnn, adds to it; the commands use what it adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graphs import random_graph

from edgecnn.artifact import write_artifact
from edgecnn.graph.serialize import load
from edgecnn_converters.registry import converter

PACKAGE = Path(__file__).parent
BOARD = PACKAGE / "slow-board.toml"


@pytest.fixture(scope="module")
def edgecnn(tmp_path_factory):
    """Runs a command as a user does in whose environment the package is installed; the tests' own stays as it is."""
    site = tmp_path_factory.mktemp("site")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    words = [sys.executable, "-m", "pip", "install", *offline, "--target", str(site), str(PACKAGE)]
    subprocess.run(words, check=True)

    def run(*words):
        command = [sys.executable, "-m", "edgecnn", *map(str, words)]
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    return run


@pytest.fixture(scope="module")
def tflite(tmp_path_factory):
    emission = converter("tflite").convert(random_graph(0), precision="int8")
    return write_artifact(tmp_path_factory.mktemp("out"), "network", emission, random_graph(0).metadata)


def test_a_device_of_the_packages_kind_checks_an_artifact(edgecnn, tflite):
    done = edgecnn("validate", tflite, "--device", f"host,{BOARD}", "--max-latency-ms", "1e9", "--json")
    assert done.returncode == 0, done.stderr
    here, board = json.loads(done.stdout)["entries"]
    assert (here["device"], board["device"]) == ("host", "slow-board")
    assert board["latency"]["median_ms"] > 50 * here["latency"]["median_ms"] > 0


def test_its_converter_runtime_and_metric_are_used_by_the_command(edgecnn, tmp_path):
    words = ["--weights", "demo", "--calibration", "demo", "--calibration-images", "10", "-o", tmp_path]
    words += ["--recipe", "minmax"]
    checked = ["--data", "demo", "--limit", "10", "--require", "margin>=0.01", "--device", BOARD, "--json"]
    done = edgecnn("export", "mobilenet_v2_0.35_96", "--target", "oracle", *words, *checked)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)["entries"]
    assert (tmp_path / "mobilenet_v2_0.35_96.oracle").is_file()
    assert (entry["target"], entry["parity"]["max_lsb"]) == ("oracle", 0)
    assert entry["accuracy"]["margin"] >= 0.01
    assert [check["name"] for check in entry["checks"]][:1] == ["margin"]
    path = tmp_path / "mobilenet_v2_0.35_96.oracle"
    assert "conv2d" in edgecnn("inspect", path).stdout
    failed = edgecnn("validate", path, "--data", "demo", "--limit", "4", "--require", "margin>=1e6")  # on the host
    assert failed.returncode == 1, failed.stderr


def test_its_step_runs_where_a_recipe_has_it(edgecnn, tmp_path):
    shown = edgecnn("recipes", "show", "fast").stdout
    clipping = '[[step]]\nname = "weight_clipping"\ndeviations = 2.0\nlayers = "features.1.*"\n\n'
    at = shown.index("[[step]]", shown.index('name = "input_quantization"'))  # before the next step, with its comment
    start = shown.rindex("\n\n", 0, at) + 2
    (tmp_path / "clipped.toml").write_text(shown[:start] + clipping + shown[start:])
    words = ["--weights", "demo", "--calibration", "demo", "--calibration-images", "10"]
    integers = {}
    for recipe in ("fast", tmp_path / "clipped.toml"):
        out = tmp_path / Path(recipe).stem
        done = edgecnn("export", "mobilenet_v2_0.35_96", "--target", "tflite", *words, "--recipe", recipe, "-o", out)
        assert done.returncode == 0, done.stderr
        integers[Path(recipe).stem] = load(out / "mobilenet_v2_0.35_96.edgecnn")
    plain, clipped = integers.values()
    named = [row["name"] for row in clipped.metadata.quantization["recipe"]["steps"]]
    assert named[:2] == ["input_quantization", "weight_clipping"]
    changed = {
        node.source
        for node in plain
        if node.spec.weighted
        and not np.array_equal(plain.tensors[node.inputs[1]].value, clipped.tensors[node.inputs[1]].value)
    }
    assert changed
    without = edgecnn_alone("recipes", "show", tmp_path / "clipped.toml")
    assert without.returncode == 2
    assert "unknown step 'weight_clipping'" in without.stderr


def edgecnn_alone(*words):
    """A command as a user runs it who has not installed the package."""
    command = [sys.executable, "-m", "edgecnn", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_its_settings_are_validated_as_those_of_a_kind_that_ships(edgecnn, tflite, tmp_path):
    (tmp_path / "b.toml").write_text(BOARD.read_text().replace("times = 1000", "time = 3"))
    done = edgecnn("validate", tflite, "--device", tmp_path / "b.toml", "--max-latency-ms", "1e9")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "unknown setting 'time' (did you mean 'times'?)" in line


def test_without_the_package_its_kind_is_unknown(tflite):
    words = [sys.executable, "-m", "edgecnn", "validate", str(tflite), "--device", str(BOARD), "--max-latency-ms", "1"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "unknown kind 'slower'; allowed: adb, cortex-m, host" in line
