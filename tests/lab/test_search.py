"""`scale search` and `scale study`: what is compared is comparable, and the verdict says what the figures say."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from edgecnn.cli import main
from edgecnn.lab import accuracy, axes, search
from edgecnn.lab.accuracy import Scored, margin
from edgecnn.lab.axes import Curve, Study
from edgecnn.models import resolve
from edgecnn.models.count import size_of
from edgecnn.models.scaling import Compound

BASE = "resnet20_1.0_32"


@pytest.fixture
def untrained(monkeypatch):
    """Trainings that cost nothing: the accuracy follows what MACs should be, and a little the seed."""

    def run_trials(trials, *, folder, workers, progress):
        specs = [resolve(trial.config.model) for trial in trials]
        assert [s.resolution for s in specs] == sorted(s.resolution for s in specs)
        top1 = [10 * math.log(s.depth * s.width**2 * s.resolution**2) for s in specs]
        return [{"val_top1": t + 0.01 * trial.config.seed} for t, trial in zip(top1, trials, strict=True)]

    monkeypatch.setattr(accuracy, "run_trials", run_trials)


def scored(*runs, macs=1):
    return Scored(model="m", macs=macs, parameters=1, runs=runs)


def curve(axis, *top1, spread=0.5):
    """Of two seeds each, that much to either side; MACs double."""
    points = (scored(t - spread, t + spread, macs=2**k) for k, t in enumerate(top1))
    return Curve(axis=axis, points=tuple(points))


def answer(depth, width, resolution, together, seeds=True):
    ways = dict(zip((*axes.ALONE, axes.TOGETHER), (depth, width, resolution, together), strict=True))
    curves = [curve(axis, *top1) for axis, top1 in ways.items()]
    points = [p for c in curves for p in c.points]
    return axes.verdict(Study(curves=tuple(curves), margin=margin(points) if seeds else None))


def test_the_margin_is_two_standard_errors():
    assert margin([scored(50.0, 52.0), scored(60.0, 62.0)]) == pytest.approx(2 * math.sqrt(2))
    assert margin([scored(50.0), scored(60.0)]) is None
    assert scored(50.0).spread is None


def test_the_verdict_where_the_paper_is_right():
    flat = (50, 55, 55.5, 55.2)
    *lines, last = answer(flat, flat, flat, (50, 56, 62, 68))
    assert last.startswith("so it is here: single axes flatten, the compound rule goes on: ")
    assert "12.80 points above depth alone" in last
    assert lines[1] == "depth: rises to 2.0 times; +5.20 points at 8.0 times the MACs"
    assert lines[-1] == "compound: rises to the end; +18.00 points at 8.0 times the MACs"


@pytest.mark.parametrize(
    ("resolution", "together", "said"),
    [
        ((50, 58, 66, 74), (50, 56, 62, 68), "not so here: resolution alone ends 6.00 points above the compound rule"),
        ((50, 56, 62, 68), (50, 56, 62, 68.5), "undecided here: the compound rule and resolution alone end 0.50 "),
        ((50, 54, 58, 62), (50, 56, 62, 68), "half so here: the compound rule ends 6.00 points above resolution "),
        ((50, 55, 55, 55), (50, 60, 66, 66), "half so here: the compound rule ends 11.00 points above resolution "),
    ],
    ids=["beaten", "undecided", "another rises too", "flattens too"],
)
def test_the_verdict_where_it_is_not(resolution, together, said):
    assert answer((50, 51, 51, 51), (50, 49, 50, 50), resolution, together)[-1].startswith(said)


def test_one_seed_has_no_verdict():
    flat = (50, 50, 50)
    assert answer(flat, flat, flat, flat, seeds=False) == [
        "one seed says nothing of chance: no verdict; give --seeds 2 or more"
    ]


def test_a_grid_of_about_equal_cost():
    base = replace(resolve(BASE), num_classes=16)
    found = search.grid(base, 0.2)
    assert len({(p.spec.rows, p.spec.resolution) for p in found.points}) == len(found.points) > 2
    for point in found.points:
        assert point.rule.cost == pytest.approx(2, rel=search.TOLERANCE)
        assert point.growth == pytest.approx(2, rel=search.COUNTED)
        assert point.growth == size_of(point.spec).macs / size_of(base).macs
        assert point.spec.num_classes == 16
    assert all(abs(growth / 2 - 1) > search.COUNTED for growth in found.unequal)


def ranked(*top1, seeds=2, spread=0.5):
    runs = [(t - spread, t + spread) if seeds == 2 else (float(t),) for t in top1]
    point = search.Point(rule=Compound(), spec=resolve(BASE), growth=2.0)
    rows = tuple((point, scored(*r)) for r in runs)
    return search.Search(base=scored(40.0), ranked=rows, margin=margin(s for _, s in rows))


def test_a_search_says_whether_the_seeds_explain_it():
    first, second = search.verdict(ranked(60, 59, 50))
    assert first == "best: alpha 1.2, beta 1.1, gamma 1.15: 60.00 %; the base has 40.00 %"
    assert second.startswith("differences up to 1.41 points may be chance (2 seeds): 1 of the 2 others are as near")
    assert search.verdict(ranked(60, 55, 50))[1].endswith("the next is 5.00 points behind: more than that")
    assert search.verdict(ranked(60, 55, seeds=1))[1].startswith("one seed says nothing of chance")


@pytest.mark.usefixtures("untrained")
def test_search_writes_a_table_and_a_plot(tmp_path, capfd):
    words = ["scale", "search", "--base", BASE, "--step", "0.2", "-o", str(tmp_path / "a")]
    assert main([*words, "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found == json.loads((tmp_path / "a" / "search.json").read_text())
    reached = [row["top1"] for row in found["ranked"]]
    assert reached == sorted(reached, reverse=True)
    assert min(reached) > found["base"]["top1"]
    assert found["ranked"][0]["spread"] == pytest.approx(0.01 / math.sqrt(2))
    assert found["trainings"]["seeds"] == 2
    assert (tmp_path / "a" / "search.svg").read_text().startswith("<svg")
    assert main(words) == 0
    said = capfd.readouterr()
    assert "best: alpha" in said.out
    assert "left out: " in said.err


@pytest.mark.usefixtures("untrained")
def test_study_draws_a_line_for_each_way_to_grow(tmp_path, capfd):
    assert main(["scale", "study", "--base", BASE, "--doublings", "2", "-o", str(tmp_path), "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [row["grows"] for row in found["rows"]] == [a for a in (*axes.ALONE, "compound") for _ in range(3)]
    for row in found["rows"]:
        assert 0.7 < row["growth"] / {1: 1, 2: 2, 4: 4}[min((1, 2, 4), key=lambda g: abs(g - row["growth"]))] < 1.5
    assert "compound" in (tmp_path / "study.svg").read_text()
    assert found["verdict"][0].startswith("differences up to")


def refused(capfd, *words):
    capfd.readouterr()
    assert main(["scale", *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    return line


def test_bad_input_is_one_line(tmp_path, capfd):
    search_, study_ = (partial(refused, capfd, action, "-o", str(tmp_path)) for action in ("search", "study"))
    assert "alexnet has no scaling rules; families that have: " in search_("--base", "alexnet_0.5_64")
    assert "unknown model 'nonet'" in search_("--base", "nonet")
    assert "resolution 16; allowed: 32 to 1024 pixels" in search_("--base", "resnet20_1.0_16")
    assert "--step 0.7: allowed 0.02 to 0.5" in search_("--step", "0.7", "--base", BASE)
    assert "--tolerance 0: allowed above 0" in search_("--tolerance", "0", "--base", BASE)
    assert "is not a folder" in search_("--data", str(tmp_path / "none"), "--base", BASE)
    assert "--doublings 1: allowed 2 to 8" in study_("--doublings", "1", "--base", BASE)
    assert "such a rule grows nothing" in study_("--alpha", "1", "--beta", "1", "--gamma", "1", "--base", BASE)
    assert "allowed: 0.05 to 8.0" in study_("--doublings", "4", "--base", BASE)
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.slow
def test_a_resumed_search_with_another_number_of_workers_says_the_same(tmp_path):
    """Four real trainings of one step in two processes; then two of them are lost, and done again in one process."""
    words = ["scale", "search", "--base", "resnet18_0.25_48", "--step", "0.4", "--seeds", "1", "--epochs", "1"]
    words += ["--images", "32", "--val-images", "32"]
    whole, resumed = tmp_path / "a", tmp_path / "b"
    assert main([*words, "--workers", "2", "-o", str(whole)]) == 0
    first, *lost = sorted((whole / "trials").iterdir())
    assert len(lost) == 3
    (resumed / "trials").mkdir(parents=True)
    for kept in (first, lost[0]):
        (resumed / "trials" / kept.name).write_bytes(kept.read_bytes())
    assert main([*words, "--workers", "1", "-o", str(resumed)]) == 0
    for name in ("search.json", "search.svg", *(f"trials/{file.name}" for file in lost)):
        made, again = (re.sub(r'"date": "[^"]*"', "", (folder / name).read_text()) for folder in (whole, resumed))
        assert made == again
