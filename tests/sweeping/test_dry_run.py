"""A dry run of a sweep says what would be done, all that is missing and how long it takes, and writes nothing."""

from __future__ import annotations

import json
import sys

import pytest
from commands import DEMO

import edgecnn
from edgecnn.cli import main
from edgecnn.sweeping import cluster, plan
from edgecnn.sweeping.estimate import plan_sweep

FEW = "limit = 8\ncalibration_images = 8\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Work in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(capfd, here, text, *words, status=0):
    """Return the plan of a sweep file as JSON."""
    (here / "sweep.toml").write_text(text)
    capfd.readouterr()
    assert main(["sweep", "sweep.toml", "--dry-run", "--json", *words]) == status
    (found,) = json.loads(capfd.readouterr().out)["entries"]
    assert [path.name for path in here.iterdir() if path.is_file()] == ["sweep.toml"]
    assert not (here / "sweep").exists()
    return found


def said(found):
    return "\n".join(missing["text"] for missing in found["missing"])


def test_stages_time_and_what_is_left_out(here, capfd, monkeypatch):
    monkeypatch.setattr(plan, "_missing", lambda place, target: None)
    axes = f"[axes]\nmodel = ['{DEMO}']\nseed = [0, 1]\ndevice = ['host', 'cortex-m4']\ntarget = ['tflite', 'c']\n"
    found = planned(capfd, here, FEW + axes, "--workers", "2")
    does = {stage["name"]: stage["does"] for stage in found["stages"]}
    counts = {"capture": "1 jobs", "quantize": "2 jobs", "convert": "4 jobs", "validate": "6 jobs"}
    assert does == {"combinations": "6", **counts}
    assert found["left_out"] == ["2: cortex-m4 does not run tflite"]
    assert found["missing"] == []
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"]), rel=0.1)
    assert found["seconds"] > 2
    assert main(["sweep", "sweep.toml", "--dry-run"]) == 0
    shown = capfd.readouterr().out
    for part in ("sweep sweep.toml", "6 jobs (about ", "left out", "time", "nothing was run or written"):
        assert part in shown


def test_more_workers_take_less_time_and_times_on_a_clock_are_alone(monkeypatch):
    monkeypatch.setattr("edgecnn.sweeping.estimate.inference_seconds", lambda network: 0.1)
    keys = {"limit": 8, "calibration_images": 8, "axes": {"model": [DEMO], "seed": [0, 1]}}
    one, two = ({s.name: s.seconds for s in plan_sweep(keys, workers=n).stages} for n in (1, 2))
    assert two["quantize"] == pytest.approx(one["quantize"] / 2, rel=0.1)
    assert two["validate"] == one["validate"]


def test_everything_that_is_missing_is_said_at_once(here, capfd, monkeypatch):
    monkeypatch.setattr(plan, "_missing", lambda place, target: f"edgecnn devices setup {place}")
    text = (
        "data = 'no/val'\ncalibration = 'no/images'\nweights = {'*_v1_*' = 'no.safetensors', '*' = 'demo'}\n"
        f"[axes]\nmodel = ['{DEMO}', 'mobilenet_v1_0.25_64', 'nosuch', 'no.onnx']\n"
        "device = ['cortex-a72', 'cortex-z']\nrecipe = ['fats', 'minmax']\n"
    )
    found = planned(capfd, here, text, status=3)
    files = ("no/val", "no/images", "no.safetensors", "no.onnx")
    for part in (*files, "'nosuch'", "setup cortex-a72", "'cortex-z'", "'fats'"):
        assert part in said(found), said(found)
    assert len({missing["text"] for missing in found["missing"]}) == len(found["missing"])
    assert found["seconds"] is None


def test_weights_that_do_not_fit_end_their_combinations_only(here, capfd):
    from edgecnn.models.shipped import shipped_weights

    (here / "w").mkdir()
    (here / "w" / "other").write_bytes(shipped_weights(DEMO).read_bytes())
    text = f"{FEW}weights = {{'mobilenet_v1_0.25_64' = 'w/other', '*' = 'demo'}}\n[axes]\n"
    found = planned(capfd, here, f"{text}model = ['{DEMO}', 'mobilenet_v1_0.25_64']\n", status=1)
    (missing,) = found["missing"]
    assert (missing["status"], "w/other" in missing["text"]) == (1, True), missing
    assert found["stages"][0]["does"] == "2"


def test_what_is_done_takes_no_time(here, capfd, monkeypatch):
    monkeypatch.setattr("edgecnn.sweeping.store.Store.done", lambda store, digest: object())
    found = planned(capfd, here, f"{FEW}[axes]\nmodel = ['{DEMO}']\n")
    assert found["stages"][-1]["does"] == "1 jobs, 1 of them done before"
    assert found["seconds"] == 0


def test_a_sampler_that_learns_has_a_bound(here, capfd, monkeypatch):
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'edgecnn[sweep]'")
    text = f"{FEW}[axes]\nmodel = ['{DEMO}']\nseed = [0, 1, 2]\n[sampler]\nname = 'tpe'\n[budget]\njobs = 2\n"
    found = planned(capfd, here, text)
    assert [stage["does"] for stage in found["stages"]] == ["at most 2 of 3, which tpe chooses from results"]
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "pip install 'edgecnn[sweep]'" in said(planned(capfd, here, text, status=3))


def test_a_library_of_a_format_that_is_missing(here, capfd, monkeypatch):
    from edgecnn_targets.runtimes import litert

    monkeypatch.setattr(litert.RUNTIME.__class__, "missing", lambda row: "pip install 'edgecnn[x]'")
    found = planned(capfd, here, f"{FEW}[axes]\nmodel = ['{DEMO}']\n", status=3)
    assert "pip install 'edgecnn[x]'" in said(found)


def test_an_engine_that_is_not_there(here, capfd, monkeypatch):
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'edgecnn[dask]'")
    text = f"{FEW}[axes]\nmodel = ['{DEMO}']\n"
    found = planned(capfd, here, text, "--scheduler", "tcp://127.0.0.1:9", status=2)
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in said(found)
    found = planned(capfd, here, f"{text}[engine]\ncluster = 'dask_nowhere.Cluster'\nworkers = 2\n", status=3)
    assert "cluster dask_nowhere.Cluster cannot be imported: pip install dask-nowhere" in said(found)


def test_workers_are_asked_and_counted(here, capfd, monkeypatch):
    distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'edgecnn[dask]'")
    options = {"n_workers": 1, "threads_per_worker": 3, "processes": False, "dashboard_address": ":0"}
    text = f"{FEW}[axes]\nmodel = ['{DEMO}']\nseed = [0, 1, 2]\n"
    with distributed.LocalCluster(**options) as made:
        words = ("--scheduler", made.scheduler_address)
        assert planned(capfd, here, text, *words)["missing"] == []
        monkeypatch.setattr(cluster, "missing", lambda device, target: "pip install it")
        assert "cannot run host: pip install it" in said(planned(capfd, here, text, *words, status=2))


def test_the_estimate_grows_with_the_work_and_is_nothing_once_it_is_done(here):
    def seconds(images, models=(DEMO,)):
        keys = {"limit": images, "calibration_images": 16, "axes": {"model": list(models), "recipe": ["minmax"]}}
        return keys, plan_sweep(keys, output="out", workers=1).seconds

    keys, few = seconds(16)
    assert 0 < few < seconds(1600)[1]
    assert edgecnn.sweep(keys, output="out", workers=1, progress=edgecnn.Progress()).passed
    assert seconds(16)[1] == 0
