"""Import a Keras file: functional and sequential models with their weights, nested, of Keras 2 and 3."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError, UnsupportedError, supported_ops
from edgecnn.graph.importers import Imported
from edgecnn.graph.ir import Metadata
from edgecnn.graph.node_builder import Value
from edgecnn.reading import is_fault
from edgecnn_converters.keras.architecture import Layer, Model, is_operation, read_model
from edgecnn_converters.keras.archive import DAMAGED, opened
from edgecnn_converters.keras.attention import multi_head_attention
from edgecnn_converters.keras.operations import FUNCTIONS, OPERATIONS
from edgecnn_converters.keras.plain import PLAIN
from edgecnn_converters.keras.reference import reference
from edgecnn_converters.keras.translation import CHANNELS_FIRST, Handler, Shown, Translation
from edgecnn_converters.keras.weighted import WEIGHTED

LAYERS: Mapping[str, Handler] = {**WEIGHTED, **PLAIN, "MultiHeadAttention": multi_head_attention}
Shapes = Mapping[str, Sequence[int]]
OURS = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras")  # modules whose classes are Keras' own


def read(path: Path, input_shapes: Shapes | None = None) -> Imported:
    """Return the network in a Keras file; see ``graph.importers.Importer``.

    Args:
        input_shapes: of inputs whose size the file leaves open, by name, without the batch and in the order that they
            have there. One under ``""`` is of the first.

    Raises:
        UnsupportedError: layers that no graph holds, all of them at once, each with its name and class.
        InputError: the file is damaged, holds weights only, or an input has a size that is not fixed.
        MissingDependencyError: h5py is not installed.
    """
    with opened(path) as archive:
        try:
            model = read_model(archive.config, archive.keras)
            translation = Translation(archive, model, _handler, channels_last=not _channels_first(model))
            inputs = _inputs(translation, model, input_shapes or {})
            outputs = translation.run(model, inputs)
            refused = _refused(model, ())
            if faults := [*refused, *translation.faults]:
                strange = dict.fromkeys(layer.kind for _, layer in _every(model, ()) if _handler(layer) is None)
                known = [supported_ops("keras", strange, ops())] if refused else []
                raise UnsupportedError("; ".join([*faults, *known]))
            ends = [o for o in outputs if o is not None]
            graph = translation.graph(ends, Metadata(model=path.stem))
        except InputError as error:
            raise type(error)(f"{path}: {error}") from None
        except DAMAGED as error:  # of which RecursionError is one
            if is_fault(error):
                raise
            line = next(iter(str(error).splitlines()), "")
            raise InputError(f"{path}: its architecture is damaged ({type(error).__name__}: {line[:200]})") from None
    given = {value.name: (ref.layer, value.axes) for ref, value in zip(model.inputs, inputs, strict=True)}
    for ref, value, name in zip(model.outputs, ends, graph.outputs, strict=True):
        rank = len(translation.shape(value))
        axes = translation.image_axes(4) if rank == 4 else tuple(range(rank))
        translation.shown[name] = Shown(ref.layer, ref.call, ref.output, axes)
    return Imported(graph=graph, reference=reference(path, translation.keras, given, translation.shown))


def ops() -> set[str]:
    """Return the names of the layers and functions that are read."""
    return {*LAYERS, *OPERATIONS, *FUNCTIONS}


def _inputs(translation: Translation, model: Model, shapes: Shapes) -> list[Value]:
    """Add the inputs of the model.

    Raises:
        InputError: the size of one is neither fixed nor given, or it is no batch of 1.
    """
    every = [ref.layer for ref in model.inputs]
    faults = [
        f"a shape is given of {name!r}; the inputs are: {', '.join(every)}"
        for name in shapes
        if name not in (*every, "")
    ]
    made = []
    for place, layer in enumerate(every):
        config = model.layers[layer].config
        held = config.get("batch_shape") or config.get("batch_input_shape")
        given = shapes.get(layer) or (shapes.get("") if place == 0 else None)
        sizes = given if given is not None else None if held is None else held[1:]
        if given is not None and not _fits(held, given):
            faults.append(f"input {layer!r} is {_written(held)}; {_written([None, *given])} does not fit")
        elif sizes is None or None in sizes:
            known = "x".join("SIZE" if d is None else str(d) for d in sizes or ("SHAPE",))
            faults.append(
                f"input {layer!r} is {_written(held)}, whose size is open; say it: --input-shape {layer}={known}"
            )
        else:
            batch = 1 if held is None or held[0] is None else int(held[0])
            made.append(translation.input(layer.replace("/", "."), [batch, *(int(d) for d in sizes)]))
    if faults:
        raise InputError("; ".join(faults))
    return made


def _fits(held: Sequence[int | None] | None, given: Sequence[int]) -> bool:
    """Tell whether a shape is one of those that the file leaves open."""
    if held is None:
        return True
    return len(held) == len(given) + 1 and all(h in (None, g) for h, g in zip(held[1:], given, strict=True))


def _written(shape: Sequence[int | None] | None) -> str:
    return "of no shape" if shape is None else f"({', '.join(map(str, shape))})"


def _every(model: Model, path: tuple[str, ...]) -> Iterator[tuple[str, Layer]]:
    for layer in model.layers.values():
        if layer.model is not None:
            yield from _every(layer.model, (*path, layer.name))
        else:
            yield "/".join((*path, layer.name)), layer


def _channels_first(model: Model) -> bool:
    """Tell whether most of the layers that have an order of dimensions put channels first."""
    orders = [layer.config.get("data_format") for _, layer in _every(model, ()) if layer.calls]
    first = orders.count(CHANNELS_FIRST)
    return first > orders.count("channels_last")


def _refused(model: Model, path: tuple[str, ...]) -> list[str]:
    """Return a line for each layer whose class is not supported."""
    return [
        f"{_kind(layer)} {name!r} is not supported{'' if _is_ours(layer) else ': its code is not in the file'}"
        for name, layer in _every(model, path)
        if layer.kind != "InputLayer" and _handler(layer) is None
    ]


def _kind(layer: Layer) -> str:
    if layer.kind in ("TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"):
        return f"{layer.kind} {layer.config.get('function', '')}".strip()
    own = layer.registered if ">" in layer.registered else f"{layer.module}.{layer.kind}"
    return layer.kind if _is_ours(layer) else own


def _is_ours(layer: Layer) -> bool:
    """Tell whether a layer's class is Keras' own; an ``.h5`` file does not say."""
    package = layer.registered.rpartition(">")[0]
    if package and package.lower() not in ("keras", "tf_keras"):
        return False
    return not layer.module or any(layer.module == m or layer.module.startswith(f"{m}.") for m in OURS)


def _handler(layer: Layer) -> Handler | None:
    """Return what adds a layer, or ``None`` where it is not supported."""
    if not _is_ours(layer):
        return None
    if layer.kind in ("TFOpLambda", "SlicingOpLambda"):
        return FUNCTIONS.get(str(layer.config.get("function")))
    if is_operation(layer.module) or _looks_like_operation(layer):
        return OPERATIONS.get(layer.kind)
    policy: Any = layer.config.get("dtype")
    name = policy.get("config", {}).get("name", "") if isinstance(policy, Mapping) else policy
    if "int8" in str(name) or "float8" in str(name) or "int4" in str(name):
        return None
    return LAYERS.get(layer.kind)


def _looks_like_operation(layer: Layer) -> bool:
    """Tell whether a class of an ``.h5`` file, which names no module, is of ``keras.ops``."""
    if layer.module:
        return False
    merges = layer.kind in ("Add", "Subtract", "Multiply", "Maximum", "Minimum", "Concatenate", "Average")
    if merges:
        return any(call.args and not isinstance(call.args[0], list) for call in layer.calls)
    return layer.kind not in LAYERS and layer.kind in OPERATIONS
