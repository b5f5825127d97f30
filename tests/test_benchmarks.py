"""The benchmarks run without their peers and say which they left out; the zoo's table is resumed, and never stale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"

NET = """
import numpy as np, torch

NETS = {"stairs": {"norm": {"mean": "127.5", "std": "127.5"}, "labels": True}}


def stairs():
    torch.manual_seed(0)
    conv = torch.nn.Conv2d
    layers = (conv(3, 8, 3, 2, 1), torch.nn.ReLU6(), conv(8, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    return torch.nn.Sequential(*layers).eval()


def load(name):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 16, 16, 3), np.uint8)
    return None, {"x_cal": pixels[:10], "x_val": pixels[10:], "y_val": np.zeros(20, np.int64)}
"""


@pytest.fixture
def zoo(monkeypatch):
    """The script, with jobs that run in this process."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import zoo

    monkeypatch.setattr(zoo, "in_process", lambda function, *arguments: function(*arguments))
    return zoo


def of_recipe(sqnr_db, *, network="a", seed=0, recipe="fast", drop=0.5):
    figures = {"agreement": 98.0, "sqnr_db": sqnr_db, "fp32_top1": 80.0, "drop": drop, "cpu_s": 7.0}
    return {"network": network, "tool": recipe, "seed": seed, **figures}


def of_peer(tool, sqnr_db, network="a"):
    return {**of_recipe(sqnr_db, network=network, recipe=tool), "seed": None}


def test_a_peer_that_is_not_installed_is_left_out_and_named(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(FOLDER))
    import peer_tools
    import peers

    found = peer_tools.version

    def without_nncf(package):
        if package == "nncf":
            raise peer_tools.PackageNotFoundError(package)
        return found(package)

    monkeypatch.setattr(peer_tools, "version", without_nncf)
    assert peers.present() == ["onnxruntime U8S8", "onnxruntime S8S8"]
    assert capsys.readouterr().err == "nncf mixed was left out: nncf not installed; pip install 'edgecnn[bench]'\n"


def test_the_zoo_table_has_median_and_worst_seed_beside_the_best_peer(zoo):
    rows = [of_recipe(21, seed=0, drop=0.1), of_recipe(25, seed=1, drop=0.9), of_recipe(24, seed=2, drop=0.3)]
    rows += [of_recipe(14, network="b"), of_peer("x", 20), of_peer("y", 23), of_peer("x", 10, "b")]
    ours, _, peers = zoo.tables(rows).partition("\n\n")
    _, _, first, second, total = ours.splitlines()
    assert first == "| `fast` | a | 3 | 24.0 (21.0) | 98.0 (98.0) | 0.3 (0.9) | 7 | 23.0 (y) | -2.0 |"
    assert second == "| `fast` | b | 1 | 14.0 | 98.0 | 0.5 | 7 | 10.0 (x) | +4.0 |"
    assert total == "| `fast` | median (worst) of 2 networks | | | | | | | +1.0 (-2.0) |"
    assert peers.splitlines()[2:] == [
        "| a | 80.0 | 98.0 / 20.0 / 0.5 | 98.0 / 23.0 / 0.5 |",
        "| b | 80.0 | 98.0 / 10.0 / 0.5 | - |",
    ]


def test_the_zoo_table_names_what_failed_and_does_not_count_it(zoo):
    failed = {"network": "b", "tool": "fast", "seed": 0, "error": "no such op"}
    text = zoo.tables([of_recipe(20), of_peer("x", 18), failed])
    assert "| `fast` | b | 1 | failed: no such op |" in text
    assert "median (worst) of 1 networks" in text


def test_without_labels_and_without_peers_the_zoo_table_has_dashes(zoo):
    text = zoo.tables([of_recipe(20, drop=None)])
    assert text.splitlines()[-1] == "| `fast` | a | 1 | 20.0 | 98.0 | - | 7 | - | - |"


def test_figures_are_of_whole_logits(zoo):
    fp32 = np.array([[3, 0], [0, 4]], np.float32)
    row = zoo.figures(fp32, fp32 + np.array([[0, 0], [5, 0]], np.float32), np.array([0, 1]))
    assert row == {"n": 2, "agreement": 50.0, "fp32_top1": 100.0, "drop": 50.0, "sqnr_db": pytest.approx(0)}


