"""A graph in the making from the calls of a Keras model: which output of which call became which value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn.errors import InputError
from edgecnn.graph.builder import Builder, Operand
from edgecnn.graph.node_builder import Array, Value
from edgecnn.graph.ops import need
from edgecnn.reading import is_fault
from edgecnn_converters.keras.architecture import Layer, Model, Ref, places
from edgecnn_converters.keras.archive import DAMAGED, Archive, Place, fits

Made = Value | list[Value]
Handler = Callable[["Step"], Made]
Key = tuple[str, int]
CHANNELS_FIRST = "channels_first"


@dataclass(frozen=True)
class Shown:
    """Say which output of which call of a layer a graph tensor holds; ``axes`` are those of its value."""

    layer: str
    call: int
    output: int
    axes: tuple[int, ...]


class Translation(Builder):
    """The builder of a Keras model.

    Attributes:
        archive: has the weights.
        keras: the major version of Keras that wrote the file.
        faults: what no graph holds: a line for each layer.
        shown: graph tensor to the layer whose output it is.
    """

    def __init__(
        self, archive: Archive, model: Model, handlers: Callable[[Layer], Handler | None], *, channels_last: bool
    ) -> None:
        super().__init__(channels_last=channels_last)
        self.archive, self.keras, self.handlers = archive, archive.keras, handlers
        self.faults: list[str] = []
        self.shown: dict[str, Shown] = {}
        self.places = places(model)

    def name(self, op: str) -> str:
        """Name the first node of a layer after it, and those that follow after layer and op."""
        found = super().name(op)
        self.named = False
        return found

    def run(self, model: Model, given: Sequence[Value | None], path: tuple[str, ...] = ()) -> list[Value | None]:
        """Add what a model does to its inputs; ``None`` stands for what a layer that is not supported makes.

        A call is added just behind the last of those that it reads, so that a batch norm follows its convolution.
        """
        done: dict[Key, list[Value | None]] = {}
        for ref, value in zip(model.inputs, given, strict=True):
            done[ref.layer, ref.call] = [value]
        read = Counter(model.outputs)
        for layer in model.layers.values():
            read.update(ref for call in layer.calls for ref in call.refs())
        stack: list[Key] = [(ref.layer, ref.call) for ref in reversed(model.outputs)]
        begun: set[Key] = set()
        while stack:
            key = stack[-1]
            if key in done:
                stack.pop()
                continue
            layer = model.layers[key[0]]
            need(bool(layer.calls), f"input layer {layer.name!r} is none of the model's inputs; the file is damaged")
            refs = layer.calls[key[1]].refs()
            missing = [(ref.layer, ref.call) for ref in refs if (ref.layer, ref.call) not in done]
            need(begun.isdisjoint(missing), f"layer {layer.name!r} reads what it makes: the model has a cycle")
            begun.add(key)
            if missing:
                stack.extend(reversed(missing))
                continue
            alone = len(refs) == 1 and read[refs[0]] == 1 and _folds(model.layers[refs[0].layer])
            done[key] = self._apply(layer, key[1], done, path, alone)
        return [_output(done, ref) for ref in model.outputs]

    def _apply(
        self, layer: Layer, call: int, done: Mapping[Key, list[Value | None]], path: tuple[str, ...], alone: bool
    ) -> list[Value | None]:
        names = (*path, layer.name)
        args, kwargs = (_filled(part, done) for part in (layer.calls[call].args, layer.calls[call].kwargs))
        if any(_output(done, ref) is None for ref in layer.calls[call].refs()):
            return [None]
        if layer.model is not None:
            values = [_output(done, ref) for ref in layer.calls[call].refs()]
            need(len(values) == len(layer.model.inputs), f"model {layer.name!r} has {len(layer.model.inputs)} inputs")
            return self._show(layer, call, self.run(layer.model, values, names), path)
        self.scope, self.named = ".".join(names).replace("/", "."), True
        handler = self.handlers(layer)
        if handler is None:  # the importer lists those
            return [None]
        step = Step(self, layer, self.places[names], args, kwargs, alone)
        try:
            made = handler(step)
            values = [*made] if isinstance(made, list) else [made]
            for value in values:
                assert value is not None
                need(
                    fits(self.held(value)), f"its output would be of shape {self.shape(value)}, too large for a machine"
                )
        except InputError as error:
            self.faults.append(f"{layer.kind} {'/'.join(names)!r}: {error}")
            return [None]
        except DAMAGED as error:
            if is_fault(error):
                raise
            line = next(iter(str(error).splitlines()), "")
            self.faults.append(
                f"{layer.kind} {'/'.join(names)!r}: it is damaged ({type(error).__name__}: {line[:200]})"
            )
            return [None]
        return self._show(layer, call, values, path)

    def _show(
        self, layer: Layer, call: int, values: Sequence[Value | None], path: tuple[str, ...]
    ) -> list[Value | None]:
        """Note what holds the outputs of a layer of the file's own model, and return them."""
        for k, value in enumerate(values):
            if not path and value is not None:
                self.shown[value.name] = Shown(layer.name, call, k, value.axes)
        return [*values]


