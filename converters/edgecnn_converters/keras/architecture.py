"""The architecture in a Keras file as calls of layers: functional and sequential models, of Keras 2 and 3, nested."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgecnn.errors import InputError
from edgecnn_converters.keras.archive import Place

MODELS = ("Functional", "Sequential", "Model")
MAX_NESTED = 32  # models in models
TENSOR = "__keras_tensor__"
CONSTANT = "_CONSTANT_VALUE"  # in the place of a layer's name, in files of Keras 2


@dataclass(frozen=True)
class Ref:
    """Point at an output of a call of a layer."""

    layer: str
    call: int
    output: int


@dataclass(frozen=True)
class Call:
    """Hold the arguments of a call: nested lists and dictionaries of ``Ref`` and plain values."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def refs(self) -> list[Ref]:
        """Return what the call reads, in order."""
        return list(refs_in([*self.args, *self.kwargs.values()]))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Hold one layer of a model.

    Attributes:
        kind: its class.
        module: of the class; empty where the file does not say.
        registered: the name that the class is registered by; empty for Keras' own.
        calls: one for each time that it is used.
        group: its name in a ``.keras`` file: of its class, and numbered.
        model: what it is made of, if it is a model.
    """

    name: str
    kind: str
    module: str
    registered: str
    config: Mapping[str, Any]
    calls: tuple[Call, ...]
    group: str
    model: Model | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """Hold a model: layers by name, what it is given and what it returns."""

    name: str
    layers: Mapping[str, Layer]
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]


def refs_in(value: Any) -> Iterator[Ref]:
    """Return the references in nested lists and dictionaries."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from refs_in(each)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from refs_in(each)


def read_model(config: Mapping[str, Any], keras: int, depth: int = 0) -> Model:
    """Return the model of a file's architecture.

    Raises:
        InputError: it is neither functional nor sequential, or damaged.
    """
    kind = str(config.get("class_name"))
    if kind not in MODELS:
        raise InputError(
            f"the model is a {kind}, a class whose code is not in the file; functional and sequential models are "
            "supported: build one with keras.Model(inputs, outputs) and save that"
        )
    if depth > MAX_NESTED:
        raise InputError(f"more than {MAX_NESTED} models lie inside one another; the file is damaged")
    inside = config.get("config")
    if isinstance(inside, list):  # of a sequential model, before Keras 2.2.3
        inside = {"name": "sequential", "layers": inside}
    if not isinstance(inside, Mapping) or not isinstance(inside.get("layers"), list):
        raise InputError("the architecture has no list of layers; the file is damaged")
    rows = inside["layers"]
    if not all(isinstance(r, Mapping) and isinstance(r.get("config"), Mapping | list) for r in rows):
        raise InputError("a layer has no class or no configuration; the file is damaged")
    used: dict[str, int] = defaultdict(int)
    layers: dict[str, Layer] = {}
    for row in rows:
        layer = _layer(row, used, keras, depth)
        if layer.name in layers:
            raise InputError(f"two layers are named {layer.name!r}; the file is damaged")
        layers[layer.name] = layer
    name = str(inside.get("name", kind.lower()))
    if kind == "Sequential":
        return _chain(name, layers, inside)
    return _functional(name, layers, inside, rows)


def _layer(row: Mapping[str, Any], used: dict[str, int], keras: int, depth: int) -> Layer:
    config = row["config"] if isinstance(row["config"], Mapping) else {"layers": row["config"]}
    kind, module = str(row.get("class_name")), str(row.get("module") or "")
    group = snake_case(kind)
    if not is_operation(module):  # Keras counts layers only
        used[group] += 1
        group = f"{group}_{used[group] - 1}" if used[group] > 1 else group
    return Layer(
        name=str(row.get("name") or config.get("name") or group),
        kind=kind,
        module=module,
        registered=str(row.get("registered_name") or ""),
        config=config,
        calls=tuple(_call(node) for node in row.get("inbound_nodes") or ()),
        group=group,
        model=read_model(row, keras, depth + 1) if kind in MODELS else None,
    )


def is_operation(module: str) -> bool:
    """Tell whether a class of a module is an operation of ``keras.ops``, which is no layer."""
    return module.startswith(("keras.src.ops", "keras.ops"))


def snake_case(name: str) -> str:
    """Return the name of a class as files spell it. Source: ``keras/src/utils/naming.py``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# --- calls ---


def _call(node: Any) -> Call:
    if isinstance(node, Mapping):  # Keras 3
        args, kwargs = _revived(node.get("args", [])), _revived(node.get("kwargs", {}))
        return Call(tuple(args), kwargs)
    if node and isinstance(node[0], str):  # one tensor, not in a list
        value, kwargs = _legacy(node)
        return Call((value,), kwargs)
    pairs = [_legacy(each) for each in node]
    values = [value for value, _ in pairs]
    merged = {key: value for _, kwargs in pairs for key, value in kwargs.items()}
    return Call((values[0] if len(values) == 1 else values,), merged)


def _legacy(item: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Read ``[layer, call, output, {argument: value}]``, as Keras 2 writes a tensor."""
    kwargs = item[3] if len(item) > 3 else {}
    value = item[2] if item[0] == CONSTANT else Ref(str(item[0]), int(item[1]), int(item[2]))
    return value, {key: _legacy_argument(each) for key, each in kwargs.items()}


