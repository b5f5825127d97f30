"""TensorFlow as an independent witness: the same network from Keras, through TensorFlow's own converter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgecnn.cli import main
from edgecnn.data import open_images
from edgecnn_converters.tflite.reader import read
from edgecnn_targets.evaluate import logits
from edgecnn_targets.runtimes.litert import LiteRtSession

pytestmark = pytest.mark.slow
MODEL = "mobilenet_v2_0.35_96"
IMAGES = 400

WITNESS = """
import sys
import numpy as np
import tensorflow as tf
from pathlib import Path
from edgecnn.graph.ops import same_padding
from edgecnn.graph.serialize import load

graph, images = load(Path(sys.argv[1])), np.load(sys.argv[2])
layers = tf.keras.layers
shape = graph.tensors[graph.inputs[0]].shape
values = {graph.inputs[0]: tf.keras.Input(shape[1:], batch_size=1)}
for node in graph:
    x = values[node.inputs[0]]
    if node.op in ("conv2d", "fully_connected"):
        weight, bias = (graph.tensors[i].value for i in node.inputs[1:])
    if node.op == "conv2d":
        size, kernel, (stride, _) = x.shape[1], weight.shape[1], node.attrs["stride"]
        same = same_padding(size, kernel, stride)
        assert tuple(node.attrs["padding"]) == (*same, *same)
        common = {"kernel_size": kernel, "strides": stride, "padding": "same"}
        if node.attrs["groups"] > 1:
            layer, kernel = layers.DepthwiseConv2D(**common), weight.transpose(1, 2, 0, 3)
        else:
            layer, kernel = layers.Conv2D(weight.shape[0], **common), weight.transpose(1, 2, 3, 0)
    elif node.op == "fully_connected":
        layer, kernel = layers.Dense(weight.shape[0]), weight.T
    elif node.op == "mean":
        layer, kernel = layers.GlobalAveragePooling2D(), None
    else:
        assert node.op == "add", node.op
        layer, kernel, x = layers.Add(), None, [values[i] for i in node.inputs]
    out = layer(x)
    if kernel is not None:
        layer.set_weights([kernel, bias])
    if node.attrs.get("activation") == "relu6":
        out = layers.ReLU(6.0)(out)
    values[node.output] = out
model = tf.keras.Model(values[graph.inputs[0]], values[graph.outputs[0]])
converter = tf.lite.TFLiteConverter.from_keras_model(model)
converter.optimizations = [tf.lite.Optimize.DEFAULT]
converter.representative_dataset = lambda: ([image[None]] for image in images)
converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
converter.inference_input_type = converter.inference_output_type = tf.int8
Path(sys.argv[3]).write_bytes(converter.convert())
"""


def test_tensorflows_converter_makes_the_same_ops_and_the_same_classes(tmp_path):
    words = ["export", MODEL, "--target", "tflite", "--weights", "demo", "--calibration", "demo", "-o", str(tmp_path)]
    assert main([*words, "--calibration-images", "100"]) == 0
    from edgecnn.graph.serialize import load

    preprocess = load(tmp_path / f"{MODEL}.edgecnn").metadata.preprocess
    calibration = open_images("demo", demo_split="calibration", labelled=False, limit=100)
    batches = [preprocess.normalise(pixels) for pixels, _ in calibration.batches(preprocess, 50)]
    np.save(tmp_path / "images.npy", np.concatenate(batches))
    theirs = tmp_path / "theirs.tflite"
    done = subprocess.run(
        [sys.executable, "-c", WITNESS, str(tmp_path / f"{MODEL}.edgecnn"), str(tmp_path / "images.npy"), str(theirs)],
        capture_output=True, text=True, check=False, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ours = tmp_path / f"{MODEL}.tflite"

    def counts(path: Path) -> dict[str, int]:
        names = [op.name for op in read(path.read_bytes()).ops]
        return {name: names.count(name) for name in sorted(set(names))}

    assert counts(ours) == counts(theirs), json.dumps([counts(ours), counts(theirs)])
    assert ours.stat().st_size <= theirs.stat().st_size * 1.02
    a, b = LiteRtSession(ours), LiteRtSession(theirs)
    test = open_images("demo", demo_split="test", labelled=True, limit=IMAGES)
    agreed = 0
    for pixels, _ in test.batches(preprocess, 50):
        x = preprocess.normalise(pixels)
        agreed += int((logits(a, x).argmax(1) == logits(b, x).argmax(1)).sum())
    assert agreed / IMAGES >= 0.97
