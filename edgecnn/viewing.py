"""A network to look at: as a page of its own, or coloured in Google's Model Explorer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecnn.artifact import graph_path
from edgecnn.errors import InputError
from edgecnn.evaluation.collector import layer_errors
from edgecnn.files import write_atomic, write_json
from edgecnn.graph.batch import Batch
from edgecnn.graph.ir import Graph
from edgecnn.graph.summary import layers
from edgecnn.inspecting import inspect
from edgecnn.loading import load
from edgecnn.network import Network
from edgecnn.report.evidence import LayerCost, unit_of
from edgecnn.report.network_page import NetworkView, document
from edgecnn.report.page import html
from edgecnn_converters.registry import converters

GRAPH = "main"
"""What Model Explorer calls the graph of a TFLite file (its flatbuffer adapter)."""
GRADIENTS = {"bits": ("#d6e6f4", "#f5cfa0"), "error": ("#f0b0a0", "#eef2f6"), "time": ("#eef2f6", "#f0b0a0")}
"""Colours of the smallest and of the largest value."""


def view(thing: Any, *, data: Any = None, limit: int = 8, device: str | None = None, **loading: Any) -> NetworkView:
    """Return a network with what is known of each of its ops.

    Args:
        thing: a network, or what ``edgecnn.inspect`` takes. Of an artifact, the ``.edgecnn`` file beside it is drawn.
        data: images, on which the error of each layer of an integer network is measured.
        limit: at most so many.
        device: on which the cost of each op of an artifact is measured.
        loading: as for ``edgecnn.load``.

    Raises:
        InputError: there is no such network, or what is asked for needs another one.
    """
    network = thing if isinstance(thing, Network) else _network(Path(thing), loading)
    graph = network.graph
    errors, costs, unit = dict[str, float | None](), dict[str, float](), ""
    if data is not None:
        errors = _errors(graph, data, limit)
    if device is not None:
        unit, costs = _costs([row for row in inspect(thing, device=device) if isinstance(row, LayerCost)], graph)
    reads = {node.output: tuple(node.inputs) for node in graph}
    return NetworkView(
        title=network.name,
        facts=network.facts(),
        layers=tuple(layers(graph)),
        reads=reads,
        errors=errors,
        costs=costs,
        unit=unit,
        place=device or "",
    )


def save_page(shown: NetworkView, path: Path, colour: str) -> None:
    """Write the page.

    Raises:
        InputError: the place cannot be written.
    """
    write_atomic(path, html(document(shown, colour)).encode(), remedy="choose another place")


def save_node_data(shown: NetworkView, path: Path, colour: str) -> None:
    """Write what Model Explorer reads as node data: values by the names of output tensors, as they are in the artifact.

    Source: ``model_explorer.node_data_builder`` of ai-edge-model-explorer 0.1.34.

    Raises:
        InputError: the place cannot be written.
    """
    values = {layer.name: shown.value(layer.name, colour) for layer in shown.layers}
    low, high = GRADIENTS[colour]
    data = {
        "name": {"bits": "bits", "error": "SQNR, dB", "time": shown.unit}[colour],
        "results": {name: {"value": round(value, 3)} for name, value in values.items() if value is not None},
        "gradient": [{"stop": 0, "bgColor": low}, {"stop": 1, "bgColor": high}],
    }
    write_json(path, {GRAPH: data})


def _network(path: Path, loading: dict[str, Any]) -> Network:
    """Return the network that a file or a name is; of an artifact, the one beside it where there is one."""
    written = {row.suffixes[0] for row in converters().values()}
    if path.suffix in written and graph_path(path).exists():
        return load(graph_path(path))
    known = {key: value for key, value in loading.items() if value is not None}
    return load(path, **{"weights": "random", **known} if not path.suffix and ":" not in str(path) else known)


def _errors(graph: Graph, data: Any, limit: int) -> dict[str, float | None]:
    from edgecnn.data import open_images
    from edgecnn.data.feed import Feed

    if graph.precision in ("fp32", "w8"):
        raise InputError(f"the network is {graph.precision}; errors of layers are of an integer one (--quantize int8)")
    feed = Feed.of(graph)
    images = open_images(data, demo_split="calibration", labelled=False, limit=limit)
    batch = Batch.joined(feed.inputs(given) for given, _ in images.batches(feed, 4))
    return {error.name: error.sqnr_db for error in layer_errors(graph, batch)}


def _costs(rows: list[LayerCost], graph: Graph) -> tuple[str, dict[str, float]]:
    """Return the unit and the cost of each tensor; ops of a runtime that make no tensor of the graph are left out."""
    unit = unit_of(rows)
    made = {node.output for node in graph}
    found: dict[str, float] = {}
    for row in rows:
        name = row.name if row.name in made else row.name.split("/")[0]
        if name in made:
            found[name] = found.get(name, 0) + (getattr(row, unit) or 0)
    return unit, found