def _legacy_argument(value: Any) -> Any:
    if isinstance(value, list):
        if len(value) in (3, 4) and isinstance(value[0], str) and all(type(v) is int for v in value[1:3]):
            return Ref(value[0], value[1], value[2])
        if len(value) > 2 and value[0] == CONSTANT:
            return value[2]
        return [_legacy_argument(each) for each in value]
    return value


def _revived(value: Any) -> Any:
    """Replace what Keras 3 writes for tensors, slices, arrays and types."""
    if isinstance(value, list):
        return [_revived(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    kind, config = value.get("class_name"), value.get("config")
    if kind == TENSOR and isinstance(config, Mapping):
        layer, call, output = config["keras_history"]
        return Ref(str(layer), int(call), int(output))
    if kind in ("__tuple__",):
        return [_revived(each) for each in value.get("items") or []]
    if kind == "__slice__" and isinstance(config, Mapping):
        return slice(*(config.get(key) for key in ("start", "stop", "step")))
    if kind == "__ellipsis__":
        return Ellipsis
    if kind in ("__numpy__", "__tensor__") and isinstance(config, Mapping):
        return config.get("value")
    return {key: _revived(each) for key, each in value.items()}


# --- models ---


def _chain(name: str, layers: Mapping[str, Layer], config: Mapping[str, Any]) -> Model:
    """Return a sequential model: each layer is called on what the one before it returns."""
    chain = list(layers.values())
    if not chain:
        raise InputError(f"the sequential model {name!r} has no layers")
    if chain[0].kind != "InputLayer":
        first = chain[0].config
        shape = first.get("batch_shape") or first.get("batch_input_shape") or config.get("build_input_shape")
        entry = f"{chain[0].name}_input"
        given = Layer(
            name=entry, kind="InputLayer", module="", registered="", config={"batch_shape": shape}, calls=(), group=""
        )
        chain.insert(0, given)
    before, made = chain[0].name, {chain[0].name: chain[0]}
    for layer in chain[1:]:
        made[layer.name] = replace(layer, calls=(Call((Ref(before, 0, 0),), {}),))
        before = layer.name
    return Model(name=name, layers=made, inputs=(Ref(chain[0].name, 0, 0),), outputs=(Ref(before, 0, 0),))


def _functional(name: str, layers: dict[str, Layer], config: Mapping[str, Any], rows: Sequence[Any]) -> Model:
    """Return a functional model.

    Calls of a nested model are counted from 1 by Keras 2, and by Keras 3 in the list of outputs.
    """
    old = any(isinstance(node, list) for row in rows for node in row.get("inbound_nodes") or ())

    def first_call(layer: str, *, at_the_end: bool) -> int:
        held = layers.get(layer)
        if held is None or held.model is None:
            return 0
        if held.kind == "Sequential":
            begins = next(iter(held.config.get("layers") or [{}]))
            return int(old and isinstance(begins, Mapping) and begins.get("class_name") == "InputLayer")
        return int(old or at_the_end)

    def settled(ref: Ref, *, at_the_end: bool = False) -> Ref:
        call = ref.call - first_call(ref.layer, at_the_end=at_the_end)
        layer = layers.get(ref.layer)
        calls = 0 if layer is None else max(len(layer.calls), int(layer.kind == "InputLayer"))
        if not 0 <= call < calls:
            raise InputError(f"a layer reads call {ref.call} of {ref.layer!r}, which has {calls}; the file is damaged")
        return Ref(ref.layer, call, ref.output)

    def within(value: Any) -> Any:
        if isinstance(value, Ref):
            return settled(value)
        if isinstance(value, list | tuple):
            return type(value)(within(each) for each in value)
        if isinstance(value, Mapping):
            return {key: within(each) for key, each in value.items()}
        return value

    made = {
        key: replace(layer, calls=tuple(Call(within(c.args), within(c.kwargs)) for c in layer.calls))
        for key, layer in layers.items()
    }
    ends = [
        tuple(settled(ref, at_the_end=True) for ref in _triples(config.get(key)))
        for key in ("input_layers", "output_layers")
    ]
    if not all(ends):
        raise InputError(f"the model {name!r} has no inputs or no outputs; the file is damaged")
    return Model(name=name, layers=made, inputs=ends[0], outputs=ends[1])


def _triples(value: Any) -> Iterator[Ref]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from _triples(each)
    elif isinstance(value, list):
        if len(value) == 3 and isinstance(value[0], str):
            yield Ref(value[0], int(value[1]), int(value[2]))
        else:
            for each in value:
                yield from _triples(each)


def places(model: Model) -> dict[tuple[str, ...], Place]:
    """Return where each layer of a model and of those inside it stands, by its names."""
    found: dict[tuple[str, ...], tuple[str, ...]] = {}

    def walk(inside: Model, names: tuple[str, ...], groups: tuple[str, ...]) -> None:
        for layer in inside.layers.values():
            key = (*names, layer.name)
            found[key] = (*groups, layer.group)
            if layer.model is not None:
                walk(layer.model, key, found[key])

    walk(model, (), ())
    alike: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for names, groups in found.items():
        alike[names[-1]].append(groups)
    return {
        names: Place(names, groups, tuple(g for g in alike[names[-1]] if g != groups))
        for names, groups in found.items()
    }
