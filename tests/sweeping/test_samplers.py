"""Samplers: what they try depends on the seed alone."""

from __future__ import annotations

import pytest
from commands import DEMO

from edgecnn.sweeping.plan import Planner
from edgecnn.sweeping.samplers import learned, sampled
from edgecnn.sweeping.spec import read_sweep

AXES = {"model": [DEMO], "seed": list(range(20)), "recipe": ["fast", "minmax"], "target": ["tflite", "onnx"]}


def sweep(name, jobs=12, **keys):
    sampler = {"name": name, "batch": 4, **keys.pop("sampler", {})}
    return read_sweep({"axes": AXES, "sampler": sampler, "budget": {"jobs": jobs}, **keys})


def points(rows):
    return [tuple(row.point.values()) for row in rows]


def test_grid_is_all_in_order_and_a_budget_takes_the_first():
    spec = sweep("grid", 7)
    assert points(sampled(spec, Planner(spec, here=False))) == points(list(Planner(spec, here=False).rows())[:7])


def test_random_is_some_each_once_by_its_seed():
    spec, other = sweep("random"), sweep("random", sampler={"seed": 1})
    first, again, third = (points(sampled(s, Planner(s, here=False))) for s in (spec, spec, other))
    assert first == again != third
    assert len(set(first)) == 12


def proposed(spec, calls):
    """Run a sampler on a figure that is best at seed 15 of fast; return rows with where they were pruned."""

    def evaluate(asked):
        asked = list(asked)
        calls.append([(row.stage.digest, images) for row, images in asked])
        scores = {}
        for row, _ in asked:
            top1 = 50 - abs(row.point["seed"] - 15) + (5 if row.point["recipe"] == "fast" else 0)
            scores[row.stage.digest] = ({"top1": top1, "size_bytes": 100 + row.point["seed"]}, 0)
        return scores

    return list(learned(spec, Planner(spec, here=False), evaluate))


@pytest.mark.parametrize("name", ["tpe", "nsga2"])
def test_optuna_proposes_the_same_and_learns(name):
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'edgecnn[sweep]'")
    objective = ["top1"] if name == "tpe" else ["top1", "size_bytes"]
    calls = [], []
    first, again = (proposed(sweep(name, 24, objective=objective), each) for each in calls)
    assert points(row for row, _ in first) == points(row for row, _ in again)
    assert calls[0] == calls[1]
    assert len({row.stage.digest for row, _ in first}) == len(first) <= 24
    assert all(len(call) <= 4 for call in calls[0])
    seeds = [row.point["seed"] for row, _ in first]
    if name == "tpe":
        distance = [abs(seed - 15) for seed in seeds]
        assert sum(distance[-8:]) < sum(distance[:8])
    else:  # above 15, a seed is worse by both figures
        assert sum(seed > 15 for seed in seeds[-12:]) < sum(seed > 15 for seed in seeds[:12])


def test_what_falls_behind_is_pruned_on_few_images():
    pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'edgecnn[sweep]'")
    calls = []
    found = proposed(sweep("tpe", 20, objective=["top1"], sampler={"rungs": [16, 64]}), calls)
    pruned = {row.stage.digest: images for row, images in found if images is not None}
    assert pruned
    assert set(pruned.values()) <= {16, 64}
    whole = {digest for call in calls for digest, images in call if images is None}
    assert whole == {row.stage.digest for row, images in found if images is None}
    assert not whole & set(pruned)


def test_without_optuna_the_command_that_installs_it(monkeypatch):
    import sys

    from edgecnn.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"sampler tpe needs Optuna: pip install 'edgecnn\[sweep\]'"):
        proposed(sweep("tpe"), [])
