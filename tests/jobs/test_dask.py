"""Jobs on a Dask cluster: the same outcomes as here, and what is wrong is said before anything runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import job_functions as functions
import pytest
from commands import DEMO, error_of

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'edgecnn[dask]'")
from edgecnn.errors import InputError
from edgecnn.jobs import Status, Task
from edgecnn.jobs.dask_executor import Cluster, DaskExecutor
from edgecnn.sweeping import cluster as sweep_cluster
from edgecnn.sweeping.cluster import Place, executor_of
from edgecnn.sweeping.spec import Engine

LOCAL = "dask.distributed.LocalCluster"
SCALE = Path(__file__).parents[2] / "benchmarks" / "sweep_scale.py"


@pytest.fixture(scope="module")
def executor():
    options = {"processes": False, "resources": {"pi": 1}}
    with DaskExecutor(Cluster(kind=LOCAL, options=options, workers=1)) as made:
        yield made


def test_outcomes_are_those_of_a_local_executor(executor, tmp_path):
    tasks = [
        Task(key="add", call=functions.add, arguments=(1, 2)),
        Task(key="refused", call=functions.refused),
        Task(key="faulty", call=functions.faulty),
        Task(key="killed", call=functions.killed, retries=1),
        Task(key="once", call=functions.killed_once, arguments=(tmp_path / "mark",), retries=1),
        Task(key="slow", call=functions.sleeping, timeout_s=0.3),
    ]
    for task in tasks:
        executor.submit(task)
    found = {}
    while len(found) < len(tasks):
        found |= {outcome.key: outcome for outcome in executor.completed(60)}
    assert {key: outcome.status for key, outcome in found.items()} == {
        "add": Status.OK, "refused": Status.ERROR, "faulty": Status.FAULT, "killed": Status.LOST, "once": Status.OK,
        "slow": Status.TIMEOUT,
    }  # fmt: skip
    assert (found["add"].value, found["once"].value) == (3, "done")
    assert found["killed"].attempts == 2


def checked(executor, places=()):
    """Check the workers of a cluster that runs."""
    executor_of(Engine(scheduler=executor.address), places).close()


def test_workers_that_fit(executor):
    checked(executor, [Place("host", "c", False, True)])


@pytest.mark.parametrize(
    ("place", "said"),
    [
        (Place("ssh://user@pi", "tflite", True, False), "no worker has the board ssh://user@pi; start one beside it"),
        (Place("host", "onnx", False, False), "worker .* cannot run host: pip install it; or start those that can"),
    ],
)
def test_a_device_that_no_worker_has(executor, place, said, monkeypatch):
    monkeypatch.setattr(sweep_cluster, "missing", lambda device, target: "pip install it" if target == "onnx" else None)
    with pytest.raises(InputError, match=said):
        checked(executor, [place])


def test_workers_of_another_version(executor, monkeypatch):
    versions = iter([{"edgecnn": "0.1.0"}, {"edgecnn": "0.2.0"}])
    monkeypatch.setattr(sweep_cluster, "library_versions", lambda: next(versions))
    with pytest.raises(InputError, match=r"^worker .* has edgecnn 0.1.0, and this is 0.2.0; start workers with"):
        checked(executor)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("scheduler = 'tcp://127.0.0.1:9'", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (
            "cluster = 'dask_nowhere.Cluster'",
            "dask_nowhere.Cluster cannot be imported: pip install dask-nowhere",
        ),
        ("cluster = 'dask.distributed.Nothing'", "dask.distributed has no Nothing"),
        (f"cluster = '{LOCAL}'\nscheduler = 'tcp://a:1'", "scheduler is one that runs, cluster makes one"),
        ("options = {a = 1}", "options are of a cluster"),
    ],
)
def test_an_engine_that_is_not_there_is_one_line(engine, said, tmp_path, capfd):
    (tmp_path / "sweep.toml").write_text(f"[axes]\nmodel = ['{DEMO}']\n[engine]\n{engine}")
    status = 3 if "nowhere" in engine else 2
    assert re.search(said, error_of(capfd, "sweep", tmp_path / "sweep.toml", "-o", tmp_path / "out", status=status))
    assert not (tmp_path / "out" / "sweep.json").exists()


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_when_workers_and_the_scheduler_are_killed(monkeypatch):
    spec = importlib.util.spec_from_file_location("sweep_scale", SCALE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(SCALE.parent)  # the script changes into its folder
    words = [
        "--jobs",
        "60",
        "--workers",
        "2",
        "--seconds",
        "0.1",
        "--kill-every",
        "2",
        "--kills",
        "2",
        "--restart-after",
        "3",
    ]
    found = module.main(words)
    assert (found["lost"], found["doubled"], found["wrong"]) == (0, 0, [])
    assert found["killed"]["schedulers"] == 1
    assert found["killed"]["workers"] >= 1
    assert max(found["driver_mib"]) - min(found["driver_mib"][1:]) < 20
