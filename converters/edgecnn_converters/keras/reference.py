"""Run a Keras file by Keras on TensorFlow, in a process of its own, for comparison."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.files import scratch
from edgecnn.graph.importers import Values
from edgecnn_converters.keras.translation import Shown

TIMEOUT_S = 1800.0


def reference(
    path: Path, keras: int, inputs: Mapping[str, tuple[str, tuple[int, ...]]], shown: Mapping[str, Shown]
) -> Callable[[Values], Values]:
    """Return what runs the file. Keras 3 does not read every file of Keras 2; ``tf_keras`` does.

    Args:
        keras: the major version that wrote the file.
        inputs: graph tensor to input layer, and for each of the tensor's dimensions the one that it is there.
        shown: graph tensor to the layer that has it.
    """

    def run(values: Values) -> Values:
        for package in ("tensorflow", "keras"):
            if find_spec(package) is None:
                raise MissingDependencyError("comparing with Keras needs it: pip install 'edgecnn[tensorflow]'")
        package = "tf_keras" if keras < 3 and find_spec("tf_keras") is not None else "keras"
        with scratch() as folder:
            given, task, made = (folder / name for name in ("given.npz", "task.json", "made.npz"))
            fed: dict[str, Any] = {layer: _source(values[name], axes) for name, (layer, axes) in inputs.items()}
            np.savez(given, **fed)
            task.write_text(json.dumps([asdict(each) for each in shown.values()]), "utf-8")
            command = [sys.executable, "-m", "edgecnn_converters.keras.reference_child", package]
            command += map(str, (path, given, task, made))
            environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=TIMEOUT_S)
            if done.returncode:
                line = next(iter(done.stderr.strip().splitlines()[::-1]), "it said nothing")
                advice = "; it is of Keras 2: pip install tf_keras" if keras < 3 and package == "keras" else ""
                raise InputError(f"{path}: Keras cannot run it ({line[:200]}){advice}")
            with np.load(made) as found:
                arrays = {
                    name: _held(found[str(k)], each.axes)
                    for k, (name, each) in enumerate(shown.items())
                    if str(k) in found
                }
        return {name: array for name, array in arrays.items() if array is not None}

    return run


def _source(value: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any]:
    """Return a graph tensor in the order of dimensions that its layer has."""
    return value.transpose([axes.index(k) for k in range(len(axes))])


def _held(value: NDArray[Any], axes: tuple[int, ...]) -> NDArray[Any] | None:
    """Return a layer's output in the order of the graph, or ``None`` where the graph has its batch elsewhere."""
    return value.transpose(axes) if sorted(axes) == list(range(value.ndim)) else None
