"""Post-training quantization: the contract holds for every graph, errors stay small, and bad values are named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn import normal_for
from golden_files import golden
from graphs import random_graph
from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from int8_builder import float_graph
from seen import SHAPE, UNCORRECTED, range_of
from torch import nn
from user_modules import GOOD

from edgecnn.errors import InputError
from edgecnn.graph.capture import capture
from edgecnn.graph.contract import FIXED, check_integers
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Constant, Metadata
from edgecnn.graph.oracle import run
from edgecnn.models import resolve
from edgecnn.models.checkpoint import random_weights
from edgecnn.quant.observers.clipping import mse_range, percentile_range
from edgecnn.quant.observers.histogram import calibrate
from edgecnn.quant.pipeline import images_needed, quantize, quantize_weights
from edgecnn.quant.recipe import recipe, recipes
from edgecnn.quant.scales import kernel_limits, qparams
from edgecnn_converters.tflite import convert

SQNR = golden("sqnr")["steps"]


def quantized(graph, name="fast", count=16):
    steps = recipe(name)
    return quantize(graph, calibrate(graph, [normal_for(graph, count)], keep=images_needed(graph, steps)), steps).graph


def sqnr(graph, int8, x):
    """Of the oracle's output beside float."""
    want = TorchGraph(graph)(torch.from_numpy(x)).numpy()
    into, out = (int8.tensors[n].quant for n in (int8.inputs[0], int8.outputs[0]))
    got = out.dequantize(run(int8, into.quantize(x))[int8.outputs[0]])
    return 10 * np.log10((want**2).mean() / max(((want - got) ** 2).mean(), 1e-30) + 1e-30)


@pytest.mark.parametrize("name", recipes())
@pytest.mark.parametrize("module", GOOD)
def test_every_module_becomes_a_close_int8_network(module, name):
    torch.manual_seed(1)
    graph = capture(GOOD[module]().eval(), SHAPE, Metadata(model=module))
    int8 = quantized(graph, name)
    check_integers(int8)
    assert int8.precision == "int8"
    assert sqnr(graph, int8, normal_for(graph, 16)) > (12 if module == "softmax" else 20)


@settings(max_examples=40, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6), name=st.sampled_from(sorted(recipes())))
def test_random_networks_meet_the_contract(seed, pieces, name):
    note(f"random_graph({seed}, {pieces})")
    graph = float_graph(random_graph(seed, pieces))
    int8 = quantized(graph, name, 4)
    check_integers(int8)
    assert len(convert(int8, precision="int8").files[".tflite"])


@settings(max_examples=200)
@given(low=st.floats(-1e4, 1e4), high=st.floats(-1e4, 1e4))
def test_zero_is_exact_and_the_range_is_covered(low, high):
    low, high = min(low, high), max(low, high)
    quant = qparams.activation_qparams(low, high)
    step = float(quant.scale[0])
    assert quant.dequantize(quant.quantize(np.zeros(1)))[0] == 0
    ends = np.array([min(low, 0), max(high, 0)])
    assert np.abs(quant.dequantize(quant.quantize(ends)) - ends).max() <= step * 0.51 + 1e-6


@settings(max_examples=100)
@given(arrays.arrays(np.float32, (4, 9), elements=st.floats(-100, 100, width=32)), st.sampled_from(["minmax", "mse"]))
def test_weights_are_nearest_symmetric_and_in_range(weight, method):
    scales = qparams.weight_scales(weight, method)
    tensor = qparams.quantize_weight(Constant(name="w", value=weight), scales)
    assert np.isfinite(scales).all()
    assert (scales > 0).all()
    assert np.abs(tensor.integers.astype(int)).max() <= 127
    if method == "minmax":
        real = tensor.quant.dequantize(tensor.integers)
        assert (np.abs(real - weight).max(axis=1) <= scales * 0.5001 + 1e-30).all()


def test_mse_ranges_clip_an_outlier_and_never_do_worse():
    rng = np.random.default_rng(0)
    samples = np.concatenate([rng.normal(0, 1, 500_000), [20.0]]).astype(np.float32)
    seen = range_of(samples)
    low, high = mse_range(seen)
    assert high < 18

    def error(a, b):
        quant = qparams.activation_qparams(a, b)
        return np.square(quant.dequantize(quant.quantize(samples)) - samples).mean()

    assert error(low, high) < error(seen.low, seen.high)


