"""Run by ``reference.py`` in a process of its own: a Keras file on given inputs.

    run.py FILE GIVEN.npz TASK.json MADE.npz

TASK lists layers: ``layer``, ``call``, ``output``; MADE has their outputs by their number in it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(file: str, given: str, task: str, made: str) -> None:
    """Load the file without executing code of its own, and write what layers make."""
    import keras
    from keras.src.applications.convnext import LayerScale, StochasticDepth
    from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

    own = {each.__name__: each for each in (LayerScale, StochasticDepth, CustomScaleLayer)}
    model = keras.saving.load_model(file, custom_objects=own, compile=False, safe_mode=True)
    wanted = json.loads(Path(task).read_text("utf-8"))
    tensors = {}
    function = getattr(model, "_functional", None) or model  # a sequential model holds a functional one
    layers = {op.name: op for op in function.operations}
    for k, each in enumerate(wanted):
        layer = layers.get(each["layer"])
        if layer is None:
            continue
        calls = [n for i, n in enumerate(layer._inbound_nodes) if f"{id(layer)}_ib-{i}" in function._nodes]
        if each["call"] < len(calls) and each["output"] < len(calls[each["call"]].output_tensors):
            tensors[str(k)] = calls[each["call"]].output_tensors[each["output"]]
    with np.load(given) as held:
        values = {name: held[name] for name in held}
    inputs = [values[tensor._keras_history.operation.name] for tensor in model.inputs]
    outputs = keras.Model(model.inputs, tensors)(inputs, training=False)
    arrays: dict[str, Any] = {key: np.asarray(value) for key, value in outputs.items()}
    np.savez(made, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
