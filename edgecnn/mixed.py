"""``--mixed``: the fewest activations in 16 bits such that the drop on labelled images stays within its limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.artifact import ConvertedModel, write_artifact
from edgecnn.data import Images, match_labels
from edgecnn.data.feed import Feed
from edgecnn.errors import InputError
from edgecnn.files import scratch
from edgecnn.graph.batch import Fed
from edgecnn.graph.interpreter import TorchGraph, tensors
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.progress import say, track
from edgecnn.quant.executor import FakeQuantizedGraph
from edgecnn.quant.promotion_search import Names, fewest, ranked
from edgecnn_targets.accuracy_meter import AccuracyMeter
from edgecnn_targets.devices import device
from edgecnn_targets.evaluate import latency
from edgecnn_targets.registry import open_session

BATCH = 10  # images in memory at a time


class DropMeter:
    """The drop of quantized graphs, simulated, on labelled images; fp32 runs over them once.

    Args:
        graph: the network; its float values are the reference.
        images: labelled.

    Raises:
        InputError: images and network do not fit together.
    """

    def __init__(self, graph: Graph, images: Images) -> None:
        if len(graph.outputs) != 1:
            raise InputError(f"max_drop is of classes, but the network has outputs {', '.join(graph.outputs)}")
        self._images, self._feed = images, Feed.of(graph)
        (self._output,) = graph.outputs
        self._offset = graph.metadata.label_offset
        outputs = math.prod(graph.tensors[self._output].shape)
        self._classes = match_labels(images, graph.metadata.labels, outputs, self._offset)
        self._exact, self._labels = self._logits(TorchGraph(graph).run, "fp32")

    def __call__(self, graph: Graph) -> float:
        """fp32 top-1 minus the graph's, in points."""
        meter = AccuracyMeter(self._offset)
        made, _ = self._logits(FakeQuantizedGraph(graph).run, "mixed")
        meter.update(made, self._labels, self._exact)
        drop = meter.result().drop
        assert drop is not None
        return drop

    def _logits(
        self, run: Callable[[Mapping[str, torch.Tensor]], Mapping[str, torch.Tensor]], what: str
    ) -> tuple[NDArray[np.float32], NDArray[np.integer[Any]]]:
        """Of all images, and their classes."""
        made, labels = [], []
        batches = self._images.batches(self._feed, BATCH)
        for given, classes in track(batches, what, len(self._images), unit="images", each=BATCH):
            assert classes is not None
            fed = self._feed.inputs(given)
            made.append(run(tensors(fed))[self._output].numpy().reshape(len(fed), -1))
            labels.append(classes if self._classes is None else self._classes[classes])
        return np.concatenate(made), np.concatenate(labels)


def choose(
    plain: Graph,
    quantized: Callable[[Names], Graph],
    images: Fed,
    drop: Callable[[Graph], float],
    max_drop: float,
) -> tuple[Names, str]:
    """The activations to keep in 16 bits, and what to tell the user.

    Args:
        plain: the int8 graph.
        quantized: the graph that keeps some.
        images: of the calibration set; the layers are ranked on them.
        drop: of a graph, in points; see ``DropMeter``.
        max_drop: the limit, in points.
    """

    def holds(keep: Names) -> bool:
        found = drop(quantized(keep))
        say(f"mixed: {len(keep)} of {len(order)} activations in 16 bits: simulated drop {found:+.2f} points")
        return found <= max_drop

    found = drop(plain)
    say(f"mixed: int8 alone: simulated drop {found:+.2f} points")
    if found <= max_drop:
        return (), "int8 alone holds --max-drop (simulated): nothing is kept in 16 bits"
    order = ranked(plain, images)
    kept = fewest(order, holds)
    if kept is None:
        return (), (
            f"--mixed cannot hold --max-drop {max_drop:g}: all {len(order)} inner activations in 16 bits do not. "
            "The 8-bit weights, input or output cost it; nothing is kept; try another recipe"
        )
    return kept, f"kept in 16 bits, or in float where the target has none: the activations {', '.join(kept)}"


def latency_cost(plain: ConvertedModel, mixed: Path, threads: int) -> str:
    """Say what the layers that are kept cost here: the median of one inference beside the plain artifact's."""
    with scratch() as folder:
        alone = write_artifact(Path(folder), "plain", plain, Metadata())
        before, after = (
            latency(open_session(device("host"), path, threads=threads)).median_ms for path in (alone, mixed)
        )
    assert before is not None
    assert after is not None
    return f"{after:.2f} ms beside {before:.2f} ms in int8 alone ({100 * (after / before - 1):+.0f} %)"