def _folds(layer: Layer) -> bool:
    """Tell whether a batch norm behind a layer can go into its weights."""
    linear = layer.config.get("activation") in (None, "linear")
    return linear and layer.kind.startswith(("Conv", "Depthwise", "Separable", "Dense"))


def _output(done: Mapping[Key, list[Value | None]], ref: Ref) -> Value | None:
    made = done[ref.layer, ref.call]
    if None in made:
        return None
    need(ref.output < len(made), f"layer {ref.layer!r} has {len(made)} outputs; number {ref.output} is read")
    return made[ref.output]


def _filled(argument: Any, done: Mapping[Key, list[Value | None]]) -> Any:
    """Return arguments with values in the place of references."""
    if isinstance(argument, Ref):
        return _output(done, argument)
    if isinstance(argument, list | tuple):
        return [_filled(each, done) for each in argument]
    if isinstance(argument, Mapping):
        return {key: _filled(each, done) for key, each in argument.items()}
    return argument


@dataclass(frozen=True)
class Step:
    """Hold one call of a layer: what a function of ``LAYERS`` is given.

    Attributes:
        b: the builder.
        layer: what is called.
        place: where its weights are.
        args: positional arguments, nested lists of values and constants.
        kwargs: the others.
        alone: whether nothing else reads its input, which a layer with weights made.
    """

    b: Translation
    layer: Layer
    place: Place
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    alone: bool

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the layer's configuration."""
        return self.layer.config

    @property
    def x(self) -> Value:
        """Return the only input."""
        (value,) = self.inputs
        return value

    @property
    def inputs(self) -> list[Value]:
        """Return the inputs, a list of them or one."""
        given = self.args[0] if self.args else next(iter(self.kwargs.values()), None)
        values = given if isinstance(given, list) else [given]
        need(bool(values) and all(isinstance(v, Value) for v in values), "a constant where an activation is needed")
        return [*values]

    @property
    def last(self) -> bool:
        """Whether its images are NHWC."""
        return self.config.get("data_format") != CHANNELS_FIRST

    def arrays(self, *variables: str) -> list[Array]:
        """Return the weights of the layer, in the order that it makes them."""
        return self.b.archive.arrays(self.place, variables)

    def inward(self, x: Value) -> Value:
        """Return the input in the order of dimensions that the builder has for images."""
        return _turned(self.b, x, self.last, self.b.channels_last)

    def outward(self, x: Value) -> Value:
        """Undo ``inward``."""
        return _turned(self.b, x, self.b.channels_last, self.last)


def _turned(b: Builder, x: Value, was_last: bool, is_last: bool) -> Value:
    """Return a value in another order of dimensions, channels last or first: no node."""
    rank = len(b.shape(x))
    if was_last == is_last or rank < 3:
        return x
    return b.transpose(x, (0, *range(2, rank), 1) if is_last else (0, rank - 1, *range(1, rank - 1)))


def operand(value: Any) -> Operand:
    """Return an argument that may be a value, a number, or a list of numbers."""
    return value if isinstance(value, Value) else np.asarray(value, np.float32)


def pair(value: Any, rows: bool = False) -> tuple[int, int]:
    """Return a configuration's one or two whole numbers as (height, width); of a row, its height is 1."""
    given = [*value] if isinstance(value, list | tuple) else [value]
    numbers = [int(v) for v in given]
    if rows:
        (width,) = numbers
        return 1, width
    height, width = numbers * 2 if len(numbers) == 1 else numbers
    return height, width
