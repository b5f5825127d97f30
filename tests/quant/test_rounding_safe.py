"""Every runtime rounds alike: multipliers, networks that got them, and grids on one side of zero."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import random_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from int8_builder import Int8Builder
from runtimes import WRITERS, distances, opened

from edgecnn.graph import rounding
from edgecnn.graph.capture import capture
from edgecnn.graph.contract import FIXED
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata, QParams
from edgecnn.graph.oracle import ARITHMETICS, run
from edgecnn.graph.oracle.fixed_point import multiply, quantize_multiplier
from edgecnn.models.checkpoint import random_weights
from edgecnn.models.spec import resolve
from edgecnn.quant.observers import gradient_sensitivity
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import images_needed, quantize
from edgecnn.quant.recipe import recipe
from edgecnn.quant.scales.qparams import parameters_of, with_parameters
from edgecnn.quant.scales.rounding_counts import apart, called, exact, mean_apart
from edgecnn.quant.scales.rounding_safe import is_table, swish_scale
from edgecnn.quant.step import Work
from edgecnn.quant.steps.shared_scales import added

SHARED = recipe("minmax").with_settings("shared_scales")


def sums_around_halves(q):
    """Every sum near a half of the 256 outputs, or all sums where they are few."""
    if q < 64:
        return np.arange(-256 * q, 256 * q + 1)
    halves = np.arange(-255, 256) * q + q // 2
    return np.unique(halves[:, None] + np.arange(-3, 4))


@pytest.mark.parametrize("q", [int(q) for q in rounding.EVEN[::7]] + [int(rounding.EVEN[-1])])
def test_a_sum_is_rounded_alike_once_in_float_and_twice_in_fixed_point(q):
    rng = np.random.default_rng(q)
    for _ in range(4):
        s_in, s_out = rng.uniform(0.001, 0.3, 2).astype(np.float32)
        (m,) = rounding.twice_rounded(np.array([1 / q]))[0]
        s_w = np.float32(m * float(s_out) / float(s_in))
        sums = sums_around_halves(q)
        once = np.rint(sums.astype(np.float32) * (s_in * s_w / s_out)).astype(np.int64)
        multiplier, shift = quantize_multiplier(float(s_in) * float(s_w) / float(s_out))
        twice = multiply(sums, multiplier, shift)
        np.testing.assert_array_equal(np.clip(once, -255, 255), np.clip(twice, -255, 255))
        positive = sums >= 0  # a quarter of a unit, as OpenVINO gets it, decides nothing where all go one way
        led = np.rint((sums + 0.25) * (float(s_in) * float(s_w) / float(s_out))).astype(np.int64)
        np.testing.assert_array_equal(led[positive], once[positive])
        assert rounding.past_halves(np.array([float(s_w) * s_in / s_out])).all()


@settings(max_examples=200)
@given(st.floats(1e-6, 100.0))
def test_multipliers_are_no_smaller_than_wanted_and_near_it(wanted):
    twice, once = rounding.twice_rounded(np.array([wanted]))[:, 0], rounding.once_rounded(np.array([wanted]))[0]
    assert min(*twice, once) >= wanted / rounding.ROOM * (1 - 1e-9)
    assert once <= wanted * 1.01
    assert twice[0] <= max(wanted, 1 / 2977) * (1.67 if wanted < 1 / 6 else 3.1)  # 1/8 is none: from 1/10 to 1/6


def test_an_odd_denominator_never_makes_a_half():
    wanted = np.random.default_rng(0).uniform(1e-4, 3, 200)
    for m in rounding.once_rounded(wanted):
        values = np.arange(1, int(256 / m)) * m
        assert np.abs(values - np.floor(values) - 0.5).min() > 1e-4 * min(1, m * 1000) / 4


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.booleans())
def test_random_networks_are_rounded_alike_by_every_arithmetic(seed, shared):
    graph = random_graph(seed).as_float()
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    images = np.random.default_rng(seed).normal(0, 1, (8, *shape)).astype(np.float32)
    steps = SHARED if shared else recipe("minmax")
    integer = quantize(graph, calibrate(graph, [images], keep=images_needed(graph, steps)), steps).graph
    assert_alike(integer, images)


def one_op(build, scales, zeros):
    """A graph of an op behind two convolutions whose activations have given scales, one after the other."""
    b = Int8Builder((1, 1, 1, 1))
    build(b, *(b.weighted("conv2d", b.input, (1, 1, 1, 1)) for _ in range(2)))
    made = b.graph()
    quants = {t.name: made.quant(t.name) for t in made.activations()}
    free = [name for name in quants if made.producer(name) and quants[name] is not FIXED]
    for name, scale, zero in zip(free, scales, zeros, strict=False):
        quants[name] = QParams(scale=np.array([scale]), zero_point=np.array([zero]), dtype="int8")
    return with_parameters(made.as_float(), quants)


TABLES = {
    "hard_swish": lambda b, x, y: b.op("hard_swish", x),
    "sigmoid": lambda b, x, y: b.op("sigmoid", x),
    "relu": lambda b, x, y: b.op("relu", x),
    "relu6": lambda b, x, y: b.op("relu6", x),
    "add a constant": lambda b, x, y: b.op("add", x, b.constant((1,)), activation="relu6"),
    "mul by a constant": lambda b, x, y: b.op("mul", x, b.constant((1,))),
    "swish": lambda b, x, y: b.op("mul", x, b.op("sigmoid", x)),
    "gated": lambda b, x, y: b.op("mul", x, b.op("sigmoid", y)),
    "product": lambda b, x, y: b.op("mul", x, y),
}


@pytest.mark.parametrize("kind", TABLES)
def test_exact_outputs_are_within_a_step_of_the_kernels(kind):
    graph = one_op(TABLES[kind], [0.05, 0.04, 0.03], [-10, -128, -128])
    node, parameters = graph.nodes[-1], parameters_of(graph)
    call = called(graph, node, parameters)
    steps = np.clip(exact(node.op, call) + call.zero(-1), -128, 127)
    assert np.ptp(steps) > 32
    assert np.abs(steps - ARITHMETICS["litert"][node.op](call)).max() < 1


@pytest.mark.parametrize("kind", TABLES)
def test_all_tables_of_an_op_are_equal(kind):
    rng, unequal, enlarged = np.random.default_rng([*kind.encode()]), 0, []
    for _ in range(12 if kind in ("gated", "product") else 24):
        inputs, part = np.exp(rng.uniform(np.log(0.024), np.log(0.1), 2)), rng.uniform(0.4, 1)
        output = {"gated": inputs[0], "product": inputs[0] * inputs[1] * 200}.get(kind, inputs[0]) * part
        if kind == "relu6":
            output = rng.uniform(1, 6) / 255
        if kind == "add a constant":
            output = rng.uniform(4, 8) / 255
        if kind == "mul by a constant":
            output *= 2
        zeros = [-128 if kind in ("gated", "product") else int(rng.integers(-120, 0)) for _ in "xy"]
        low = -128 if zeros[0] == -128 or "relu" in kind else zeros[0]
        graph = one_op(TABLES[kind], [*inputs, output], [*zeros, low])
        before = parameters_of(graph)
        graph = recipe("minmax").step("rounding_safe_scales").apply(Work(graph=graph, recipe=SHARED)).graph
        after = parameters_of(graph)
        enlarged += [float(after[n].scale[0] / before[n].scale[0]) for n in after]
        call = called(graph, graph.nodes[-1], after)
        first, *others = (kernels[graph.nodes[-1].op](call) for kernels in ARITHMETICS.values())
        unequal += any((first != made).any() for made in others)
    assert unequal == 0
    assert min(enlarged) > 0.97
    assert max(enlarged) < 1.05


@pytest.fixture(scope="module")
def mobilenet():
    module, _ = random_weights(resolve("mobilenet_v2_0.35_96"))
    graph = capture(module, (3, 96, 96), Metadata(model="m"))
    images = np.random.default_rng(0).normal(0, 0.5, (8, 96, 96, 3)).astype(np.float32)
    return graph, images, quantize(graph, calibrate(graph, [images], keep=8), recipe("minmax")).graph


def test_a_whole_network_is_rounded_alike_up_to_its_mean(mobilenet):
    _, images, integer = mobilenet
    assert assert_alike(integer, images) == 62


def test_adds_of_one_scale_round_nothing(mobilenet):
    graph, images, _ = mobilenet
    shared = quantize(graph, calibrate(graph, [images], keep=8), SHARED).graph
    x = shared.tensors[shared.inputs[0]].quant.quantize(images)
    adds = [n for n in shared if n.op == "add"]
    exact = [n for n in adds if len({float(shared.tensors[i].quant.scale[0]) for i in (*n.inputs, n.output)}) == 1]
    assert exact
    for node in exact:
        made = run(shared, x, keep=[*node.inputs, node.output])
        steps = [made[i].astype(int) - int(shared.tensors[i].quant.zero_point[0]) for i in (*node.inputs, node.output)]
        zero = int(shared.tensors[node.output].quant.zero_point[0])
        np.testing.assert_array_equal(np.clip(steps[0] + steps[1] + zero, -128, 127), steps[2] + zero)


def test_adds_share_a_scale_only_where_what_it_is_worth_pays(mobilenet, monkeypatch):
    graph, images, _ = mobilenet
    work = Work(graph=graph, recipe=SHARED, statistics=calibrate(graph, [images]).statistics)
    scaled = SHARED.step("ranges").apply(work)

    def scales(weights=None):
        made = scaled
        if weights is not None:
            found = {name: np.array([weight]) for name, weight in weights.items()}
            monkeypatch.setattr(gradient_sensitivity, "gradient_sensitivity", lambda *given: found)
            made = SHARED.step("shared_scales").apply(made)
        made = parameters_of(SHARED.step("rounding_safe_scales").apply(made).graph)
        return {name: float(made[name].scale[0]) for name in added(graph)}

    alike = dict.fromkeys(added(graph), 1.0)
    plain, joined = scales(), scales(alike)
    assert joined != plain
    assert scales(dict.fromkeys(alike, 0.0)) == plain
    first = {node.inputs[0] for node in graph if node.op == "add"} - {n.output for n in graph if n.op == "add"}
    guarded = scales({**alike, **dict.fromkeys(first, 1e6)})
    assert all(
        guarded[name] <= plain[name] * 1.02 for name in first
    )  # rounding-safe scales alone moves a scale by 2 % at most


def assert_alike(integer, images):
    """Until an op that arithmetics compute in their own ways; how many activations were alike."""
    x = integer.tensors[integer.inputs[0]].quant.quantize(images)
    alike = set(integer.inputs) | {t.name for t in integer.constants()}
    for node in integer:
        if all(i in alike for i in node.inputs) and not computed_apart(integer, node):
            alike.add(node.output)
    names = [t.name for t in integer.activations() if t.name in alike]
    found = {a: run(integer, x, keep=names, arithmetic=a) for a in ARITHMETICS}
    for name in names:
        for arithmetic, made in found.items():
            apart = int((made[name] != found["litert"][name]).sum())
            assert apart == 0, f"{arithmetic}: {apart} of {made[name].size} integers of {name} are not LiteRT's"
    return len(names) - 1


def computed_apart(graph, node):
    """Whether arithmetics compute a node in their own ways, with the scales that quantize() could choose."""
    if node.op == "mean":
        call = called(graph, node, parameters_of(graph))
        return mean_apart(call, math.prod(call.inputs[0].shape[1:3]) * float(call.scale(-1)) / float(call.scale(0)))
    if is_table(graph, parameters_of(graph), node):  # some have no scale left to choose: the step knows which
        return apart(node.op, called(graph, node, parameters_of(graph))) > 0
    return node.op == "softmax"


class Gated(torch.nn.Module):
    """Hard swish, squeeze-excite with a hard sigmoid, a residual sum, swish, an average pool and a mean."""

    def __init__(self):
        super().__init__()
        self.stem, self.project = torch.nn.Conv2d(3, 16, 3, 2, 1), torch.nn.Conv2d(16, 16, 1)
        self.squeeze, self.excite = torch.nn.Conv2d(16, 4, 1), torch.nn.Conv2d(4, 16, 1)
        self.last, self.head = torch.nn.Conv2d(16, 24, 1), torch.nn.Linear(24, 10)

    def forward(self, x):
        x = torch.relu(self.project(torch.nn.functional.hardswish(self.stem(x) * 4)))
        gate = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        y = self.project(x * torch.nn.functional.hardsigmoid(gate))
        y = torch.nn.functional.silu(self.last(self.project(y) + y))
        return self.head(torch.nn.functional.avg_pool2d(y, 9, 1).mean((2, 3)))


@pytest.fixture(scope="module")
def gated():
    torch.manual_seed(3)
    graph = capture(Gated().eval(), (3, 32, 32), Metadata(model="gated"))
    images = np.random.default_rng(0).normal(0, 1, (16, 32, 32, 3)).astype(np.float32)
    return images, quantize(graph, calibrate(graph, [images], keep=16), recipe("minmax")).graph


def test_gates_and_swishes_are_rounded_alike_by_every_arithmetic(gated):
    images, integer = gated
    assert {n.op for n in integer} >= {"hard_swish", "mean", "add", "mul", "sigmoid", "avg_pool2d"}
    assert assert_alike(integer, images) == len(integer.nodes)


@pytest.mark.parametrize(("target", "kernels"), [("tflite", "reference"), ("tflite", "xnnpack"), ("onnx", "exact")])
def test_gates_and_swishes_are_the_same_in_runtimes(target, kernels, gated, tmp_path):
    images, integer = gated
    session = opened(target, WRITERS[target].convert(integer, precision="int8"), tmp_path, kernels)
    x = integer.tensors[integer.inputs[0]].quant.quantize(images)
    assert distances(integer, session, x).max() == 0


def test_placed_zero_points_change_labels_and_not_the_network(mobilenet):
    graph, images, sided = mobilenet
    plain = quantize(graph, calibrate(graph, [images], keep=8), recipe("minmax").without("zero_point_placement")).graph
    signed = [n.output for n in plain if n.op == "conv2d" and n.attrs["activation"] == "none"]
    assert len(signed) == 17
    assert all(-128 < plain.tensors[n].quant.zero_point[0] < 127 for n in signed)
    assert {int(sided.tensors[n].quant.zero_point[0]) for n in signed} == {-128, 127}
    x = plain.tensors[plain.inputs[0]].quant.quantize(images)
    first = signed[0]  # no add lies before it, so only the few sums next to halves may go the other way
    before, after = (run(g, x, keep=[first])[first].astype(int) for g in (plain, sided))
    assert np.abs(before - after).max() <= 1
    assert (before != after).mean() < 0.01
    a, b = (TorchGraph(g.as_float())(torch.from_numpy(images)).numpy() for g in (plain, sided))
    np.testing.assert_allclose(a, b, atol=1e-3 * np.abs(a).max())
    again = recipe("minmax").step("zero_point_placement").apply(Work(graph=sided, recipe=SHARED)).graph
    assert {t.name for t in again.tensors.values() if t is not sided.tensors[t.name]} == set()


def test_a_hard_swish_reads_a_scale_that_divides_three():
    for wanted, allowed in ((0.1, 1.03), (0.05, 1.02), (0.0236, 1.01), (0.02, 1.25), (0.01, 1.01), (0.9, 1.2)):
        made = swish_scale(wanted)
        assert 3 / made == pytest.approx(round(3 / made))
        assert 0.9 < made / wanted <= allowed
    assert swish_scale(0.0201) == 3 / 127  # more steps to 3 than a byte holds twice cost a little range
    assert swish_scale(5.0) == 5.0


@pytest.mark.parametrize("side", [1, 2, 4, 7, 8, 16, 28])
def test_a_mean_is_alike_everywhere_or_wherever_it_is_rounded_once(side):
    rng, exact, once = np.random.default_rng(side), 0, []
    for _ in range(20):
        scale = rng.uniform(0.01, 0.1)
        b = Int8Builder((1, side, side, 1))
        b.op("mean", b.weighted("conv2d", b.input, (1, 1, 1, 1)))
        made = b.graph()
        quants = {t.name: made.quant(t.name) for t in made.activations()}
        scales = (scale, scale * rng.uniform(0.15, 0.9))
        for node, each in zip(made, scales, strict=True):
            quants[node.output] = QParams(scale=np.array([each]), zero_point=np.array([-128]), dtype="int8")
        work = Work(graph=with_parameters(made.as_float(), quants), recipe=SHARED)
        after = parameters_of(recipe("minmax").step("rounding_safe_scales").apply(work).graph)
        assert 0.98 < after[made.outputs[0]].scale[0] / np.float32(scales[1]) <= 1.21
        call = called(made, made.nodes[-1], after)
        pixels = rng.integers(-128, 128, (2_000, side, side, 1)).astype(np.int8)
        found = {a: kernels["mean"](replace(call, values=[pixels])) for a, kernels in ARITHMETICS.items()}
        once.append(all((found[a] == found["onnxruntime"]).all() for a in ("xnnpack", "xnnpack_arm", "openvino")))
        exact += not mean_apart(call, side**2 * float(call.scale(-1)) / float(call.scale(0)))
    assert all(once)
    assert exact >= {1: 20, 2: 6, 4: 6, 7: 6, 8: 16, 16: 12, 28: 0}[side]


@pytest.mark.parametrize("side", [4, 8, 16])
def test_means_of_pixels_around_zero_are_further_from_halves_than_their_zero_point_loses(side):
    b = Int8Builder((1, side, side, 1))
    b.op("mean", b.weighted("conv2d", b.input, (1, 1, 1, 1)))
    made, count = b.graph(), side**2
    quants = {t.name: made.quant(t.name) for t in made.activations()}
    for ratio in np.linspace(1, 6, 11):
        for node, scale, zero in zip(made, (0.1, 0.1 / ratio), (9, -1), strict=True):
            quants[node.output] = QParams(scale=np.array([scale]), zero_point=np.array([zero]), dtype="int8")
        work = Work(graph=with_parameters(made.as_float(), quants), recipe=SHARED)
        after = parameters_of(recipe("minmax").step("rounding_safe_scales").apply(work).graph)
        source, mean = (after[node.output] for node in made)
        step = count * float(mean.scale[0]) / float(source.scale[0])
        sums = np.arange(-int(128 * step), int(128 * step)) / step
        lost = count * (int(source.zero_point[0]) + 128) * 2.0**-23 / step  # as much as OpenVINO's float32 may
        assert np.abs(sums - np.floor(sums) - 0.5).min() > lost
