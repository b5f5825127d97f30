"""Sound files of every kind that edgecnn reads, small, made anew: the corpus that is mutated."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

KERAS = Path(__file__).parents[1] / "converters" / "keras_files"


@dataclass(frozen=True, kw_only=True)
class Seed:
    """One sound input.

    Attributes:
        kind: what reads it: a name in ``readers.READERS``.
        name: of the main file.
        files: file name to content, the main one among them.
        structure: how its content is built: a name in ``mutate.STRUCTURES``, or empty.
    """

    kind: str
    name: str
    files: Mapping[str, bytes]
    structure: str = ""


def corpus() -> list[Seed]:
    """Return all seeds."""
    return [seed for make in (_artifacts, _networks, _weights, _images, _tables) for seed in make()]


def _artifacts() -> list[Seed]:
    """Return artifacts of every format in several precisions, each with a manifest, and their graph."""
    import tempfile

    from graphs import random_graph
    from int8_builder import float_graph

    from edgecnn.artifact import write_artifact
    from edgecnn.graph.ir import Metadata
    from edgecnn.graph.serialize import save
    from edgecnn_converters.registry import converters

    found = []
    structures = {"tflite": "flatbuffer", "onnx": "protobuf", "openvino": "xml", "c": ""}
    for number, precision in ((3, "int8"), (4, "fp32"), (5, "int8")):
        graph = random_graph(number, pieces=4)
        graph = graph if precision == "int8" else float_graph(graph)
        for target, row in converters().items():
            if precision not in row.precisions or row.unsupported(graph, precision):
                continue
            with tempfile.TemporaryDirectory() as folder:
                given = {"name": "net"} if "name" in row.options else {}
                path = write_artifact(
                    Path(folder), "net", row.convert(graph, precision=precision, **given), Metadata(model="net"), {}
                )
                files = {file.name: file.read_bytes() for file in path.parent.iterdir()}
            found.append(Seed(kind="artifact", name=path.name, files=files, structure=structures.get(target, "")))
            if target != "c" and precision == "int8":
                found.append(Seed(kind="runtime", name=path.name, files=files, structure=structures[target]))
            if target == "openvino":
                found.append(Seed(kind="artifact", name=path.name, files=files))
            if target in ("tflite", "onnx"):
                found.append(
                    Seed(
                        kind="network",
                        name=path.name,
                        files={path.name: files[path.name]},
                        structure=structures[target],
                    )
                )
            manifest = next(name for name in files if name.endswith(".json"))
            found.append(Seed(kind="manifest", name=manifest, files=files, structure="json"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.edgecnn"
            save(graph, path)
            found.append(
                Seed(kind="network", name=path.name, files={path.name: path.read_bytes()}, structure="safetensors")
            )
    return found


def _networks() -> list[Seed]:
    """Return Keras files, and an ONNX file with external data."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    structures = {".h5": "hdf5", ".keras": "zip"}
    found = [
        Seed(kind="keras", name=file.name, files={file.name: file.read_bytes()}, structure=structures[file.suffix])
        for file in sorted(KERAS.iterdir())
        if file.suffix in structures
    ]
    weight = np.arange(48, dtype=np.float32).reshape(4, 3, 2, 2)
    held = numpy_helper.from_array(weight, "w")
    onnx.external_data_helper.set_external_data(held, "net.data", length=weight.nbytes)
    held.ClearField("raw_data")
    held.data_location = TensorProto.EXTERNAL
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in (("x", [1, 3, 8, 8]), ("y", [1, 4, 7, 7]))]  # fmt: skip
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [held])
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    files = {"net.onnx": data, "net.data": weight.tobytes()}
    return [*found, Seed(kind="network", name="net.onnx", files=files, structure="protobuf")]


def _weights() -> list[Seed]:
    """Return checkpoints of one model: torch's two formats, safetensors, and a Keras file of other weights."""
    import tempfile

    import h5py
    import torch

    from edgecnn.models import resolve
    from edgecnn.models.checkpoint import default_preprocess, random_weights, save_weights

    module, source = random_weights(resolve("mobilenet_v2_0.35_96"))
    buffer, old = io.BytesIO(), io.BytesIO()
    torch.save(module.state_dict(), buffer)
    torch.save(module.state_dict(), old, _use_new_zipfile_serialization=False)
    with tempfile.TemporaryDirectory() as folder:
        own, path = Path(folder) / "w.safetensors", Path(folder) / "w.h5"
        save_weights(module, source.spec, own, preprocess=default_preprocess(96), labels=None)
        with h5py.File(path, "w") as file:
            for k in range(3):
                group = file.create_group(f"layers/conv2d_{k}/vars")
                group.attrs["name"] = f"conv{k}"
                group.create_dataset("0", data=np.ones((3, 3, 3, 4), np.float32))
        safetensors, h5 = own.read_bytes(), path.read_bytes()
    return [
        Seed(kind="weights", name="w.pt", files={"w.pt": buffer.getvalue()}, structure="zip"),
        Seed(kind="weights", name="w.pt", files={"w.pt": old.getvalue()}),
        Seed(kind="weights", name="w.safetensors", files={"w.safetensors": safetensors}, structure="safetensors"),
        Seed(kind="weights", name="w.h5", files={"w.h5": h5}, structure="hdf5"),
    ]


def _images() -> list[Seed]:
    """Return encoded images and numpy archives."""
    from PIL import Image

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (24, 32, 3), np.uint8)
    found = []
    formats = {"png": {}, "jpeg": {}, "bmp": {}, "webp": {}, "tiff": {"compression": "tiff_deflate"}, "ppm": {}}
    for name, options in formats.items():
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, name, **options)
        found.append(Seed(kind="image", name=f"i.{name}", files={f"i.{name}": buffer.getvalue()}))
    writers: list[Callable[..., None]] = [np.savez, np.savez_compressed]
    for write in writers:
        buffer = io.BytesIO()
        write(buffer, x_test=np.stack([pixels] * 3), y_test=np.arange(3), other=np.zeros(100))
        found.append(Seed(kind="arrays", name="a.npz", files={"a.npz": buffer.getvalue()}, structure="zip"))
    return found


def _tables() -> list[Seed]:
    """Return recipes, devices and labels."""
    from importlib import resources

    recipe = (resources.files("edgecnn.quant") / "recipes" / "fast.toml").read_bytes()
    device = (resources.files("edgecnn_targets") / "devices" / "cortex-a72.toml").read_bytes()
    labels = b"file,class_index\n" + b"".join(b"%d.png,%d\n" % (k, k % 3) for k in range(8))
    port = {"name": "x", "shape": [1, 8, 8, 3], "layout": "NHWC", "dtype": "int8", "scale": 0.5, "zero_point": -3}
    return [
        Seed(kind="recipe", name="r.toml", files={"r.toml": recipe}, structure="toml"),
        Seed(kind="device", name="d.toml", files={"d.toml": device}, structure="toml"),
        Seed(kind="labels", name="labels.csv", files={"labels.csv": labels}, structure="text"),
        Seed(kind="record", name="r.json", files={"r.json": json.dumps(port).encode()}, structure="json"),
    ]