def test_a_result_is_kept_until_its_key_changes_and_a_failed_job_leaves_none(zoo, tmp_path):
    place, made = tmp_path / "row.json", []

    def job():
        made.append(1)
        return {"made": len(made)}

    assert [zoo.kept(place, key, job)["made"] for key in (["v1", (1,)], ["v1", (1,)], ["v2", (1,)])] == [1, 1, 2]
    with pytest.raises(ZeroDivisionError):
        zoo.kept(place, ["v3"], lambda: {"made": 1 // 0})
    assert json.loads(place.read_text())["key"] == ["v2", [1]]


@pytest.mark.slow
def test_the_zoo_measures_a_network_of_the_users_own_once(zoo, tmp_path, monkeypatch, capsys):
    (tmp_path / "own.py").write_text(NET)
    words = ["--out", str(tmp_path), "--zoo", str(tmp_path / "own.py"), "--networks", "stairs", "--recipes", "minmax:2"]
    options = zoo.arguments().parse_args(words)
    first = list(zoo.measured(options))
    assert [(row["tool"], row["seed"]) for row in first if row["seed"] is not None] == [("minmax", 0), ("minmax", 1)]
    assert all(row["n"] == 20 and row["sqnr_db"] > 20 for row in first), first
    done = []
    quantize = zoo.quantize
    monkeypatch.setattr(zoo, "quantize", lambda *arguments: done.append(arguments) or quantize(*arguments))
    assert list(zoo.measured(options)) == first
    assert not done
    monkeypatch.setattr(zoo, "sources_digest", lambda: "other sources")
    assert [{**row, "key": 0} for row in zoo.measured(options) if row["seed"] is None] == [
        {**row, "key": 0} for row in first if row["seed"] is None
    ]
    assert len(done) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--recipes", "fast"], "--recipes fast: give NAME:N"),
        (["--networks", "lenet"], "--networks lenet: allowed: mobilenet"),
        (["--weights", "mobilenet_v2"], "--weights mobilenet_v2: give MODEL=FILE"),
    ],
)
def test_wrong_options_of_the_zoo_are_named(zoo, tmp_path, words, said):
    with pytest.raises(SystemExit, match=said):
        list(zoo.measured(zoo.arguments().parse_args(["--out", str(tmp_path), *words])))


def test_an_ablation_leaves_out_one_step_at_a_time(zoo):
    import ablation

    from edgecnn.quant.recipe import recipe

    whole = recipe("fast")
    found = ablation.ablations(whole)
    steps = ["input_quantization", "equalization", "ranges", "zero_point_placement", "adaptive_rounding"]
    assert list(found) == steps
    for step in {*steps} - {"ranges"}:
        assert found[step].steps == whole.without(step).steps
    assert found["ranges"].steps == whole.with_settings("ranges", method="minmax").steps
    assert list(ablation.ablations(recipe("minmax"))) == ["zero_point_placement"]


def test_the_ablation_table_has_the_median_of_the_differences(zoo):
    import ablation

    rows = [{**of_recipe(db, seed=seed), "step": ""} for seed, db in enumerate((20, 22, 30))]
    rows += [{**of_recipe(db, seed=seed), "step": "ranges"} for seed, db in enumerate((19, 20, 31))]
    rows += [{**of_recipe(18, network="b"), "step": ""}]
    lines = ablation.table(rows).splitlines()
    assert lines[0] == "| `fast`, dB | a | b |"
    assert lines[2] == "| the whole recipe | 22.0 (seeds: 3) | 18.0 (seeds: 1) |"
    assert lines[3] == "| ranges | +1.0 | - |"


def test_an_ablation_is_resumed(zoo, tmp_path, monkeypatch):
    import ablation

    (tmp_path / "own.py").write_text(NET)
    words = ["--out", str(tmp_path), "--zoo", str(tmp_path / "own.py"), "--networks", "stairs", "--recipes", "minmax:1"]
    monkeypatch.setattr(ablation, "in_process", zoo.in_process)
    options = zoo.arguments().parse_args(words)
    first = list(ablation.measured(options))
    assert [row["step"] for row in first] == ["", "zero_point_placement"]
    monkeypatch.setattr(ablation, "quantize", None)
    assert list(ablation.measured(options)) == first
