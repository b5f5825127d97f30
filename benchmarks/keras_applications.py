"""Every CNN of ``keras.applications``, imported as a whole from both kinds of file, beside TensorFlow.

    python benchmarks/keras_applications.py [--networks 'ResNet*,VGG16'] [--side 96] [--suffixes .keras,.h5]

TensorFlow starts once, in a process of its own. Weights are random. So are batch-norm statistics, near 0 and 1, or
those of images where activations grow otherwise, and with them float32's rounding. The figure is the largest difference
of an output from Keras on TensorFlow, of the largest output; exit status 1 where one is above 1e-4.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from subprocess import PIPE
from typing import Any

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
SERVE, DONE = "--serve", "done\n"  # what starts the process of TensorFlow, and its answer to a request


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default="*", metavar="A,B", help="only these; patterns")
    parser.add_argument("--side", type=int, default=96, help="of the square input, in pixels")
    parser.add_argument("--suffixes", default=".keras,.h5", metavar="A,B", help="of the files")
    options = parser.parse_args()
    chosen = [name for name in NETWORKS if any(fnmatch(name, p) for p in options.networks.split(","))]
    if not chosen:
        raise SystemExit(f"--networks {options.networks}: none of {', '.join(NETWORKS)}")
    print("| network | nodes | import, s | " + " | ".join(options.suffixes.split(",")) + " |")
    print("|---|---|---|" + "---|" * len(options.suffixes.split(",")), flush=True)
    worst = 0.0
    with witness() as ask:
        for name in chosen:
            nodes, seconds, apart = measured(ask, name, options.side, options.suffixes.split(","))
            print(f"| {name} | {nodes} | {seconds:.1f} | " + " | ".join(f"{a:.1e}" for a in apart) + " |", flush=True)
            worst = max([worst, *apart])
    if not worst <= LIMIT:
        raise SystemExit(f"the largest difference, {worst:.1e}, is above {LIMIT}")


Ask = Callable[..., NDArray[np.float32]]


@contextmanager
def witness() -> Iterator[Ask]:
    """Start Keras on TensorFlow; yield a function of a network of ``keras.applications`` that has it built.

    The function takes ``network``, its ``images`` (NHWC, as the network takes them), the ``files`` to save it as, and
    ``options`` of its constructor. It returns the logits (N, classes).

    Raises:
        RuntimeError: Keras failed; the end of what it said.
    """
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.TemporaryDirectory() as name, (Path(name) / "said.txt").open("w+") as said:
        images, logits = Path(name) / "images.npy", Path(name) / "logits.npy"
        process = subprocess.Popen(
            [sys.executable, __file__, SERVE], stdin=PIPE, stdout=PIPE, stderr=said, text=True, env=environment
        )

        def ask(network: str, given: NDArray[np.float32], files: Sequence[Path], **options: Any) -> NDArray[np.float32]:
            np.save(images, given)
            request = {"network": network, "images": str(images), "logits": str(logits), "files": [*map(str, files)]}
            print(json.dumps({**request, "options": options}), file=process.stdin, flush=True)
            if process.stdout.readline() != DONE:
                process.wait()
                said.seek(0)
                raise RuntimeError(f"{network}: {said.read()[-2000:]}")
            return np.load(logits)

        try:
            yield ask
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait()


def measured(ask: Ask, network: str, side: int, suffixes: list[str]) -> tuple[int, float, list[float]]:
    """Return the number of nodes, the seconds of an import, and the largest relative difference for each suffix.

    Raises:
        ValueError: the outputs of the network tell nothing apart, so that comparing them says nothing.
    """
    import torch

    from edgecnn.graph import passes
    from edgecnn.graph.interpreter import TorchGraph
    from edgecnn_converters.keras import IMPORTER

    given = images_of(side, IMAGES, 255 if network.startswith(PIXELS) else 1)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"network{suffix}" for suffix in suffixes]
        want, apart = ask(network, given, files), []
        if not want.std(axis=1).min() > 0.01 * np.abs(want).max():
            raise ValueError(f"{network}: its outputs tell nothing apart")
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


def serve() -> None:
    """Answer a request of :func:`witness` a line, with the line ``DONE``. Run in a process of its own."""
    import keras

    answers, sys.stdout = sys.stdout, sys.stderr  # whatever Keras prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        given = np.load(request["images"])
        model = built(request["network"], given, request["options"])
        np.save(request["logits"], np.asarray(model(given, training=False)).reshape(len(given), -1))
        for file in request["files"]:
            (model.save_weights if file.endswith(".weights.h5") else model.save)(file)
        keras.backend.clear_session()
        answers.write(DONE)
        answers.flush()


def built(network: str, given: NDArray[np.float32], options: dict[str, Any]) -> Any:
    """Return a network of Keras with random weights and statistics of its own."""
    import keras

    options = {"input_shape": given.shape[1:], **options}
    model = getattr(keras.applications, network)(weights=None, classifier_activation=None, **options)
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
    return model


if __name__ == "__main__":
    serve() if sys.argv[1:] == [SERVE] else main()
