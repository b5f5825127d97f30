"""Recipes: lists of steps in files, steps of other packages, and what is wrong in one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from drawn import normal_for
from seen import SHAPE, UNCORRECTED
from user_modules import GOOD

from edgecnn.cli import main
from edgecnn.errors import InputError
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import calibrated, quantize
from edgecnn.quant.recipe import recipe, recipes
from edgecnn.quant.step import Stage, Step, setting, steps
from edgecnn.quant.steps.ranges import Ranges


@pytest.mark.parametrize("name", recipes())
def test_a_recipe_is_a_file_to_print_edit_and_keep(name, tmp_path, capsys):
    assert main(["recipes", "show", name]) == 0
    path = tmp_path / "mine.toml"
    path.write_text(capsys.readouterr().out)
    assert recipe(str(path)) == recipes()[name]
    path.write_text(path.read_text().replace("percentile =", "percentle ="))
    assert main(["recipes", "show", str(path)]) == 2
    assert "did you mean 'percentile'" in capsys.readouterr().err


def test_recipes_come_from_files_too(tmp_path):
    path = tmp_path / "mine.toml"
    names = ["ranges", "rounding_safe_scales", "weights"]
    path.write_text("".join(f"[[step]]\nname = '{name}'\n" for name in names))
    mine = recipe(str(path))
    assert mine.name == "mine"
    assert [step.name for step in mine.steps] == names
    assert mine.steps == recipe("fast").without(*{step.name for step in recipe("fast").steps} - set(names)).steps


def row(name):
    return f"[[step]]\nname = '{name}'\n"


RANGES, SAFE, WEIGHTS = row("ranges"), row("rounding_safe_scales"), row("weights")
BIAS, EQUAL = row("bias_correction"), row("equalization")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{RANGES}method = 'percentile'\npercentile = 50\n{SAFE}{WEIGHTS}", "percentile 50; allowed: 90.0 to 100"),
        (f"{RANGES}{SAFE}{WEIGHTS}range = 'kl'", "step 'weights': unknown range 'kl'"),
        (f"{RANGES}metod = 'mse'\n{SAFE}{WEIGHTS}", "step 'ranges': unknown setting 'metod' .did you mean 'method'"),
        (f"{RANGES}{SAFE}{WEIGHTS}{BIAS}images = 'many'", "images is 'many', a str; it must be a int"),
        (f"{RANGES}{SAFE}{WEIGHTS}{BIAS}images = 0", "images 0; at least 1"),
        (f"{RANGES}{SAFE}{WEIGHTS}per_tensor = 1", "it must be a bool"),
        ("[[step]]\nname = 'weigths'", "unknown step 'weigths' .did you mean 'weights'"),
        ("[[step]]\nmethod = 'mse'", "a ..step.. has no name"),
        ("step = 3", "mine.toml: step: expected array, got int"),
        ("weight_range = 'mse'", "unknown key 'weight_range'"),
        ("a = [", "cannot read .*mine.toml"),
        (
            f"{RANGES}{WEIGHTS}",
            "'weights' needs activation scales that are final: put 'rounding_safe_scales' before it",
        ),
        (
            f"{BIAS}{RANGES}{SAFE}{WEIGHTS}",
            "'bias_correction' needs integer weights and biases: put 'ranges', then 'rounding_safe_scales', then "
            "'weights' before it",
        ),
        (
            f"{RANGES}{EQUAL}{SAFE}{WEIGHTS}",
            "'equalization' needs a float network whose activation statistics are known, and 'ranges' be",
        ),
        (f"{RANGES}{SAFE}", "the steps leave float weights"),
        ("", "the steps leave float weights"),
        (
            f"{RANGES}{SAFE}layers = 'a*'\n{WEIGHTS}",
            "'rounding_safe_scales' works on the whole network: it takes no `layers`",
        ),
        (f"{RANGES}{EQUAL}", "'ranges' before it leaves .*: put 'equalization' first, or leave it out"),
        (f"{EQUAL}strength = 1.5", "step 'equalization': strength 1.5; allowed: 0.0 to 1"),
        (f"{EQUAL}strength = -0.1", "step 'equalization': strength -0.1; allowed: 0.0 to 1"),
        (f"{RANGES}{SAFE}{WEIGHTS}bits = 9", "step 'weights': bits 9; allowed: 7, 8"),
        (f"{RANGES}{SAFE}{WEIGHTS}{BIAS}layers = [3]", "layers is .3.; it must be a string or a list of strings"),
        (f"{RANGES}{SAFE}{WEIGHTS}{BIAS}layers = 3", "layers is 3; it must be a string or a list of strings"),
    ],
)
def test_a_wrong_recipe_is_one_line_that_names_what_is_wrong(text, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        recipe(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot read .*none.toml .*; `edgecnn recipes show fast` prints one"):
        recipe(str(tmp_path / "none.toml"))


def test_a_step_is_limited_to_layers(tmp_path):
    module, _ = random_weights(resolve("mobilenet_v2_0.35_96", 10), seed=4)
    graph = capture(module, (3, 96, 96), Metadata())
    kept = calibrate(graph, [normal_for(graph, 4)], keep=4)
    inside = {n.output for n in graph if n.weighted and n.source.startswith("features.1")}
    outside = {n.output for n in graph if n.weighted} - inside
    steps = [
        UNCORRECTED,
        *(UNCORRECTED.with_settings("bias_correction", **{k: "features.1*"}) for k in ("layers", "except")),
    ]
    plain, only, others = (quantize(graph, kept, each).graph for each in steps)
    for made, changed, same in ((only, inside, outside), (others, outside, inside)):
        moved = {
            node.output
            for node in made
            if node.weighted
            and not np.array_equal(made.tensors[node.inputs[2]].integers, plain.tensors[node.inputs[2]].integers)
        }
        assert moved
        assert moved <= changed
        assert not moved & same
    path = tmp_path / "mine.toml"
    path.write_text(steps[2].to_toml())
    assert recipe(str(path)).steps == steps[2].steps
    message = "step bias_correction: unknown layer 'featurs.1.'.*steps already run: equalization, int16"
    with pytest.raises(InputError, match=message):
        quantize(graph, kept, UNCORRECTED.with_settings("bias_correction", layers="featurs.1*"))


def test_a_setting_of_a_step_that_a_recipe_lacks_puts_the_step_in_its_place():
    names = [
        step.name for step in recipe("minmax").with_settings("equalization").with_settings("channel_splitting").steps
    ]
    assert names[:3] == ["equalization", "int16_promotion", "ranges"]
    assert names.index("channel_splitting") == names.index("weights") - 1
    with pytest.raises(InputError, match="unknown step 'equalisation' .did you mean 'equalization'"):
        recipe("minmax").with_settings("equalisation")
    with pytest.raises(InputError, match="'bias_correction' needs integer weights and biases, and 'adaptive_rounding'"):
        recipe("fast").with_settings("bias_correction")
    assert [step.name for step in recipe("best").quick.steps][-1] == "bias_correction"


def test_a_step_that_leaves_not_what_it_promises_is_named(monkeypatch):
    graph = capture(GOOD["residual"]().eval(), SHAPE, Metadata())
    monkeypatch.setattr(Ranges, "apply", lambda self, work: work)
    with pytest.raises(InputError, match="step 'ranges' promises activations with scales"):
        quantize(graph, calibrate(graph, [normal_for(graph, 4)], keep=4), UNCORRECTED)


def test_recipes_are_listed_without_torch():
    code = "import sys; from edgecnn.cli import main; main(['recipes']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


@dataclass(frozen=True, kw_only=True)
class ClipBiases(Step):
    """Clip float biases."""

    before, after = Stage.CALIBRATED, Stage.CALIBRATED

    limit: float = setting(0.25, "the largest magnitude", low=0.0)
    images: int = setting(2, "to look at", low=1)

    def apply(self, work):
        assert len(work.images) >= self.images
        biases = [work.graph.constant(n.inputs[2]) for n in work.graph if n.weighted]
        clipped = [replace(b, value=b.value.clip(-self.limit, self.limit)) for b in biases]
        return replace(work, graph=work.graph.with_tensors(*clipped))


class Raises(ClipBiases):
    """Raise what a user's own code may raise."""

    def apply(self, work):
        raise ZeroDivisionError


