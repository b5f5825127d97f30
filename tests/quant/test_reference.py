"""The integer oracle equals LiteRT's reference kernels, bit for bit; XNNPACK stays within the stated distance."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import pytest
from graphs import PIECES, Int8Builder, float_graph, piece_graph, random_graph, random_images
from hypothesis import given, note, settings
from hypothesis import strategies as st

from edgecnn.errors import InputError
from edgecnn.quant.reference import run
from edgecnn_converters.tflite import convert
from edgecnn_targets.litert import open_session

NOT_XNNPACK = {"relu", "relu6", "max_pool", "avg_pool"}  # alone, LiteRT keeps these to itself
NOT_XNNPACK |= {"squeeze_excite", "softmax"}  # chains that amplify one LSB
LIMITS = tomllib.loads((Path(__file__).parents[1] / "golden" / "targets.toml").read_text("utf-8"))["oracle"]


def litert(graph, images, folder, kernels="reference"):
    path = Path(folder) / "graph.tflite"
    path.write_bytes(convert(graph, precision="int8").files[".tflite"])
    return _raw(path, kernels, images)


def _raw(path, kernels, images):
    """Outputs of a file of any rank; sessions take networks that end in classes or in an image."""
    return open_session(path, kernels=kernels).run(images)


def equal(graph, images, folder):
    want = litert(graph, images, folder)
    got = run(graph, images)[graph.outputs[0]].reshape(want.shape)
    apart = np.abs(got.astype(int) - want)
    assert apart.max() == 0, f"{np.count_nonzero(apart)} of {apart.size} outputs differ, by at most {apart.max()} LSB"


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("seed", range(4))
def test_every_op_is_bit_exact(piece, seed, tmp_path):
    graph = piece_graph(piece, seed)
    equal(graph, random_images(graph, 12, seed), tmp_path)


@settings(max_examples=60, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**31), pieces=st.integers(1, 7))
def test_random_networks_are_bit_exact(seed, pieces, tmp_path_factory):
    note(f"random_graph({seed}, {pieces})")
    graph = random_graph(seed, pieces)
    equal(graph, random_images(graph, 3, seed), tmp_path_factory.mktemp("net"))


@pytest.mark.parametrize("channels", [1, 2, 600])
@pytest.mark.parametrize("activation", ["none", "relu6"])
def test_a_wide_linear_layer_rounds_once(channels, activation, tmp_path):
    builder = Int8Builder((1, 64), channels)
    graph = builder.graph(builder.weighted("fully_connected", builder.input, (channels, 64), activation=activation))
    equal(graph, random_images(graph, 200), tmp_path)


def test_a_wide_convolution_rounds_twice(tmp_path):
    builder = Int8Builder((1, 24, 24, 16), 5)
    graph = builder.graph(builder.weighted("conv2d", builder.input, (64, 1, 1, 16)))
    equal(graph, random_images(graph, 8), tmp_path)


@pytest.mark.parametrize("piece", sorted(set(PIECES) - NOT_XNNPACK))
def test_xnnpack_stays_near(piece, tmp_path):
    worst = 0
    for seed in range(4):
        graph = piece_graph(piece, seed)
        images = random_images(graph, 12, seed)
        got = litert(graph, images, tmp_path, "xnnpack").astype(int)
        worst = max(worst, np.abs(got - run(graph, images)[graph.outputs[0]].reshape(got.shape)).max())
    assert worst <= LIMITS["max_lsb_xnnpack_per_piece"], f"{piece}: {worst} LSB"


def test_a_batch_is_its_images_one_by_one():
    graph = random_graph(3, 4)
    images = random_images(graph, 5)
    together = run(graph, images)[graph.outputs[0]]
    alone = [run(graph, images[i : i + 1])[graph.outputs[0]] for i in range(5)]
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_intermediate_activations_can_be_kept():
    graph = random_graph(1, 4)
    names = [t.name for t in graph.activations()]
    kept = run(graph, random_images(graph, 2), keep=names)
    assert set(kept) == set(names)
    assert all(kept[n].shape[1:] == graph.tensors[n].shape[1:] for n in names)
    with pytest.raises(InputError, match="unknown activation 'nothing'"):
        run(graph, random_images(graph, 1), keep=["nothing"])


def test_wrong_inputs_and_float_graphs_are_refused():
    graph = piece_graph("conv", 0)
    images = random_images(graph, 1)
    with pytest.raises(InputError, match="takes int8 of shape"):
        run(graph, images.astype(np.float32))
    with pytest.raises(InputError, match="takes int8 of shape"):
        run(graph, images[:, 1:])
    with pytest.raises(InputError, match="stays float"):
        run(float_graph(graph), images)
