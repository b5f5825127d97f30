"""The guard: a step that does harm is damped or left out, and the outcome says so; one that does none stays."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain, repeat

import numpy as np
import pytest
import torch
from int8_builder import Int8Builder
from odd_networks import calibration, images, network

import edgecnn
from edgecnn.cli import main
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import QuantizedConstant
from edgecnn.preprocess import Preprocess
from edgecnn.quant import guard
from edgecnn.quant.executor import FakeQuantizedGraph
from edgecnn.quant.pipeline import calibrated, images_needed, quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.step import Stage, Step, setting, steps

MINMAX = recipe("minmax")
SEEN_BY_STEPS = []


@dataclass(frozen=True, kw_only=True)
class Spoil(Step):
    """Scale the weights of the first layer, which changes what the network computes."""

    before, after = Stage.CALIBRATED, Stage.CALIBRATED

    factor: float = setting(2.0, "of the weights", low=0.0)

    def apply(self, work):
        weight = work.graph.constant(work.graph.nodes[0].inputs[1])
        return replace(
            work, graph=work.graph.with_tensors(replace(weight, value=weight.value * np.float32(self.factor)))
        )


@dataclass(frozen=True, kw_only=True)
class Overdo(Spoil):
    """Do harm in full, and none with half of its strength."""

    strength: float = setting(1.0, "share", low=0.0, high=1)

    def damped(self):
        return replace(self, strength=self.strength / 2)

    def apply(self, work):
        return super().apply(work) if self.strength > 0.5 else work


@dataclass(frozen=True, kw_only=True)
class ShiftBias(Step):
    """Add to the integers of the last bias."""

    before, after = Stage.INTEGER, Stage.CORRECTED

    steps: int = setting(10_000, "of its grid")

    def apply(self, work):
        bias = QuantizedConstant.of(work.graph.tensors[work.graph.nodes[-1].inputs[2]])
        moved = replace(bias, integers=bias.integers + np.int32(self.steps))
        return replace(work, graph=work.graph.with_tensors(moved))


@dataclass(frozen=True, kw_only=True)
class Look(Step):
    """Change nothing; remember the images that it was given."""

    before, after = Stage.CALIBRATED, Stage.CALIBRATED

    images: int = setting(32, "to look at", low=1)

    def apply(self, work):
        SEEN_BY_STEPS.append(work.images)
        return work


def with_step(step, base=MINMAX):
    at = next((i for i, each in enumerate(base.steps) if each.before >= step.after), len(base.steps))
    return replace(base, steps=(*base.steps[:at], step, *base.steps[at:]))


def outcome(steps_, *, guarded=True, count=48, seed=1):
    graph, x = network("nothing", seed), calibration("nothing", seed, count)
    prepared, seen = calibrated(graph, iter(np.split(x, range(8, count, 8))), steps_, keep=count)
    judging = guard.judging_images(graph, count, images_needed(graph, steps_)) if guarded else 0
    return quantize(prepared, seen, steps_, judging=judging)


def integers(made):
    return {t.name: t.integers for t in made.graph.tensors.values() if isinstance(t, QuantizedConstant)}


def same(first, second):
    a, b = integers(first), integers(second)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    for tensor in first.graph.activations():
        assert tensor.quant.same_as(second.graph.quant(tensor.name))


@pytest.mark.parametrize("step", [Spoil(), Spoil(factor=0.7), ShiftBias()], ids=["spoil", "a little", "bias"])
@pytest.mark.parametrize("base", ["minmax", "fast"])
def test_a_step_that_does_harm_is_left_out_and_named(step, base):
    base = recipe("fast").without("adaptive_rounding") if base == "fast" else MINMAX
    made, without = outcome(with_step(step, base)), outcome(base)
    (harm,) = (harm for harm in made.harms if harm.step == step.name)
    assert harm.decibels > guard.CERTAIN * harm.uncertainty
    assert harm.images == 24
    assert harm.instead is None
    assert f"{step.name} is left out" in str(harm)
    assert f"{harm.decibels:.1f} dB" in str(harm)
    assert "\n" not in str(harm)
    assert made.recipe == without.recipe
    assert step.name not in [row["name"] for row in made.recipe.to_json()["steps"]]
    same(made, without)


def test_its_decibels_are_what_the_step_does():
    full, plain = (outcome(each, guarded=False) for each in (with_step(Spoil()), MINMAX))
    (harm,) = outcome(with_step(Spoil())).harms
    x = torch.from_numpy(calibration("nothing", 1)[-harm.images :])
    want = TorchGraph(network("nothing", 1))(x)
    errors = [float((FakeQuantizedGraph(made.graph)(x) - want).square().sum()) for made in (plain, full)]
    assert harm.decibels == pytest.approx(10 * np.log10(errors[1] / errors[0]), abs=3)


@pytest.mark.parametrize("step", [Spoil(factor=1.0), ShiftBias(steps=0), Look()])
def test_a_step_that_does_no_harm_stays(step):
    steps_ = with_step(step)
    made = outcome(steps_)
    assert made.harms == ()
    assert made.recipe == steps_
    same(made, outcome(MINMAX))


def judged_by(monkeypatch, errors):
    """Replace the errors of the judging images, by the graph and whether its biases are corrected to compare."""
    monkeypatch.setattr(guard._Judge, "errors", lambda self, works, *, centred: errors(works[-1].graph, centred))


def test_what_corrects_biases_is_compared_with_what_would_be_made_without_it(monkeypatch):
    """Not with biases that are corrected for the comparison alone."""
    centred_, as_it_is, corrected = np.full(24, 1.0), np.full(24, 3.0), np.full(24, 2.0)
    plain = integers(outcome(MINMAX))

    def errors(graph, centred):
        name = graph.nodes[-1].inputs[2]
        changed = not np.array_equal(graph.tensors[name].integers, plain[name])
        return corrected if changed else centred_ if centred else as_it_is

    judged_by(monkeypatch, errors)
    made = outcome(with_step(ShiftBias()))
    assert made.harms == ()
    assert "shift_bias" in [step.name for step in made.recipe.steps]


@pytest.mark.parametrize(("factor", "left_out"), [(1.0, False), (1.02, False), (1.5, True)])
def test_a_step_is_left_out_only_if_the_recipe_without_it_is_better(monkeypatch, factor, left_out):
    """By more than chance: it looked harmful on its own, with biases that were corrected for the comparison."""
    usual, other = np.random.default_rng(0).lognormal(0, 1, (2, 24))
    graph = network("nothing", 1)
    weight = graph.constant(graph.nodes[0].inputs[1])

    def errors(made, centred):
        if np.array_equal(made.constant(weight.name).value, weight.value):
            return usual
        return 4 * usual if centred else factor * usual.sum() / other.sum() * other

    judged_by(monkeypatch, errors)
    made = outcome(with_step(Spoil()))
    assert ("spoil" in [harm.step for harm in made.harms]) is left_out
    assert ("spoil" in [step.name for step in made.recipe.steps]) is not left_out


def test_half_of_a_step_is_tried_before_it_is_left_out():
    made = outcome(with_step(Overdo()))
    (harm,) = made.harms
    assert harm.halved
    assert harm.instead == Overdo(strength=0.5)
    assert "overdo works with half of its strength" in str(harm)
    assert made.recipe == with_step(Overdo(strength=0.5))
    same(made, outcome(MINMAX))


def test_one_of_two_steps_of_a_name_is_left_out_alone():
    steps_ = with_step(Spoil(), with_step(Spoil(factor=1.0)))
    made = outcome(steps_)
    assert [harm.step for harm in made.harms] == ["spoil"]
    assert made.recipe == with_step(Spoil(factor=1.0))


def test_without_the_guard_every_step_stays():
    steps_ = with_step(Spoil())
    made = outcome(steps_, guarded=False)
    assert made.harms == ()
    assert made.recipe == steps_
    name = made.graph.nodes[0].inputs[1]
    spoilt, exact = (each.graph.constant(name).value for each in (made, outcome(MINMAX)))
    np.testing.assert_array_equal(spoilt, 2 * exact)


@pytest.mark.parametrize("count", [1, 8, 15])
def test_too_few_images_judge_nothing(count):
    assert guard.judging_images(network("nothing", 1), count) == 0
    assert outcome(with_step(Spoil()), count=count).harms == ()


def test_more_images_judge_small_networks_than_large_ones():
    small = network("nothing", 1)
    assert guard.judging_images(small) == guard.MOST
    assert guard.judging_images(small, 300, 128) == 150
    assert guard.judging_images(small, 300, 200) == 100
    assert guard.judging_images(small, 300, 400) == guard.ENOUGH
    assert guard.judging_images(small, 100, 128) == 25
    b = Int8Builder((1, 256, 256, 64))
    b.weighted("conv2d", b.input, (64, 3, 3, 64), padding=(1, 1, 1, 1))
    assert guard.judging_images(b.graph()) == guard.LEAST


def test_judging_images_decide_nothing_else():
    SEEN_BY_STEPS.clear()
    outcome(with_step(Look()))
    every = calibration("nothing", 1)
    assert SEEN_BY_STEPS
    for given in SEEN_BY_STEPS:
        (images,) = given.arrays.values()
        np.testing.assert_array_equal(images, every[:32])


def test_the_whole_is_judged_against_plain_rounding(monkeypatch):
    """Steps that are each within chance, but not together: plain rounding to nearest is what remains."""
    steps_ = recipe("fast")
    trials = sum(step != step.plain() for step in steps_.steps if step.before >= Stage.CALIBRATED)
    found = chain([(0.1, 0.1)] * trials, repeat((1.0, 0.1)))
    monkeypatch.setattr(guard, "grown_by", lambda before, after: next(found))
    made = outcome(steps_)
    assert [harm.step for harm in made.harms] == [guard.ALL]
    assert [step.name for step in made.recipe.steps] == [
        "input_quantization",
        *(s.name for s in recipe("minmax").steps),
    ]
    assert made.recipe.step("ranges").method == "minmax"
    assert {step.name for step in made.recipe.steps}.isdisjoint({"equalization", "adaptive_rounding"})
    same(made, outcome(made.recipe, guarded=False))


def test_growth_is_in_decibels_and_as_uncertain_as_its_images():
    rng = np.random.default_rng(0)
    before = rng.lognormal(0, 1, 20)
    assert guard.grown_by(before, before) == (0, 0)
    assert guard.grown_by(before, 2 * before) == pytest.approx((10 * np.log10(2), 0), abs=1e-9)
    assert guard.grown_by(2 * before, before)[0] == pytest.approx(-10 * np.log10(2))
    one = before.copy()
    one[3] += before.sum()  # one image alone doubles the sum
    grown, uncertainty = guard.grown_by(before, one)
    assert grown == pytest.approx(10 * np.log10(2))
    assert grown < guard.CERTAIN * uncertainty
    found = [guard.grown_by(a, a * rng.lognormal(0, 0.5, 20)) for a in rng.lognormal(0, 1, (500, 20))]
    assert np.mean([abs(g) > guard.CERTAIN * u for g, u in found]) < 0.2
    assert guard.grown_by(np.zeros(8), np.zeros(8))[0] == 0


def test_the_same_images_give_the_same_outcome():
    first, second = (outcome(with_step(Spoil(), recipe("fast"))) for _ in range(2))
    assert first.harms == second.harms
    assert first.recipe == second.recipe
    same(first, second)


# --- by the public functions ---


@pytest.fixture
def with_plugins(monkeypatch):
    shipped = dict(steps())
    monkeypatch.setattr("edgecnn.quant.step.registry", lambda group, kind: {**shipped, "spoil": Spoil, "look": Look})


def named():
    graph = network("nothing", 1)
    metadata = replace(graph.metadata, preprocess=Preprocess(mean=(127.5,) * 3, std=(50.0,) * 3))
    return edgecnn.Network(graph=replace(graph, metadata=metadata), name="odd")


def levels(count):
    return np.clip(127.5 + 50 * images(1, count, 4), 0, 255).astype(np.uint8)


def test_a_finding_names_the_step_and_the_manifest_lacks_it():
    made = edgecnn.quantize(named(), levels(64), recipe=with_step(Spoil()))
    (finding,) = (f for f in made.findings if f.code == "step_left_out")
    assert finding.severity == "info"
    assert finding.text.startswith("spoil is left out")
    recorded = made.graph.metadata.quantization["recipe"]["steps"]
    assert [row["name"] for row in recorded] == [step.name for step in MINMAX.steps]
    every = edgecnn.quantize(named(), levels(64), recipe=with_step(Spoil()), guard=False)
    assert not [f for f in every.findings if f.code == "step_left_out"]
    assert "spoil" in [row["name"] for row in every.graph.metadata.quantization["recipe"]["steps"]]


def test_of_all_calibration_images_a_share_judges():
    made = edgecnn.quantize(named(), levels(300), recipe=with_step(Spoil()))
    (finding,) = (f for f in made.findings if f.code == "step_left_out")
    needed = images_needed(named().graph, MINMAX)
    assert f"on {guard.judging_images(named().graph, 300, needed)} calibration images" in finding.text


def test_the_command_keeps_every_step_on_demand(with_plugins, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text(with_step(Spoil()).to_toml())
    words = ["export", "mobilenet_v2_0.35_96", "--weights", "demo", "--calibration", "demo"]
    words += ["--calibration-images", "32", "--target", "tflite", "--recipe", str(path)]
    found = []
    for more in ([], ["--no-guard"]):
        out = tmp_path / f"out{len(found)}"
        main([*words, *more, "--allow-loss", "-o", str(out)])
        capsys.readouterr()
        graph = edgecnn.load(out / "mobilenet_v2_0.35_96.edgecnn").graph
        found.append([row["name"] for row in graph.metadata.quantization["recipe"]["steps"]])
    assert "spoil" not in found[0]
    assert "spoil" in found[1]