@pytest.fixture
def with_plugins(monkeypatch):
    shipped = dict(steps())
    monkeypatch.setattr("edgecnn.quant.step.registry", lambda group, kind: {**shipped, "clip_biases": ClipBiases})


def test_a_step_of_another_package_is_a_step(with_plugins, tmp_path):
    mine = recipe("minmax").with_settings("clip_biases", limit=0.125)
    assert mine.steps[0] == ClipBiases(limit=0.125)
    path = tmp_path / "mine.toml"
    path.write_text(mine.to_toml())
    assert "# Clip float biases\n[[step]]" in path.read_text()
    assert recipe(str(path)) == mine
    graph = capture(GOOD["conv_bn_relu6"]().eval(), SHAPE, Metadata())
    prepared, seen = calibrated(graph, iter([normal_for(graph, 4)]), mine)
    int8 = quantize(prepared, seen, mine).graph
    biases = [int8.tensors[n.inputs[2]].value for n in int8 if n.weighted]
    assert max(np.abs(b).max() for b in biases) == 0.125
    assert mine.to_json()["steps"][0] == {"name": "clip_biases", "limit": 0.125, "images": 2}


def test_what_a_plugin_raises_names_the_step():
    graph = capture(GOOD["residual"]().eval(), SHAPE, Metadata())
    mine = replace(recipe("minmax"), steps=(ClipBiases(), Raises(), *recipe("minmax").steps))
    with pytest.raises(ZeroDivisionError) as caught:
        quantize(graph, calibrate(graph, [normal_for(graph, 2)], keep=2), mine)
    assert caught.value.__notes__ == ["in quantization step raises (steps already run: clip_biases)"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (int, "'clip' is int; it must be a subclass of edgecnn.quant.step.Step"),
        (ClipBiases, "is 'clip_biases' by its class"),
        (type("Clip", (Step,), {}), "lacks before, after"),
    ],
)
def test_a_plugin_that_is_no_step_is_named(kind, message, monkeypatch):
    monkeypatch.setattr("edgecnn.quant.step.registry", lambda group, wanted: {"clip": kind})
    with pytest.raises(InputError, match=message):
        steps()
