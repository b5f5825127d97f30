"""Networks of Keras are imported without it and compute what Keras says; what no graph holds is named."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph import interpreter, passes
from edgecnn.graph.execution import execute, released
from edgecnn_converters.keras import IMPORTER

SCRIPT = Path(__file__).parent / "keras_networks.py"
FIXTURES = Path(__file__).parent / "keras_files"
LIMIT = 1e-5  # largest difference of an output, of its largest value
WHOLE = (
    "activations", "attention", "chain", "convolutions", "first_channels", "merges", "nested", "norms", "operations",
    "rows", "shapes", "transposed",
)  # fmt: skip


def run(graph, inputs):
    """Return every activation, dimensions as in the graph."""
    nhwc, nchw = interpreter._nhwc, interpreter._nchw
    values = {n: nchw(torch.from_numpy(np.ascontiguousarray(v))) for n, v in inputs.items()}
    values |= {t.name: interpreter.laid_out(t.value) for t in graph.constants()}
    made = {}

    def compute(node, held):
        result = interpreter.run_node(node, [held[i] for i in node.inputs])
        made[node.output] = nhwc(result).numpy().copy()
        return result

    with torch.inference_mode():
        execute(graph, values, compute, released(graph))
    return {**inputs, **made}


def assert_equal(path: Path, held, *, channels_first: bool = False):
    """The graph, and the graph after all passes, compute what is in ``held``: ``in0`` …, ``out0`` …"""

    def turned(value):
        return value.transpose(0, 2, 3, 1) if channels_first and value.ndim == 4 else value

    graph = IMPORTER.read(path).graph
    inputs = {name: turned(held[f"in{k}"]) for k, name in enumerate(graph.inputs)}
    for each in (graph, passes.simplify(graph)):
        made = run(each, inputs)
        for k, name in enumerate(each.outputs):
            want = turned(held[f"out{k}"])
            assert made[name].shape == want.shape, f"output {k} {name}"
            worst = np.abs(made[name] - want).max() / np.abs(want).max()
            assert worst < LIMIT, f"output {k} {name}: largest difference {worst:.1e} of the largest value"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, str(SCRIPT), str(made)], check=True, capture_output=True, env=environment)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", WHOLE)
def test_networks_of_keras_3_compute_what_it_says(folder, name, suffix):
    if (name, suffix) == ("operations", ".h5"):
        pytest.skip("Keras itself does not read operations in an .h5 file")
    with np.load(folder / f"{name}.npz") as held:
        assert_equal(folder / f"{name}{suffix}", held, channels_first=name == "first_channels")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["convolutions.keras", "nested.h5", "merges.keras", "chain.keras"])
def test_the_reference_runs_the_file_layer_by_layer(folder, name):
    imported = IMPORTER.read(folder / name)
    rng = np.random.default_rng(1)
    shapes = {n: imported.graph.tensors[n].shape for n in imported.graph.inputs}
    inputs = {n: rng.standard_normal(shape).astype(np.float32) for n, shape in shapes.items()}
    theirs, ours = imported.reference(inputs), run(imported.graph, inputs)
    assert set(imported.graph.outputs) <= set(theirs)
    for tensor, want in theirs.items():
        np.testing.assert_allclose(ours[tensor], want, atol=1e-4 * np.abs(want).max(), err_msg=tensor)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.*5")) + sorted(FIXTURES.glob("*.keras")), ids=lambda p: p.name)
def test_files_of_keras_2_and_3_compute_what_it_said(path):
    with np.load(path.with_name(f"{path.name}.npz")) as held:
        assert_equal(path, held)


# --- what is refused ---


def layer(kind, name, *reads, module="keras.layers", registered=None, **config):
    """Return the configuration of a layer of Keras 3 that reads others."""
    tensors = [
        {"class_name": "__keras_tensor__", "config": {"shape": [None], "keras_history": [r, 0, 0]}} for r in reads
    ]
    return {
        "module": module,
        "class_name": kind,
        "registered_name": registered,
        "config": {"name": name, **config},
        "name": name,
        "inbound_nodes": [{"args": tensors, "kwargs": {}}] if reads else [],
    }


def given(name="x", shape=(None, 8, 8, 3)):
    return layer("InputLayer", name, batch_shape=[*shape])


def saved(path, layers, outputs, arrays=None, kind="Functional", **files):
    """Write a ``.keras`` file of these layers; ``arrays``: path in the weight file to values."""
    inputs = [[each["name"], 0, 0] for each in layers if each["class_name"] == "InputLayer"]
    config = {"name": "m", "layers": layers, "input_layers": inputs, "output_layers": [[o, 0, 0] for o in outputs]}
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        for name, value in (arrays or {}).items():
            file.create_dataset(name, data=value)
    contents = {
        "config.json": json.dumps({"class_name": kind, "config": config}),
        "metadata.json": json.dumps({"keras_version": "3.9.0"}),
        "model.weights.h5": held.getvalue(),
        **files,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def refusal(path, kind=InputError):
    with pytest.raises(kind) as caught:
        IMPORTER.read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_every_layer_that_is_not_supported_is_named_at_once(tmp_path):
    layers = [
        given(),
        layer("Lambda", "double", "x", function={"class_name": "__lambda__", "config": {"code": "4wEAAAA"}}),
        layer("MyBlock", "block", "double", module="mine.blocks", registered="mine>MyBlock"),
        layer("Activation", "act", "block", activation="sparsemax"),
        layer("Activation", "jump", "x", activation="hard_shrink"),
        layer("Conv3D", "cube", "x", filters=3),
        layer("LSTM", "memory", "x", units=3),
        layer("Add", "sum", "act", "jump", "cube", "memory"),
    ]
    message = refusal(saved(tmp_path / "m.keras", layers, ["sum"]), UnsupportedError)
    for part in ("Lambda 'double'", "mine>MyBlock", "'block'", "Conv3D 'cube'", "LSTM 'memory'", "hard_shrink"):
        assert part in message
    assert "'sum'" not in message  # it is supported; what it reads is not


def test_an_input_of_no_fixed_size_takes_one_that_is_given(tmp_path):
    path = saved(tmp_path / "m.keras", [given(shape=(None, None, None, 3)), layer("ReLU", "r", "x")], ["r"])
    message = refusal(path)
    assert "(None, None, None, 3)" in message
    assert "--input-shape" in message
    for shapes in ({"": (8, 6, 3)}, {"x": (8, 6, 3)}):
        assert IMPORTER.read(path, shapes).graph.tensors["x"].shape == (1, 8, 6, 3)
    for shapes in ({"": (8, 6, 4)}, {"": (8, 3)}, {"y": (8, 6, 3)}):
        with pytest.raises(InputError, match="x"):
            IMPORTER.read(path, shapes)


def test_a_subclassed_model_is_refused(tmp_path):
    assert "MyModel" in refusal(saved(tmp_path / "m.keras", [given()], ["x"], kind="MyModel"))


def test_weights_that_are_missing_or_damaged_are_named(tmp_path):
    layers = [given(), layer("Conv2D", "conv", "x", filters=2, kernel_size=[3, 3])]
    kernel = np.zeros((3, 3, 3, 2), np.float32)
    message = refusal(saved(tmp_path / "m.keras", layers, ["conv"], {"layers/conv2d/vars/0": kernel}))
    assert "'conv'" in message
    assert "1 arrays" in message
    bad = {"layers/conv2d/vars/0": kernel * np.nan, "layers/conv2d/vars/1": np.zeros(2, np.float32)}
    assert "NaN" in refusal(saved(tmp_path / "m.keras", layers, ["conv"], bad))


def test_a_file_that_claims_gigabytes_is_not_unpacked(tmp_path):
    path = saved(tmp_path / "m.keras", [given()], ["x"], **{"model.weights.h5": bytes(64 * 2**20)})
    assert path.stat().st_size < 2**20
    assert "claims" in refusal(path)
    layers = [given(), layer("Dense", "wide", "x", units=2**28, use_bias=False)]
    held = io.BytesIO()
    with h5py.File(held, "w") as file:  # a dataset that was never written takes no place
        file.create_dataset("layers/dense/vars/0", (3, 2**28), np.float32)
    path = saved(tmp_path / "m.keras", layers, ["wide"], **{"model.weights.h5": held.getvalue()})
    assert "claims" in refusal(path)


def test_weights_in_another_file_are_not_read(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["kernel"] = np.ones((3, 2), np.float32)
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "kernel")
    layers = [given(), layer("Dense", "d", "x", units=2, use_bias=False)]
    path = saved(tmp_path / "m.keras", layers, ["d"], **{"model.weights.h5": held.getvalue()})
    assert "another file" in refusal(path)


def test_a_cycle_and_damage_are_named(tmp_path):
    cycle = [given(), layer("Add", "a", "x", "b"), layer("ReLU", "b", "a")]
    assert "cycle" in refusal(saved(tmp_path / "m.keras", cycle, ["b"]))
    dangling = [given(), layer("ReLU", "b", "nowhere")]
    assert "nowhere" in refusal(saved(tmp_path / "m.keras", dangling, ["b"]))
    wrong = [given(), layer("Conv2D", "c", "x", use_bias=False, strides="two")]
    arrays = {"layers/conv2d/vars/0": np.zeros((3, 3, 3, 2), np.float32)}
    assert "'c'" in refusal(saved(tmp_path / "m.keras", wrong, ["c"], arrays))
    (tmp_path / "n.keras").write_bytes(b"PK\x03\x04 and nothing else")
    refusal(tmp_path / "n.keras")
    (tmp_path / "n.h5").write_bytes(b"no HDF5")
    refusal(tmp_path / "n.h5")


@pytest.mark.parametrize("name", ["nested.h5", "rows.keras"])
def test_a_file_that_is_cut_short_is_one_line(tmp_path, name):
    whole = (FIXTURES / name).read_bytes()
    for share in (0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99):
        path = tmp_path / name
        path.write_bytes(whole[: int(share * len(whole))])
        refusal(path)


def test_weights_without_an_architecture_say_what_to_save(tmp_path):
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros((3, 2), np.float32)
    assert "model.save" in refusal(tmp_path / "m.weights.h5")
