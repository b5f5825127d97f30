"""Jobs on a Dask cluster: the same outcomes as here, and what is wrong is said before anything runs."""

from __future__ import annotations

import importlib.util
import os
import random
import re
import signal
import sys
import threading
import types
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
from edgecnn.sweeping.run import Loop
from edgecnn.sweeping.spec import Engine, read_sweep
from edgecnn.sweeping.stages import Stage
from edgecnn.sweeping.store import Store

LOCAL = "dask.distributed.LocalCluster"
BOARD = "ssh://pi@board"
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


@pytest.fixture(scope="module")
def mixed():
    """A cluster of two workers, of which one is beside a board; each has two threads."""
    from distributed import Nanny, Scheduler, SpecCluster

    def worker(name, resources):
        return {"cls": Nanny, "options": {"nthreads": 2, "env": {"EDGECNN_TEST": name}, "resources": resources}}

    workers = {"bench": worker("bench", {BOARD: 1}), "plain": worker("plain", {})}
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0"}}
    with SpecCluster(workers=workers, scheduler=scheduler) as made:
        yield made


def test_a_board_takes_one_job_at_a_time_and_other_jobs_go_anywhere(mixed, tmp_path):
    tasks = [
        Task(key=f"b{k}", call=functions.beside, arguments=(tmp_path, 0.5), resource=BOARD, board=True)
        for k in range(4)
    ]
    tasks += [Task(key=f"f{k}", call=functions.where) for k in range(4)]
    with executor_of(Engine(scheduler=mixed.scheduler_address), [Place(BOARD, "tflite", True, False)]) as executor:
        for task in tasks:
            executor.submit(task)
        found = {}
        while len(found) < len(tasks):
            found |= {outcome.key: outcome for outcome in executor.completed(60)}
    assert {outcome.status for outcome in found.values()} == {Status.OK}
    assert {found[f"b{k}"].value for k in range(4)} == {("bench", 1)}
    with pytest.raises(
        InputError, match="no worker has the board ssh://pi@other; start one beside it with --resources"
    ):
        executor_of(Engine(scheduler=mixed.scheduler_address), [Place("ssh://pi@other", "tflite", True, False)])


def test_a_sweep_for_a_board_that_no_worker_has_is_one_line_before_anything_runs(mixed, tmp_path, capfd):
    (tmp_path / "sweep.toml").write_text(f"[axes]\nmodel = ['{DEMO}']\ndevice = ['ssh://pi@other']\n")
    words = ("sweep", tmp_path / "sweep.toml", "-o", tmp_path / "out", "--scheduler", mixed.scheduler_address)
    assert "no worker has the board ssh://pi@other" in error_of(capfd, *words)
    assert not (tmp_path / "out" / "sweep.json").exists()


def test_workers_of_another_version(executor, monkeypatch):
    versions = iter([{"edgecnn": "0.1.0"}, {"edgecnn": "0.2.0"}])
    monkeypatch.setattr(sweep_cluster, "library_versions", lambda: next(versions))
    with pytest.raises(InputError, match=r"^worker .* has edgecnn 0.1.0, and this is 0.2.0; start workers with"):
        checked(executor)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ("scheduler = 'tcp://127.0.0.1:9'", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("scheduler = 'no.json'", "there is no scheduler file no.json; start one with `dask scheduler"),
        (
            "cluster = 'dask_nowhere.Cluster'",
            "dask_nowhere.Cluster cannot be imported: pip install dask-nowhere",
        ),
        ("cluster = 'dask.distributed.Nothing'", "dask.distributed has no Nothing"),
        (f"cluster = '{LOCAL}'\noptions = {{ nonsense = 1 }}\nworkers = 1", "unexpected keyword argument 'nonsense'"),
        (f"cluster = '{LOCAL}'\nscheduler = 'tcp://a:1'", "scheduler is one that runs, cluster makes one"),
        ("options = {a = 1}", "options are of a cluster"),
    ],
)
def test_an_engine_that_is_not_there_is_one_line(engine, said, tmp_path, capfd):
    (tmp_path / "sweep.toml").write_text(f"[axes]\nmodel = ['{DEMO}']\n[engine]\n{engine}")
    status = 3 if "nowhere" in engine else 2
    assert re.search(said, error_of(capfd, "sweep", tmp_path / "sweep.toml", "-o", tmp_path / "out", status=status))
    assert not (tmp_path / "out" / "sweep.json").exists()


