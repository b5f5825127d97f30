"""Jobs: each in a process of its own, whatever it does; limits, retries, and what may run beside what."""

from __future__ import annotations

import time

import job_functions as functions
import pytest

from edgecnn.jobs import InProcess, LocalExecutor, Status, Task


def outcomes(executor, *tasks):
    for task in tasks:
        executor.submit(task)
    found = {}
    while len(found) < len(tasks):
        found |= {outcome.key: outcome for outcome in executor.completed()}
    return [found[task.key] for task in tasks]


def task(call, *arguments, **options):
    return Task(**{"key": call.__name__, "call": call, "arguments": arguments, **options})


@pytest.fixture
def local():
    with LocalExecutor(workers=2) as executor:
        yield executor


@pytest.mark.parametrize("make", [lambda: LocalExecutor(1), InProcess])
def test_what_a_function_returns_or_raises_is_its_outcome(make):
    with make() as executor:
        added, refused, faulty = outcomes(
            executor, task(functions.add, 1, 2), task(functions.refused), task(functions.faulty)
        )
    assert (added.status, added.value) == (Status.OK, 3)
    assert (refused.status, refused.text) == (Status.ERROR, "no such thing")
    assert (faulty.status, faulty.text) == (Status.FAULT, "ValueError: a b")


def test_a_job_has_the_place_and_environment_of_its_caller_and_one_thread(local, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECNN_TEST", "given")
    first, second = outcomes(local, task(functions.where, key="a"), task(functions.where, key="b"))
    assert first.value[:3] == (tmp_path, "given", "1")
    assert first.value[3] != second.value[3]  # processes


def test_a_job_writes_into_its_log(local, tmp_path, capfd):
    log = tmp_path / "job.log"
    outcomes(local, task(functions.add, 1, 2, log=log))
    assert log.read_text() == "adding\n"
    outcomes(local, task(functions.faulty, log=log))
    assert "Traceback" in log.read_text()
    assert capfd.readouterr() == ("", "")


def test_a_death_a_timeout_and_too_much_memory_are_outcomes_of_that_job_alone(local):
    limits = {"memory_mib": 900, "timeout_s": 300}
    killed, ended, growing, added = outcomes(
        local,
        task(functions.killed, **limits),
        task(functions.ended, **limits),
        task(functions.growing, **limits),
        task(functions.add, 1, 2, **limits),
    )
    assert (killed.status, ended.status) == (Status.LOST, Status.LOST)
    assert killed.text.startswith("its process was killed by SIGKILL")
    assert ended.text == "its process ended with status 7"
    assert growing.status is Status.MEMORY
    assert 900 < growing.peak_mib < 1800
    assert "the limit is 900 MiB" in growing.text
    assert added.value == 3


def test_retries_are_bounded(local, tmp_path):
    again, never, slow = outcomes(
        local,
        task(functions.killed_once, tmp_path / "mark", retries=2),
        task(functions.killed, retries=2),
        task(functions.sleeping, retries=1, timeout_s=0.3),
    )
    assert (again.status, again.value, again.attempts) == (Status.OK, "done", 2)
    assert (never.status, never.attempts) == (Status.LOST, 3)
    assert (slow.status, slow.attempts) == (Status.TIMEOUT, 2)
    assert slow.text == "it took longer than the limit of 0.3 s"
    assert outcomes(local, task(functions.refused, retries=2))[0].attempts == 1


def test_what_a_job_started_ends_with_it(local, tmp_path):
    outcomes(local, task(functions.starting, tmp_path / "mark", timeout_s=1))
    time.sleep(2.5)
    assert not (tmp_path / "mark").exists()


def test_a_job_that_measures_time_and_a_board_run_alone(tmp_path):
    with LocalExecutor(workers=4, memory_mib=100_000) as local:
        timed, board, free = (tmp_path / name for name in ("timed", "board", "free"))
        for folder in (timed, board, free):
            folder.mkdir()
        tasks = [task(functions.busy, timed, 0.1, key=f"t{k}", alone=True) for k in range(3)]
        tasks += [task(functions.busy, board, 0.1, key=f"b{k}", resource="pi", board=True) for k in range(3)]
        tasks += [task(functions.busy, free, 0.5, key=f"f{k}") for k in range(4)]
        found = {outcome.key: outcome.value for outcome in outcomes(local, *tasks)}
    assert {found[f"t{k}"] for k in range(3)} == {1}
    assert {found[f"b{k}"] for k in range(3)} == {1}
    assert max(found[f"f{k}"] for k in range(4)) > 1


def test_jobs_wait_for_memory(tmp_path):
    with LocalExecutor(workers=4, memory_mib=1) as local:
        tasks = [task(functions.busy, tmp_path, 0.05, key=str(k)) for k in range(4)]
        assert {outcome.value for outcome in outcomes(local, *tasks)} == {1}


def test_a_job_without_a_limit_has_that_of_all_jobs():
    with LocalExecutor(workers=1, memory_mib=1100) as local:
        (outcome,) = outcomes(local, task(functions.growing))
    assert (outcome.status, "the limit is 1100 MiB" in outcome.text) == (Status.MEMORY, True)


def test_closing_ends_what_runs(tmp_path):
    with LocalExecutor(workers=1) as local:
        local.submit(task(functions.starting, tmp_path / "mark"))
        time.sleep(0.5)
    time.sleep(2.5)
    assert not (tmp_path / "mark").exists()


def test_a_job_costs_little(local):
    tasks = [task(functions.add, k, 1, key=str(k)) for k in range(40)]
    outcomes(local, *tasks[:2])
    start = time.process_time(), time.perf_counter()
    outcomes(local, *tasks[2:])
    assert time.process_time() - start[0] < 0.05 * len(tasks)  # of this process; a shared machine's clock says little


def test_a_job_ends_when_the_server_of_its_process_dies(local):
    local.submit(task(functions.kill_parent))
    (outcome,) = local.completed(30)
    assert outcome.status is Status.LOST
    assert outcomes(local, task(functions.add, 1, 2))[0].value == 3  # by another server
