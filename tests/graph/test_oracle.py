"""The integer oracle equals LiteRT's reference kernels, bit for bit, and rounds as other runtimes do where asked to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fuzz.networks import NO_REFERENCE
from graphs import MORE_PIECES, PIECES, piece_graph, random_graph
from int8_builder import Int8Builder, float_graph, random_images
from runtimes import limits

from edgecnn.errors import InputError
from edgecnn.graph.oracle import run
from edgecnn_converters.tflite import convert
from edgecnn_targets.runtimes.litert import LiteRtSession


def litert(graph, images, folder, kernels="reference"):
    path = Path(folder) / "graph.tflite"
    path.write_bytes(convert(graph, precision="int8").files[".tflite"])
    return _raw(path, kernels, images)


def _raw(path, kernels, images):
    """Outputs of a file of any rank; sessions take networks that end in classes or in an image."""
    return LiteRtSession(path, kernels=kernels).run(images)


def equal(graph, images, folder):
    want = litert(graph, images, folder)
    got = run(graph, images)[graph.outputs[0]].reshape(want.shape)
    apart = np.abs(got.astype(int) - want)
    assert apart.max() == 0, f"{np.count_nonzero(apart)} of {apart.size} outputs differ, by at most {apart.max()} LSB"


@pytest.mark.parametrize("piece", [p for p in (*PIECES, *MORE_PIECES) if p not in NO_REFERENCE])
@pytest.mark.parametrize("seed", range(4))
def test_every_op_is_bit_exact(piece, seed, tmp_path):
    graph = piece_graph(piece, seed)
    equal(graph, random_images(graph, 12, seed), tmp_path)


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


def test_fast_runtimes_round_once(tmp_path):
    """Wide enough to tell the arithmetics apart: XNNPACK is its own, and not LiteRT's reference kernels'."""
    builder = Int8Builder((1, 24, 24, 16), 5)
    graph = builder.graph(builder.weighted("conv2d", builder.input, (64, 1, 1, 16)))
    images = random_images(graph, 8)
    name = graph.outputs[0]
    twice, once = (run(graph, images, arithmetic=a)[name].astype(int) for a in ("litert", "xnnpack"))
    got = litert(graph, images, tmp_path, "xnnpack").astype(int)
    assert np.abs(got - once).max() <= limits()["xnnpack"]["piece"]
    assert 0 < np.count_nonzero(got != twice) < got.size / 100
    assert np.abs(got - twice).max() == 1
    with pytest.raises(InputError, match="unknown arithmetic 'xnnpak' \\(did you mean 'xnnpack'"):
        run(graph, images, arithmetic="xnnpak")


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
