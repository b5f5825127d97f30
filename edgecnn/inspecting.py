"""``edgecnn.inspect``: a network or an artifact, layer by layer."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from edgecnn.graph.summary import Layer, layers
from edgecnn.image_inputs import InputShape
from edgecnn.loading import is_factory, is_file, load
from edgecnn.network import Artifact, Network
from edgecnn.preprocess import Preprocess
from edgecnn.report.evidence import LayerCost
from edgecnn.report.table import html_table
from edgecnn_converters.registry import converter, converters
from edgecnn_targets.devices import device as device_named
from edgecnn_targets.registry import layers as costs
from edgecnn_targets.registry import require, runtime_of


class Layers(tuple[Layer | LayerCost, ...]):
    """The ops of a network or an artifact, in order; a table where it is shown."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per op; a field that no op has is left out."""
        rows = [{field.name: getattr(layer, field.name) for field in fields(layer)} for layer in self]
        return [{k: v for k, v in row.items() if any(r[k] not in (None, "", 0) for r in rows)} for row in rows]

    def __repr__(self) -> str:
        rows = self.rows()
        lines = [tuple(rows[0]), *(tuple(map(str, row.values())) for row in rows)] if rows else []
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        rows = self.rows()
        return html_table(rows[0] if rows else (), (row.values() for row in rows))


def inspect(
    thing: Network | Artifact | str | Path,
    *,
    weights: str | Path | None = None,
    convention: str | None = None,
    preprocess: Preprocess | str | None = None,
    input_shape: InputShape | None = None,
    device: str | None = None,
) -> Layers:
    """List the ops of a network or an artifact with shapes, quantization, MACs and bytes.

    Args:
        thing: a network or an artifact in memory, the main file of an artifact, or what ``edgecnn.load`` takes.
        weights, convention, preprocess, input_shape: as for ``edgecnn.load``; without weights, a registered model gets
            random ones.
        device: what each op of an artifact costs there, in place of its shapes.

    Raises:
        InputError: there is no such model or file, or it is corrupt.
        UnsupportedError: the device does not say what each op costs.
        MissingDependencyError: the device lacks a tool; the message installs it.

    Example:
        >>> edgecnn.inspect("out/mobilenet_v2.tflite")
    """
    if isinstance(thing, Artifact) and thing.path is not None:
        thing = thing.path
    if device is not None and not isinstance(thing, Network | Artifact):
        return _costs(Path(thing), device)
    if isinstance(thing, Artifact):
        return Layers(converter(thing.target).layers(*thing.files.values()))
    if isinstance(thing, Network):
        return Layers(layers(thing.graph))
    path = Path(thing)
    reader = next((row for row in converters().values() if row.suffixes[0] == path.suffix), None)
    if reader is not None:
        held, _, _ = reader.described(path)
        return Layers(reader.layers(*held))
    if weights is None and not is_file(str(thing)) and not is_factory(str(thing)):
        weights = "random"
    network = load(thing, weights=weights, convention=convention, preprocess=preprocess, input_shape=input_shape)
    return Layers(layers(network.graph))


def _costs(path: Path, name: str) -> Layers:
    place, target = device_named(name), runtime_of(path).target
    if target in place.targets:
        require(place, target)
    return Layers(costs(place, path))