@pytest.mark.parametrize("second", [6.0, 25.0])
def test_logits_are_clipped_above_any_second_largest(second):
    module = nn.Sequential(nn.Flatten(), nn.Linear(3, 3, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(torch.eye(3))
    graph = capture(module.eval(), (3, 1, 1), Metadata(model="logits"))
    x = np.random.default_rng(0).normal(0, 1, (120_000, 1, 1, 3)).astype(np.float32)
    x[7, 0, 0], x[9, 0, 0] = (40.0, 1.0, 0.0), (second + 2, second, 0.0)
    seen = calibrate(graph, np.split(x, 60))  # of larger batches not every value is looked at
    lists = (UNCORRECTED.with_settings("ranges", logits=name) for name in ("minmax", "mse"))
    whole, clipped = (quantize(graph, seen, steps).graph.tensors[graph.outputs[0]].quant for steps in lists)
    end, clipped_end = (float(q.dequantize(np.array([127], np.int8))[0]) for q in (whole, clipped))
    assert end == pytest.approx(40, abs=0.2)
    assert clipped_end == pytest.approx(1.1 * second, abs=0.2) if second > 20 else 6.6 <= clipped_end < 30


def test_an_output_that_is_no_vector_is_never_clipped():
    graph = capture(nn.Conv2d(3, 2, 1).eval(), (3, 8, 8), Metadata(model="map"))
    x = np.random.default_rng(0).normal(0, 1, (64, 8, 8, 3)).astype(np.float32)
    x[0, 0, 0] = 40
    made = [
        quantize(graph, calibrate(graph, [x]), UNCORRECTED.with_settings("ranges", logits=name)).graph
        for name in ("minmax", "mse")
    ]
    assert made[0].tensors[graph.outputs[0]].quant.same_as(made[1].tensors[graph.outputs[0]].quant)


def test_a_bias_too_large_for_int32_widens_its_weights():
    narrow, source = np.array([1e-9, 1e-3], np.float32), qparams.rescaled(qparams.activation_qparams(0, 1), 1e-6)
    scales = kernel_limits.clamp_weight_scales(narrow, source, source, np.array([5.0, 0.5]))
    assert 5.0 / (1e-6 * float(scales[0])) <= 2**30 * 1.001
    assert scales[1] == np.float32(1e-3)


def test_a_quantized_graph_is_not_quantized_again():
    int8 = quantized(capture(GOOD["residual"]().eval(), SHAPE, Metadata()))
    for again in (lambda: quantize(int8, None, recipe("fast")), lambda: quantize_weights(int8, recipe("fast"))):
        with pytest.raises(InputError, match="int8 already"):
            again()


def test_weight_only_leaves_activations_and_biases_float():
    graph = capture(GOOD["conv_bn_relu6"]().eval(), SHAPE, Metadata())
    w8 = quantize_weights(graph, recipe("fast"))
    assert w8.precision == "w8"
    x = torch.from_numpy(normal_for(graph, 4))
    exact, coarse = TorchGraph(graph)(x), TorchGraph(w8, integers=True)(x)
    assert not torch.equal(exact, coarse)
    torch.testing.assert_close(exact, coarse, rtol=0.1, atol=0.05)


def test_bias_correction_moves_the_means_to_the_float_ones():
    module, _ = random_weights(resolve("mobilenet_v2_0.35_96", 10), seed=4)
    graph = capture(module, (3, 96, 96), Metadata())
    x = normal_for(graph, 32)
    kept = calibrate(graph, [x], keep=32)
    widest = UNCORRECTED.with_settings("ranges", method="minmax")
    lists = (widest, widest.with_settings("bias_correction"))
    plain, corrected = (quantize(graph, kept, steps).graph for steps in lists)
    assert sqnr(graph, corrected, x) > sqnr(graph, plain, x)


def test_recipes_are_known_by_name():
    assert recipe("fast") is recipes()["fast"]
    with pytest.raises(InputError, match="unknown recipe 'fsat'.*did you mean 'fast'"):
        recipe("fsat")
    with pytest.raises(InputError, match="step 'ranges': unknown method 'kl'"):
        recipe("fast").with_settings("ranges", method="kl")


def test_a_sigmoid_is_joined_with_what_has_another_scale():
    class Joined(torch.nn.Module):
        def forward(self, x):
            return torch.cat([torch.sigmoid(x), 8 * x], 1)

    graph = capture(Joined().eval(), SHAPE, Metadata())
    int8 = quantized(graph)
    check_integers(int8)
    assert sqnr(graph, int8, normal_for(graph, 16)) >= SQNR["joined_sigmoid"]
    (sigmoid,) = (node.output for node in int8 if node.op == "sigmoid")
    assert int8.quant(sigmoid).same_as(FIXED)
    assert int8.as_float().nodes[-1].op == "concat"


def test_a_dead_layer_is_quantized_and_runs(tmp_path):
    from edgecnn_targets.runtimes.litert import LiteRtSession

    class Dead(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Conv2d(3, 3, 1), torch.nn.Conv2d(3, 3, 1)
            self.a.weight.data *= 0
            self.a.bias.data.fill_(-1)

        def forward(self, x):
            dead = torch.relu(self.a(x))
            return self.b(x) + self.b(dead) * dead + dead

    graph = capture(Dead().eval(), SHAPE, Metadata())
    int8 = quantized(graph)
    path = tmp_path / "d.tflite"
    path.write_bytes(convert(int8, precision="int8").files[".tflite"])
    x = int8.tensors["input"].quant.quantize(normal_for(graph, 3))
    for kernels, worst in (("reference", 0), ("xnnpack", 2)):
        got = LiteRtSession(path, kernels=kernels).run(x).astype(int)
        assert np.abs(got - run(int8, x)[int8.outputs[0]]).max() <= worst


@pytest.mark.parametrize("module", ["conv_bn_relu6", "residual"])
def test_per_tensor_weights_have_one_scale(module):
    torch.manual_seed(0)
    graph = capture(GOOD[module]().eval(), SHAPE, Metadata())
    int8 = quantize(
        graph,
        calibrate(graph, [normal_for(graph, 8)], keep=8),
        recipe("fast").with_settings("weights", per_tensor=True),
    ).graph
    check_integers(int8)
    for node in (n for n in int8 if n.op in ("conv2d", "fully_connected")):
        weight, bias = (int8.tensors[i] for i in node.inputs[1:])
        assert weight.quant.axis is bias.quant.axis is None
        assert weight.quant.scale.size == bias.quant.scale.size == 1
    assert sqnr(graph, int8, normal_for(graph, 16)) >= SQNR[f"per_tensor_{module}"]


def test_reduced_range_keeps_weights_in_seven_bits():
    graph = capture(GOOD["conv_bn_relu6"]().eval(), SHAPE, Metadata())
    seven = recipe("fast").with_settings("weights", bits=7)
    int8 = quantize(graph, calibrate(graph, [normal_for(graph, 8)], keep=8), seven).graph
    weights = [int8.tensors[n.inputs[1]].integers.astype(int) for n in int8 if n.op in ("conv2d", "fully_connected")]
    assert max(np.abs(w).max() for w in weights) == 63
    check_integers(int8)
    with pytest.raises(InputError, match="bits 6; allowed: 7, 8"):
        recipe("fast").with_settings("weights", bits=6)


def test_percentile_ranges_leave_the_tails_out():
    samples = np.linspace(-1, 3, 100_001, dtype=np.float32)
    seen = range_of(samples)
    assert percentile_range(seen, 99) == pytest.approx((-0.96, 2.96), abs=1e-4)
    assert percentile_range(seen, 100) == pytest.approx((-1, 3))


@pytest.mark.parametrize(("step", "settings"), [("ranges", {"method": "percentile", "percentile": 95.0}),
                                                ("weights", {"per_tensor": True})])  # fmt: skip
def test_a_step_limited_to_layers_leaves_the_others_as_minmax_does(step, settings):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    graph = capture(module, SHAPE, Metadata())
    seen = calibrate(graph, [normal_for(graph, 8)])
    none = recipe("minmax")

    def grids(changed):
        int8 = quantize(graph, seen, changed).graph
        return {n.output: int8.tensors[n.output if step == "ranges" else n.inputs[1]].quant for n in int8}

    first, second, third = [n.output for n in graph]
    plain, everywhere = grids(none), grids(none.with_settings(step, **settings))
    limited = grids(none.with_settings(step, **settings, layers=second))
    assert limited[first].same_as(plain[first])
    assert not everywhere[first].same_as(plain[first])
    assert limited[second].scale.shape == everywhere[second].scale.shape
    assert not limited[second].same_as(plain[second])
    others = {"layers": "*", "except": [first, third]}
    assert all(
        quant.same_as(limited[name]) for name, quant in grids(none.with_settings(step, **settings, **others)).items()
    )
