"""Block-wise reconstruction: whole blocks, neighbours of the float weights only, and nearer to the float network."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from graphs import float_graph, random_graph
from hypothesis import given, note, settings
from hypothesis import strategies as st
from zoo import GOOD

from edgecnn.cli import main
from edgecnn.errors import InputError, UnsupportedError
from edgecnn.files import sha256
from edgecnn.graph.capture import capture
from edgecnn.graph.contract import WEIGHTED, check_integers
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.loading import load as load_network
from edgecnn.quant import blocks as module
from edgecnn.quant.blocks import Blocks, blocks
from edgecnn.quant.calibrate import calibrate
from edgecnn.quant.ptq import quantize
from edgecnn.quant.recipe import Recipe
from edgecnn.quant.reconstruct import reconstruct
from edgecnn.quant.resume import Unfinished
from edgecnn.quant.simulate import SimulatedGraph, encoded

NEAREST = Recipe(name="nearest", equalization=False, bias_correction=False)
DEMO = "mobilenet_v2_0.35_96"


def images(graph, count, seed=0):
    """Smooth ones: neighbouring inputs go together, as in photographs, so errors can be traded between weights."""
    shape = graph.tensors[graph.inputs[0]].shape[1:]
    noise = np.random.default_rng(seed).normal(0, 1, (count, *shape))
    return (np.cumsum(noise, axis=1) / np.sqrt(shape[0])).astype(np.float32)


def nearest(graph, x):
    return quantize(graph, calibrate(graph, [x]), NEAREST)


def captured(name):
    torch.manual_seed(0)
    return capture(GOOD[name]().eval(), (3, 12, 10), Metadata(model=name))


def error(graph, int8, x):
    """Mean squared error of the output."""
    x = torch.from_numpy(x)
    return float((SimulatedGraph(int8)(x) - TorchGraph(graph)(x)).square().mean())


def assert_same_integers(a, b):
    for name, tensor in a.tensors.items():
        if tensor.integers is not None:
            np.testing.assert_array_equal(tensor.integers, b.tensors[name].integers, name)


# --- blocks ---


def test_a_residual_block_is_never_cut():
    graph = load_network(DEMO, weights="random").graph
    parts = blocks(graph, 3)
    assert [node.output for part in parts for node in part] == [node.output for node in graph]
    for part, after in pairwise(parts):
        assert after.inputs == part.outputs
        assert sum(node.op in WEIGHTED for node in part) == 3
    adds = {node.output for node in graph if node.op == "add"}
    assert adds
    assert adds <= {part.outputs[0] for part in parts}


@settings(max_examples=25)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6), layers=st.integers(1, 4))
def test_pieces_one_after_another_are_the_network(seed, pieces, layers):
    note(f"random_graph({seed}, {pieces})")
    graph = float_graph(random_graph(seed, pieces))
    x = whole = torch.from_numpy(images(graph, 2))
    for part in blocks(graph, layers):
        x = TorchGraph(part)(x)
    torch.testing.assert_close(x, TorchGraph(graph)(whole))


# --- what is found ---


def in_blocks(before, x, limit=127, unfinished=None, **size):
    return reconstruct(before, x, limit, unfinished, Blocks(**{"layers": 2, "iterations": 20, **size}))


def improved(graph, before, x, iterations):
    """A whole graph as one block, from the integers that it has."""
    x = torch.from_numpy(x)
    nchw = x.permute(0, 3, 1, 2)
    given = [encoded(chunk, before.tensors[before.inputs[0]].quant) for chunk in nchw.split(4)]
    real = [module._through(TorchGraph(graph), chunk) for chunk in nchw.split(4)]
    return before.with_tensors(*module._improved(before, given, real, iterations, 127, 1.0))


@settings(max_examples=15, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 6))
def test_every_integer_is_a_neighbour_of_its_float_weight(seed, pieces):
    note(f"random_graph({seed}, {pieces})")
    graph = float_graph(random_graph(seed, pieces))
    x = images(graph, 9)
    try:
        before = nearest(graph, x)
    except UnsupportedError:
        return
    after = in_blocks(before, x, iterations=5)
    check_integers(after)
    for node in after:
        if node.op in WEIGHTED:
            weight, old = after.tensors[node.inputs[1]], before.tensors[node.inputs[1]]
            np.testing.assert_array_equal(weight.value, old.value)
            steps = weight.value / weight.quant.scale.reshape(-1, *[1] * (weight.value.ndim - 1))
            assert np.abs(weight.integers - steps).max() < 1 + 1e-4


@pytest.mark.parametrize("name", ["conv_bn_relu6", "residual", "squeeze_excite", "branches"])
def test_a_block_is_nearer_than_with_the_nearest_integers(name):
    graph = captured(name)
    x = images(graph, 64)
    before = nearest(graph, x)
    after = improved(graph, before, x, 100)
    assert any(not np.array_equal(after.tensors[n].integers, t.integers) for n, t in before.tensors.items())
    assert error(graph, after, x) < error(graph, before, x)


def test_a_block_that_is_not_nearer_on_other_images_stays_as_it_was(monkeypatch):
    graph = captured("residual")
    x = images(graph, 16)
    before = nearest(graph, x)

    def spoils(self, *rest):
        with torch.no_grad():
            for parameter in self._weights:
                parameter.zero_()

    monkeypatch.setattr(module._Search, "step", spoils)
    assert_same_integers(improved(graph, before, x, 1), before)


def test_seven_bit_weights_stay_so():
    graph = captured("residual")
    x = images(graph, 16)
    before = quantize(graph, calibrate(graph, [x]), replace(NEAREST, weight_bits=7))
    after = in_blocks(before, x, 63)
    check_integers(after)
    assert all(np.abs(after.tensors[n.inputs[1]].integers).max() <= 63 for n in after if n.op in WEIGHTED)


def test_16_bit_activations_too():
    graph = captured("residual")
    x = images(graph, 64)
    before = quantize(graph, calibrate(graph, [x]), NEAREST, "int16x8")
    check_integers(in_blocks(before, x))
    assert error(graph, improved(graph, before, x, 100), x) < error(graph, before, x)


def test_the_same_images_give_the_same_integers():
    graph = captured("residual")
    x = images(graph, 16)
    before = nearest(graph, x)
    first, second = (in_blocks(before, x) for _ in range(2))
    assert_same_integers(first, second)


def test_only_what_a_block_reads_and_makes_is_kept(monkeypatch):
    graph = captured("residual")
    x = images(graph, 16)
    together, seen = Blocks(layers=1, iterations=1), []
    after = together.after

    def watch(node, tensors, real, integers, **rest):
        after(node, tensors, real, integers, **rest)
        seen.append(len(together._given))

    monkeypatch.setattr(together, "after", watch)
    reconstruct(nearest(graph, x), x, 127, None, together)
    assert seen
    assert max(seen) <= 1
    assert seen[-1] == 0


# --- kept step by step ---


def breaks_off(monkeypatch, count):
    """A run ends when so many blocks are improved; which ones, by their outputs."""
    improve, done = module._improved, []

    def breaks(part, *rest):
        if len(done) == count:
            raise KeyboardInterrupt
        done.append(part.outputs)
        return improve(part, *rest)

    monkeypatch.setattr(module, "_improved", breaks)
    return done


def test_a_run_that_broke_off_goes_on_and_ends_in_the_same_integers(tmp_path, monkeypatch):
    graph = captured("squeeze_excite")
    x = images(graph, 16)
    before = nearest(graph, x)
    want = in_blocks(before, x, layers=1)
    improve, done = module._improved, breaks_off(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        in_blocks(before, x, layers=1, unfinished=Unfinished(tmp_path))

    def counts(part, *rest):
        done.append(part.outputs)
        return improve(part, *rest)

    monkeypatch.setattr(module, "_improved", counts)
    assert_same_integers(in_blocks(before, x, layers=1, unfinished=Unfinished(tmp_path)), want)
    assert len(done) == len(set(done)) > 1


# --- the whole command ---


def exported(out, recipe, *more):
    words = ["export", DEMO, "--target", "tflite", "--weights", "demo", "--calibration", "demo", *more]
    status = main([*words, "--calibration-images", "16", "--recipe", str(recipe), "-o", str(out)])
    return status, sha256((out / f"{DEMO}.tflite").read_bytes()) if status == 0 else ""


def test_the_command_goes_on_and_its_artifact_is_the_reference(tmp_path, monkeypatch, capfd):
    recipe, out = tmp_path / "mine.toml", tmp_path / "out"
    recipe.write_text('reconstruction = "block"\nblock_iterations = 3\nactivation_range = "learned"\nstep_epochs = 1\n')
    status, want = exported(tmp_path / "undisturbed", recipe, "--data", "demo", "--limit", "16")
    assert status == 0
    (entry,) = json.loads((tmp_path / "undisturbed" / "report.json").read_text())["entries"]
    assert entry["parity"]["max_lsb"] == 0
    improve = module._improved
    breaks_off(monkeypatch, 4)
    assert exported(out, recipe)[0] == 130
    monkeypatch.setattr(module, "_improved", improve)
    capfd.readouterr()
    assert exported(out, recipe) == (0, want)
    assert "19 steps are of an earlier run" in capfd.readouterr().err  # 15 layers, 4 blocks
    assert not (out / f"{DEMO}.unfinished").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reconstruction": "blocks"}, r"unknown reconstruction 'blocks' \(did you mean 'block'\?\)"),
        ({"activation_range": "learnt"}, r"unknown activation_range 'learnt' \(did you mean 'learned'\?\)"),
        ({"block_layers": 0}, "block_layers 0: at least 1"),
        ({"block_iterations": 0}, "block_iterations 0: at least 1"),
        ({"step_images": 0}, "step_images 0: at least 1"),
        ({"step_epochs": 0}, "step_epochs 0: at least 1"),
    ],
)
def test_a_value_that_is_not_allowed_is_named(fields, message):
    with pytest.raises(InputError, match=message):
        Recipe(name="x", **fields)
