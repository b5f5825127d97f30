"""The loop and the store: each stage once, whatever stops it, and with any number of workers the same files."""

from __future__ import annotations

import json

import pytest

from edgecnn.errors import InputError
from edgecnn.jobs import InProcess, LocalExecutor, Status
from edgecnn.sweeping.perform import perform
from edgecnn.sweeping.run import Loop
from edgecnn.sweeping.spec import Engine
from edgecnn.sweeping.stages import Stage
from edgecnn.sweeping.store import Store

KIND = "job_functions:simulated"


def chains(marks, count, faults=None):
    """Return last stages on a shared first one; ``faults`` is number to the function that a stage ends in."""
    marks.mkdir(exist_ok=True)
    first = Stage(KIND, "first", {"name": "first", "marks": str(marks), "number": 100})
    made = []
    for k in range(count):
        settings = {"name": f"middle{k % 3}", "marks": str(marks), "number": 10 * (k % 3)}
        middle = Stage(KIND, settings["name"], settings, parent=first)
        fault = {"fault": faults[k]} if faults and k in faults else {}
        last = {"name": f"last{k}", "marks": str(marks), "number": k, **fault}
        made.append(Stage(KIND, f"last{k}", last, parent=middle))
    return made


def run(folder, stages, executor, **engine):
    loop = Loop(Store(folder), executor, Engine(**{"retries": 1, **engine}), until=None, seen=lambda progress: None)
    return {last.name: (stage.name, result) for last, stage, result in loop.results(stages)}, loop.progress


def figures(folder):
    """Return every result without how it ran."""
    found = {path.name: json.loads(path.read_text()) for path in (folder / "results").iterdir()}
    return {name: {k: v for k, v in each.items() if k != "run"} for name, each in found.items()}


def test_every_stage_runs_once_and_its_number_of_workers_changes_nothing(tmp_path):
    found = {}
    for workers in (1, 3):
        with LocalExecutor(workers) as executor:
            ended, progress = run(tmp_path / str(workers), chains(tmp_path / "marks", 7), executor)
        assert (progress.done, progress.failed, progress.kept) == (1 + 3 + 7, 0, 0)
        assert {name: result.value["number"] for name, (_, result) in ended.items()} == {
            f"last{k}": 100 + 10 * (k % 3) + k for k in range(7)
        }
        found[workers] = figures(tmp_path / str(workers))
        for mark in (tmp_path / "marks").iterdir():
            mark.unlink()
    assert found[1] == found[3]
    with InProcess() as executor:
        ended, progress = run(tmp_path / "3", list(reversed(chains(tmp_path / "marks", 7))), executor)
    assert (progress.done, len(ended)) == (0, 7)
    assert not list((tmp_path / "marks").iterdir())  # all were there


def test_combinations_that_began_end_before_others_begin(tmp_path):
    first = Stage(KIND, "first", {"name": "first", "marks": str(tmp_path)})
    stages = []
    for k in range(4):
        middle = Stage(KIND, f"middle{k}", {"name": f"middle{k}", "marks": str(tmp_path)}, parent=first)
        stages.append(Stage(KIND, f"last{k}", {"name": f"last{k}", "marks": str(tmp_path)}, parent=middle))
    with InProcess() as executor:
        run(tmp_path / "a", stages, executor)
    marks = sorted(tmp_path.glob("*-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    names = [path.name.rpartition("-")[0] for path in marks]
    assert names == ["first", *(f"{kind}{k}" for k in range(4) for kind in ("middle", "last"))]


def test_a_fault_is_the_result_of_its_chain_alone_and_runs_again_when_it_may_go_better(tmp_path):
    faults = {0: "killed", 1: "refused", 2: "faulty", 3: "sleeping"}
    marks = tmp_path / "marks"
    with LocalExecutor(2) as executor:
        ended, _ = run(tmp_path / "a", chains(marks, 6, faults), executor, timeout_s=5.0)
    assert {name: result.status for name, (_, result) in ended.items()} == {
        "last0": Status.LOST, "last1": Status.ERROR, "last2": Status.FAULT, "last3": Status.TIMEOUT,
        "last4": Status.OK, "last5": Status.OK,
    }  # fmt: skip
    assert ended["last0"][1].run["attempts"] == 2
    assert len(list(marks.glob("last0-*"))) == 2
    assert ended["last1"][1].text == "no such thing"
    with LocalExecutor(2) as executor:
        run(tmp_path / "a", chains(marks, 6, faults), executor, timeout_s=5.0)
    assert len(list(marks.glob("last0-*"))) == 4
    assert len(list(marks.glob("last1-*"))) == len(list(marks.glob("last4-*"))) == 1


def test_a_stage_that_others_need_fails_them_and_is_tried_once(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    first = Stage(KIND, "first", {"name": "first", "marks": str(marks), "fault": "refused"})
    lasts = [Stage(KIND, f"last{k}", {"name": f"last{k}", "marks": str(marks)}, parent=first) for k in range(4)]
    with LocalExecutor(2) as executor:
        ended, progress = run(tmp_path / "a", lasts, executor)
    assert {stage for stage, _ in ended.values()} == {"first"}
    assert len(ended) == 4
    assert progress.failed == len(list(marks.iterdir())) == 1


def test_a_killed_stage_leaves_nothing_half_written(tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    stage = Stage(KIND, "one", {"name": "one", "marks": str(marks), "seconds": 600})
    with LocalExecutor(1) as executor:
        run(tmp_path / "a", [stage], executor, timeout_s=0.5, retries=0)
    assert not (tmp_path / "a" / "files" / stage.digest).exists()
    again = Stage(KIND, "one", {"name": "one", "marks": str(marks)})
    result = perform(tmp_path / "a", again)
    assert (tmp_path / "a" / "files" / again.digest / "made").read_text() == "one"
    assert perform(tmp_path / "a", again) == result
    assert len(list(marks.iterdir())) == 2


def test_a_file_that_is_no_result_is_one_line(tmp_path):
    stage = Stage(KIND, "one", {"name": "one", "marks": str(tmp_path)})
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / f"{stage.digest}.json").write_text("{")
    with pytest.raises(InputError, match="cannot read .*json.*; delete it, and the stage runs again"):
        Store(tmp_path).result(stage.digest)


def test_time_ends_a_sweep_without_a_result_for_what_is_left(tmp_path):
    with InProcess() as executor:
        loop = Loop(Store(tmp_path / "a"), executor, Engine(), until=0.0, seen=lambda progress: None)
        assert list(loop.results(chains(tmp_path / "marks", 3))) == []


def test_a_digest_depends_on_settings_inputs_versions_and_what_came_before(monkeypatch):
    def made(**changes):
        return Stage(**{"kind": "validate", "name": "v", "settings": {"seed": 0}, "inputs": {"data": "a"}, **changes})

    before = made(kind="convert")
    stages = [made(), made(settings={"seed": 1}), made(inputs={"data": "b"}), made(parent=before), before]
    assert len({stage.digest for stage in stages}) == len({stage.identity for stage in stages}) == len(stages)
    assert made(name="other").digest == made().digest
    monkeypatch.setattr("edgecnn.sweeping.stages._installed", lambda: {"edgecnn": "9"})
    assert made().digest != stages[0].digest
    assert made().identity == stages[0].identity