@pytest.mark.parametrize("name", ["SSHCluster", "SLURMCluster"])
def test_a_cluster_is_made_of_the_class_and_options_that_the_file_names(name, executor, tmp_path, monkeypatch):
    from distributed.core import Status as CoreStatus

    seen = {}

    class Fake:
        """Stands for a class that starts workers elsewhere; gives the cluster that runs."""

        def __init__(self, **options):
            seen["options"] = options
            self.scheduler_address, self.status = executor.address, CoreStatus.running

        def scale(self, workers):
            seen["workers"] = workers

        def close(self, *_, **__):
            seen["closed"] = True

    module = types.ModuleType("dask_fake")
    setattr(module, name, Fake)
    monkeypatch.setitem(sys.modules, "dask_fake", module)
    file = tmp_path / "sweep.toml"
    file.write_text(
        f"[axes]\nmodel = ['{DEMO}']\n[engine]\ncluster = 'dask_fake.{name}'\nworkers = 3\nwait_s = 5\n"
        "[engine.options]\nqueue = 'cpu'\nwalltime = '02:00:00'\n"
    )
    with executor_of(read_sweep(file).engine, [Place("host", "c", False, False)]) as made:
        made.submit(Task(key="add", call=functions.add, arguments=(1, 2)))
        assert [outcome.value for outcome in made.completed(60)] == [3]
    assert seen == {"options": {"queue": "cpu", "walltime": "02:00:00"}, "workers": 3, "closed": True}


def test_a_scheduler_without_workers_is_one_line(tmp_path, monkeypatch, capfd):
    from distributed import LocalCluster

    monkeypatch.setattr("edgecnn.jobs.dask_executor.CONNECT_S", 1)
    (tmp_path / "sweep.toml").write_text(f"[axes]\nmodel = ['{DEMO}']\n")
    with LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as made:
        words = ("sweep", tmp_path / "sweep.toml", "-o", tmp_path / "out", "--scheduler", made.scheduler_address)
        said = error_of(capfd, *words)
        assert f"the scheduler {made.scheduler_address} has no workers; start some with `dask worker" in said


def test_workers_that_are_all_gone_are_one_line():
    from distributed import LocalCluster

    options = {"n_workers": 1, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as made:
        given = DaskExecutor(Cluster(scheduler=made.scheduler_address, options={}, wait_s=1))
        made.scale(0)
        given.submit(Task(key="sleeping", call=functions.sleeping))
        with given, pytest.raises(InputError, match="has no workers any more; results are kept: start some with"):
            given.completed(60)


@pytest.mark.slow
def test_nothing_is_lost_when_workers_of_a_cluster_in_this_process_are_killed(tmp_path):
    import dask
    from distributed import LocalCluster

    marks = tmp_path / "marks"
    marks.mkdir()
    settings = [{"name": str(k), "marks": str(marks), "number": k, "seconds": 0.2} for k in range(60)]
    wanted = [Stage("job_functions:simulated", each["name"], each) for each in settings]
    chance, killed, over = random.Random(0), [], threading.Event()
    options = {"n_workers": 3, "threads_per_worker": 1, "dashboard_address": ":0"}
    many = dask.config.set({"distributed.scheduler.allowed-failures": 20})
    with (
        many,
        LocalCluster(**options) as made,
        DaskExecutor(Cluster(scheduler=made.scheduler_address, options={})) as given,
    ):

        def kill():
            while not over.wait(2) and len(killed) < 5:
                if len(given.client.nthreads()) == 3:  # Dask gives up a worker that dies while it starts
                    nanny = chance.choice(list(made.workers.values()))
                    os.kill(nanny.pid, signal.SIGKILL)
                    killed.append(nanny.pid)

        thread = threading.Thread(target=kill)
        thread.start()
        try:
            loop = Loop(Store(tmp_path / "out"), given, Engine(retries=10), until=None, seen=lambda progress: None)
            ended = [(last.digest, result.text, result.value.get("number")) for last, _, result in loop.results(wanted)]
        finally:
            over.set()
            thread.join()
    assert killed
    assert sorted(ended, key=str) == sorted(((stage.digest, "", k) for k, stage in enumerate(wanted)), key=str)
    assert {path.stem for path in (tmp_path / "out" / "results").iterdir()} == {stage.digest for stage in wanted}


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
