"""The sweep file: what is wrong is one line, before anything runs."""

from __future__ import annotations

import re

import pytest
from commands import DEMO

from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.sweeping.plan import Planner
from edgecnn.sweeping.spec import read_sweep

ONE = f"model = ['{DEMO}']"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"[axes]\n{ONE}\nprecisoin = ['int8']", r"unknown axis 'precisoin' \(did you mean 'precision'\?\)"),
        (f"[axes]\n{ONE}\nseed = []", "axis seed has no values, so that there is no combination"),
        ("[axes]\nseed = [1]", "the axes have no model"),
        ("data = 'demo'", "lacks the key 'axes'"),
        (f"objectve = ['top1']\n[axes]\n{ONE}", r"unknown key 'objectve' \(did you mean 'objective'\?\)"),
        (f"objective = ['top2']\n[axes]\n{ONE}", r"unknown objective 'top2' \(did you mean 'top1'"),
        (f"[axes]\n{ONE}\n[sampler]\nname = 'gird'", r"unknown sampler 'gird' \(did you mean 'grid'\?\)"),
        (f"[axes]\n{ONE}\n[sampler]\nname = 'tpe'", "sampler tpe needs a budget"),
        (f"[axes]\n{ONE}\nseed = [{','.join(map(str, range(1000)))}]\nwidth = [{','.join(map(str, range(1, 1001)))}]",
         r"the axes make 1,000,000 combinations; above 10,000 give \[budget\] jobs or minutes"),
        (f"[axes]\n{ONE}\ndevice = ['cortex-a27']", r"unknown device 'cortex-a27' \(did you mean 'cortex-a76'"),
        (f"[axes]\n{ONE}\ntarget = ['tflit']", r"unknown target 'tflit' \(did you mean 'tflite'"),
        (f"[axes]\n{ONE}\nrecipe = ['fats']", r"unknown recipe 'fats' \(did you mean 'fast'"),
        (f"[axes]\n{ONE}\nprecision = ['int9']", r"unknown precision 'int9'"),
        (f"[axes]\n{ONE}\nweights.bits = [8, 99]", "axis weights.bits: .*99"),
        (f"[axes]\n{ONE}\nweights.bit = [8]", r"axis weights.bit: .*unknown setting 'bit' \(did you mean 'bits'"),
        (f"[axes]\n{ONE}\nwidth = [0.5]", "axes width and resolution take families such as mobilenet_v2"),
        ("[axes]\nmodel = ['mobilenet_v2']\nwidth = [0.5]", "mobilenet_v2_0.5_224 has no demo weights"),
        (f"weights = 'none/{{model}}.pt'\n[axes]\n{ONE}", f"there is no none/{DEMO}.pt"),
        (f"data = 'nowhere'\n[axes]\n{ONE}", "there is no nowhere"),
        (f"[axes]\n{ONE}\n[[exclude]]\nwidht = 1", r"exclude: unknown axis 'widht'"),
        (f"[axes]\n{ONE}\n[[exclude]]\nmodel = '{DEMO}'", r"no combination is left to run: excluded \(1\)"),
        (f"[axes]\n{ONE}\ndevice = ['cortex-m4']\ntarget = ['onnx']", "no combination .*cortex-m4 does not run onnx"),
        (f"[axes]\n{ONE}\n[limits]\nmax_dorp = 1", r"unknown key 'max_dorp' \(did you mean 'max_drop'\?\)"),
        (f"[axes]\n{ONE}\n[engine]\nworkers = 0", "engine: workers is 0; give a number above 0"),
        (f"[axes]\n{ONE}\n[budget]\njobs = -1", "budget: jobs is -1; give a number above 0"),
        (f"[axes]\n{ONE}\n[sampler]\nrungs = [8]", "rungs are for tpe"),
        (f"objective = []\n[axes]\n{ONE}", "objective is empty; give figures, such as"),
        (f"[axes]\n{ONE}\n[sampler]\nname = 'tpe'\nrungs = [8, 16]\n[budget]\njobs = 2",
         "rungs prune by one figure; give one objective"),
        (f"[axes]\n{ONE}\n[sampler]\nname = 'tpe'\nrungs = [16, 8]\n[budget]\njobs = 2",
         r"sampler: batch 8, rungs \[16, 8\]; give growing numbers above 0"),
        (f"[axes]\n{ONE}\n[sampler]\nbatch = 0", "batch 0, rungs .*; give growing numbers above 0"),
        (f"[axes]\n{ONE}\nrecipe = ['minmax']\nadaptive_rounding.images = [32]",
         "axis adaptive_rounding.images: no recipe of the sweep has the step adaptive_rounding: .'minmax'"),
        ("[axes]\nmodel = [3]", "axis model: 3 is no name"),
        (f"data = 'random'\n[axes]\n{ONE}", "data is 'random'; give a folder, FILE.npz:SPLIT or demo"),
        ("[axes", "cannot read .*sweep.toml"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_nothing_runs(text, said, tmp_path, capfd):
    (tmp_path / "sweep.toml").write_text(text)
    assert main(["sweep", str(tmp_path / "sweep.toml"), "-o", str(tmp_path / "out")]) == 2
    seen = capfd.readouterr()
    assert seen.out == ""
    assert len(seen.err.splitlines()) == 1, seen.err
    assert re.search(said, seen.err), seen.err
    assert not (tmp_path / "out").exists()


def test_a_library_or_tool_that_is_missing_is_said_before_anything_runs(tmp_path, monkeypatch, capfd):
    from edgecnn.sweeping import plan

    monkeypatch.setattr(plan, "_missing", lambda place, target: "pip install it")
    (tmp_path / "sweep.toml").write_text(f"[axes]\n{ONE}\ndevice = ['cortex-a72']")
    assert main(["sweep", str(tmp_path / "sweep.toml"), "-o", str(tmp_path / "out")]) == 3
    assert "cortex-a72 cannot run tflite here; install what it needs: pip install it" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def rows_of(**keys):
    return list(Planner(read_sweep({"weights": "random", **keys}), here=False).rows())


def test_an_axis_that_does_not_matter_makes_no_combinations():
    axes = {"model": [DEMO], "precision": ["int8", "fp32"], "recipe": ["fast", "minmax"]}
    rows = rows_of(axes={**axes, "adaptive_rounding": {"images": [32, 64]}})
    seen = [tuple(row.point[a] for a in ("precision", "recipe", "adaptive_rounding.images")) for row in rows]
    assert sorted(seen, key=str) == [
        ("fp32", None, None), ("int8", "fast", 32), ("int8", "fast", 64), ("int8", "minmax", None)
    ]  # fmt: skip


def test_stages_are_shared():
    axes = {"model": [DEMO], "recipe": ["fast", "minmax"], "device": ["host", "cortex-a72", "cortex-m4"]}
    rows = rows_of(axes=axes)
    from edgecnn.sweeping.stages import chain

    stages = {}
    for row in rows:
        for stage in chain(row.stage):
            stages.setdefault(stage.kind, set()).add(stage.digest)
    assert {kind: len(found) for kind, found in stages.items()} == {
        "capture": 1, "quantize": 2, "convert": 4, "validate": 6
    }  # fmt: skip


def test_models_have_widths_and_resolutions_and_bounds():
    axes = {"model": ["mobilenet_v1", "resnet18"], "width": [0.25, 0.5], "resolution": [64, 96]}
    assert len(rows_of(axes=axes)) == 8
    small = rows_of(axes=axes, max_macs=20e6)
    assert {row.model for row in small} == {
        "mobilenet_v1_0.25_64", "mobilenet_v1_0.25_96", "mobilenet_v1_0.5_64", "resnet18_0.25_64"
    }  # fmt: skip
    assert len(rows_of(axes=axes, exclude=[{"model": "resnet18", "width": [0.5]}])) == 6


def test_seeds_share_a_network_unless_its_weights_are_random():
    axes = {"model": [DEMO], "seed": [0, 1]}
    assert len({row.stage.parent.parent.parent.digest for row in rows_of(axes=axes)}) == 2
    assert len({row.stage.parent.parent.parent.digest for row in rows_of(axes=axes, weights="demo")}) == 1


def test_a_mapping_is_a_sweep_too_and_its_errors_name_it():
    with pytest.raises(InputError, match="^sweep: unknown key 'axis'"):
        read_sweep({"axis": {}})
