"""Run by ``reference.py`` in a process of its own: a Keras file on given inputs.

    reference_child.py PACKAGE FILE GIVEN.npz TASK.json MADE.npz

PACKAGE is ``keras`` or ``tf_keras``. TASK lists layers: ``layer``, ``call``, ``output``; MADE has their outputs by
their number in it.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

OWN = (
    ("convnext", "LayerScale"),
    ("convnext", "StochasticDepth"),
    ("inception_resnet_v2", "CustomScaleLayer"),
)
"""Layers of ``keras.applications`` that Keras does not register."""


def flat(value: Any) -> list[Any]:
    """Return a tensor, or those in a list, as a list."""
    return [*value] if isinstance(value, list | tuple) else [value]


def main(package: str, file: str, given: str, task: str, made: str) -> None:
    """Load the file without executing code of its own, and write what layers make."""
    keras = import_module(package)
    own = {}
    if package == "keras":
        for place, name in OWN:
            own[name] = getattr(import_module(f"keras.src.applications.{place}"), name)
    model = keras.models.load_model(file, custom_objects=own, compile=False, safe_mode=True)
    function = getattr(model, "_functional", None) or model  # a sequential model holds a functional one
    old = package == "tf_keras"
    nodes = function._network_nodes if old else function._nodes
    layers = {layer.name: layer for layer in (function.layers if old else function.operations)}
    tensors = {}
    for k, each in enumerate(json.loads(Path(task).read_text("utf-8"))):
        layer = layers.get(each["layer"])
        if layer is None:
            continue
        key = layer.name if old else id(layer)
        calls = [node for i, node in enumerate(layer._inbound_nodes) if f"{key}_ib-{i}" in nodes]
        found = flat(calls[each["call"]].outputs) if each["call"] < len(calls) else []
        if each["output"] < len(found):
            tensors[str(k)] = found[each["output"]]
    with np.load(given) as held:
        values = {name: held[name] for name in held}
    inputs = [values[tensor._keras_history[0].name] for tensor in function.inputs]
    outputs = keras.Model(function.inputs, tensors)(inputs, training=False)
    arrays: dict[str, Any] = {key: np.asarray(value) for key, value in outputs.items()}
    np.savez(made, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
