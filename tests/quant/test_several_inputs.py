"""Several inputs and outputs, any channels, vectors and sound: through calibration, guard, steps and oracle."""

from __future__ import annotations

import numpy as np
import pytest
from ports import NETWORKS, inputs, samples

import edgecnn
from edgecnn.data.feed import Feed
from edgecnn.errors import InputError
from edgecnn.graph.batch import Batch
from edgecnn.graph.interpreter import TorchGraph, tensors
from edgecnn.graph.oracle import run
from edgecnn.quant.executor import FakeQuantizedGraph
from edgecnn.quant.sensitivity import sensitivity

QUIET = edgecnn.Progress()


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("recipe", ["fast", "best"])
def test_every_output_of_a_quantized_network_is_near_float(name, recipe):
    network = NETWORKS[name]()
    made = edgecnn.quantize(network, samples(network, 64), recipe=recipe, progress=QUIET)
    graph = made.graph
    feed = Feed.of(graph)
    fed = feed.inputs(feed.taken(samples(network, 32, 2)))
    want = TorchGraph(network.graph).run(tensors(inputs(network, 32)))
    integers = {n: graph.quant(n).quantize(x) for n, x in fed.arrays.items()}
    exact = run(graph, integers)
    assert set(exact) == set(graph.outputs) == set(network.outputs)
    simulated = FakeQuantizedGraph(graph).run(tensors(fed))
    for output in graph.outputs:
        real = want[output].numpy()
        for got in (graph.quant(output).dequantize(exact[output]), simulated[output].numpy()):
            assert got.shape == real.shape
            noise = np.square(got - real).sum() / np.square(real - real.mean()).sum()
            assert -10 * np.log10(noise) > 18, output  # 19.3 measured, of the sound's: random weights


def test_each_output_has_a_scale_of_its_own():
    network = NETWORKS["detector"]()
    graph = edgecnn.quantize(network, samples(network), progress=QUIET).graph
    boxes, scores = (float(graph.quant(name).scale[0]) for name in graph.outputs)
    assert boxes > 10 * scores


def test_an_image_input_takes_levels_exactly_and_others_their_range():
    network = NETWORKS["detector"]()
    graph = edgecnn.quantize(network, samples(network), progress=QUIET).graph
    assert float(graph.quant("image").scale[0]) == np.float32(1 / 127.5)
    assert float(graph.quant("meta").scale[0]) < 0.1


def test_samples_come_as_mappings_tuples_archives_and_datasets(tmp_path):
    network = NETWORKS["detector"]()
    given = samples(network)
    np.savez(tmp_path / "a.npz", **given)
    rows = [{name: array[k] for name, array in given.items()} for k in range(40)]
    ways = {
        "mapping": given,
        "archive": tmp_path / "a.npz",
        "dictionaries": iter(rows),
        "tuples": [tuple(row.values()) for row in rows],
        "with labels": [(row, 0) for row in rows],
        "labels last": [(*row.values(), 0) for row in rows],
    }
    made = {}
    for way, data in ways.items():
        quantized = edgecnn.quantize(network, data, recipe="minmax", progress=QUIET, seed=0)
        made[way] = [t.quant.scale.tolist() for t in quantized.graph.activations()]
    first = made.pop("mapping")
    assert all(scales == first for scales in made.values()), made


def test_grey_images_are_read_in_one_channel(tmp_path):
    from PIL import Image

    network = NETWORKS["grey"]()
    for k, pixels in enumerate(samples(network)["image"]):
        Image.fromarray(pixels[..., 0]).save(tmp_path / f"{k:02}.png")
    folder = edgecnn.quantize(network, tmp_path, recipe="minmax", progress=QUIET)
    arrays = edgecnn.quantize(network, samples(network)["image"], recipe="minmax", progress=QUIET)
    for t in folder.graph.activations():
        assert t.quant.same_as(arrays.graph.quant(t.name))


def test_a_network_that_takes_no_image_needs_no_preprocessing():
    network = NETWORKS["vector"]()
    x = samples(network)["x"]
    for data in (x, list(x), {"x": x}):
        assert edgecnn.quantize(network, data, progress=QUIET).precision == "int8"


def test_sensitivity_of_several_inputs_and_outputs():
    network = NETWORKS["detector"]()
    graph = edgecnn.quantize(network, samples(network), progress=QUIET).graph
    rows = sensitivity(graph, inputs(network))
    assert {row.name for row in rows} == {t.name for t in graph.activations()}
    assert all(row.alone_db is None or row.alone_db > 10 for row in rows)


BAD = {
    "an input is missing": ({"image": np.zeros((4, 12, 12, 3), np.uint8)}, "inputs are image, meta"),
    "one array for two inputs": (np.zeros((4, 12, 12, 3), np.uint8), "the network has inputs image, meta"),
    "other counts": (
        {"image": np.zeros((4, 12, 12, 3), np.uint8), "meta": np.zeros((3, 4), np.float32)},
        "of the same N",
    ),
    "another shape": (
        {"image": np.zeros((4, 12, 12, 3), np.uint8), "meta": np.zeros((4, 5), np.float32)},
        r"'meta' are \(5,\); the network takes \(4,\)",
    ),
    "another image": (
        {"image": np.zeros((4, 12, 12, 1), np.uint8), "meta": np.zeros((4, 4), np.float32)},
        "images have 1 channels",
    ),
    "a tuple too short": ([(np.zeros((12, 12, 3), np.uint8),)], "a tuple in that order"),
    "words": ([{"image": np.zeros((12, 12, 3), np.uint8), "meta": np.array(["a"] * 4)}], "gives ndarray"),
}


@pytest.mark.parametrize("name", BAD)
def test_samples_that_do_not_fit_are_one_line(name):
    data, message = BAD[name]
    with pytest.raises(InputError, match=message) as error:
        edgecnn.quantize(NETWORKS["detector"](), data, progress=QUIET)
    assert "\n" not in str(error.value)


def test_preprocessing_for_other_channels_is_one_line():
    from dataclasses import replace

    network = NETWORKS["four_channels"]()
    metadata = replace(network.graph.metadata, preprocess=edgecnn.Preprocess(mean=(1, 2, 3), std=(4, 5, 6)))
    with pytest.raises(InputError, match="3 channels, but the network's image has 4"):
        Feed.of(replace(network.graph, metadata=metadata))


def test_a_batch_holds_as_many_samples_of_each_input():
    with pytest.raises(InputError, match="3 of 'a', 2 of 'b'"):
        Batch({"a": np.zeros((3, 1)), "b": np.zeros((2, 1))})
    both = Batch({"a": np.arange(3), "b": np.arange(3)})
    assert [len(part) for part in both.chunks(2)] == [2, 1]
    np.testing.assert_array_equal(Batch.joined(both).arrays["a"], np.arange(3))


def test_an_item_of_as_many_samples_of_each_input_or_one_line():
    network = NETWORKS["detector"]()
    given = samples(network)
    rows = [{"image": given["image"][:3], "meta": given["meta"][:2]}]
    with pytest.raises(InputError, match="3 of 'image', 2 of 'meta' in one item; give as many samples of each input"):
        edgecnn.quantize(network, rows, progress=QUIET)
