"""Every CNN of ``keras.applications``, imported as a whole from both kinds of file, beside TensorFlow.

    python benchmarks/keras_applications.py [--networks 'ResNet*,VGG16'] [--side 96] [--suffixes .keras,.h5]

Weights are random. So are batch-norm statistics, near 0 and 1, or those of images where activations grow otherwise, and
with them float32's rounding. The figure is the largest difference of an output from Keras on TensorFlow, of the largest
output; exit status 1 where one is above 1e-4.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LIMIT = 1e-4
NETWORKS = (
    "Xception", "VGG16", "VGG19", "ResNet50", "ResNet101", "ResNet152", "ResNet50V2", "ResNet101V2", "ResNet152V2",
    "InceptionV3", "InceptionResNetV2", "MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large",
    "DenseNet121", "DenseNet169", "DenseNet201", "NASNetMobile", "NASNetLarge",
    *(f"EfficientNetB{n}" for n in range(8)), *(f"EfficientNetV2{n}" for n in ("B0", "B1", "B2", "B3", "S", "M", "L")),
    *(f"ConvNeXt{size}" for size in ("Tiny", "Small", "Base", "Large", "XLarge")),
)  # fmt: skip
PIXELS = ("EfficientNet", "ConvNeXt", "MobileNetV3")  # families that take 0..255
GROWING = ("EfficientNetV2",)  # families that take the statistics of images
IMAGES, CALIBRATION = 2, 16  # compared, and for batch-norm statistics


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="*", metavar="A,B", help="only these; patterns")
    parser.add_argument("--side", type=int, default=96, help="of the square input, in pixels")
    parser.add_argument("--suffixes", default=".keras,.h5", metavar="A,B", help="of the files")
    parser.add_argument("--witness", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.witness:
        network, images, logits, files = options.witness
        witness(network, Path(images), Path(logits), files.split(","))
        return
    chosen = [name for name in NETWORKS if any(fnmatch(name, p) for p in options.networks.split(","))]
    if not chosen:
        raise SystemExit(f"--networks {options.networks}: none of {', '.join(NETWORKS)}")
    print("| network | nodes | import, s | " + " | ".join(options.suffixes.split(",")) + " |")
    print("|---|---|---|" + "---|" * len(options.suffixes.split(",")), flush=True)
    worst = 0.0
    for name in chosen:
        nodes, seconds, apart = measured(name, options.side, options.suffixes.split(","))
        print(f"| {name} | {nodes} | {seconds:.1f} | " + " | ".join(f"{a:.1e}" for a in apart) + " |", flush=True)
        worst = max([worst, *apart])
    if not worst <= LIMIT:
        raise SystemExit(f"the largest difference, {worst:.1e}, is above {LIMIT}")


def measured(network: str, side: int, suffixes: list[str]) -> tuple[int, float, list[float]]:
    """Return the number of nodes, the seconds of an import, and the largest relative difference for each suffix."""
    import torch

    from edgecnn.graph import passes
    from edgecnn.graph.interpreter import TorchGraph
    from edgecnn_converters.keras import IMPORTER

    given = images_of(side, IMAGES, 255 if network.startswith(PIXELS) else 1)
    with tempfile.TemporaryDirectory() as folder:
        images, logits = Path(folder) / "images.npy", Path(folder) / "logits.npy"
        files = [Path(folder) / f"network{suffix}" for suffix in suffixes]
        np.save(images, given)
        words = ["--witness", network, str(images), str(logits), ",".join(map(str, files))]
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, env=environment)
        if done.returncode:
            raise SystemExit(f"{network}: {done.stderr[-2000:]}")
        want, apart = np.load(logits), []
        if not want.std(axis=1).min() > 0.01 * np.abs(want).max():
            raise SystemExit(f"{network}: its outputs tell nothing apart, so that comparing them says nothing")
        for file in files:
            start = time.perf_counter()
            graph = IMPORTER.read(file).graph
            seconds = time.perf_counter() - start
            got = TorchGraph(passes.simplify(graph))(torch.from_numpy(given)).numpy()
            apart.append(float(np.abs(got - want).max() / np.abs(want).max()))
        return len(graph.nodes), seconds, apart


def images_of(side: int, count: int, top: float) -> NDArray[np.float32]:
    """Return random images of blocks and noise: levels up to 255, or -1 to 1."""
    rng = np.random.default_rng(count)
    blocks = rng.integers(0, 256, (count, 4, 4, 3)).repeat(-(-side // 4), axis=1).repeat(-(-side // 4), axis=2)
    pixels = 0.5 * blocks[:, :side, :side] + rng.integers(0, 128, (count, side, side, 3))
    return np.asarray(pixels if top > 1 else pixels / 127.5 - 1, np.float32)


def witness(network: str, images: Path, logits: Path, files: list[str]) -> None:
    """Build a network with random weights, save it and what it makes of images. Run in a process of its own."""
    import keras

    given = np.load(images)
    model = getattr(keras.applications, network)(weights=None, input_shape=given.shape[1:], classifier_activation=None)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        values = layer.get_weights()
        kind = type(layer).__name__
        if kind in ("BatchNormalization", "LayerNormalization"):
            names = [v.name for v in layer.weights]
            values = [
                rng.uniform(0.8, 1.2, v.shape) if n in ("gamma", "moving_variance") else rng.normal(0, 0.1, v.shape)
                for n, v in zip(names, values, strict=True)
            ]
        elif kind == "Normalization" and values:
            values = [rng.uniform(0.4, 0.5, values[0].shape), rng.uniform(0.2, 0.3, values[1].shape), values[2]]
        elif kind == "LayerScale":
            values = [rng.uniform(0.1, 0.5, v.shape) for v in values]
        elif values:  # fan-in of He et al. 2015: activations keep their size through any depth
            depthwise = kind in ("DepthwiseConv2D", "SeparableConv2D")
            fans = [np.prod(v.shape[:2] if depthwise and k == 0 else v.shape[:-1]) for k, v in enumerate(values)]
            values = [
                rng.normal(0, np.sqrt(2 / fan), v.shape) if v.ndim > 1 else rng.normal(0, 0.1, v.shape)
                for fan, v in zip(fans, values, strict=True)
            ]
        layer.set_weights(values)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0  # its statistics become those of the next batch
    if norms and network.startswith(GROWING):
        model(images_of(given.shape[1], CALIBRATION, given.max()), training=True)
    np.save(logits, np.asarray(model(given, training=False)))
    for file in files:
        model.save(file)


if __name__ == "__main__":
    main()
