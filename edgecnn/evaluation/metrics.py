"""Metrics beside top-1, agreement and SQNR. Any package may add some, through entry points ``edgecnn.metrics``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.own_code import own_code
from edgecnn.plugins import INTERFACE, registry

Outputs = NDArray[np.float32]  # (n, outputs)
Classes = NDArray[np.integer[Any]] | None  # (n,)
Measure = Callable[[Outputs, Classes, Outputs | None], Any]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A figure that is a mean over images.

    Attributes:
        name: the key in a report's ``accuracy``, and what ``--require`` names.
        unit: of the figure.
        measure: takes outputs (n, outputs), labels (n,) or ``None`` and fp32's outputs or ``None``; returns a number
            per image, (n,), or ``None`` where it needs what is not there.
        interface: version of ``edgecnn.plugins.INTERFACE`` that it was written for.
    """

    name: str
    unit: str
    measure: Measure
    interface: int = INTERFACE


def _cosine(outputs: Outputs, labels: Classes, reference: Outputs | None) -> NDArray[np.float64] | None:
    if reference is None:
        return None
    a, b = outputs.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: NDArray[np.float64] = (a * b).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return found


COSINE = Metric(name="cosine", unit="", measure=_cosine)
"""Cosine similarity of an artifact's outputs and fp32's: what an embedding is used by."""


class MetricMeter:
    """Means of all registered metrics over batches of images."""

    def __init__(self) -> None:
        self._metrics: Mapping[str, Metric] = registry("metrics", Metric)
        self._sums = dict.fromkeys(self._metrics, 0.0)
        self._counts = dict.fromkeys(self._metrics, 0)

    def update(self, outputs: Outputs, labels: Classes, reference: Outputs | None) -> None:
        """Count a batch; see ``Metric.measure``.

        Raises:
            InputError: a metric raises, or does not return a number per image.
        """
        for name, metric in self._metrics.items():
            with own_code(f"metric {name!r}"):
                values = metric.measure(outputs, labels, reference)
            if values is None:
                continue
            values = np.asarray(values)
            if values.shape != (len(outputs),):
                raise InputError(
                    f"metric {name!r} returned {values.shape}; return a number per image, ({len(outputs)},)"
                )
            self._sums[name] += float(values.sum())
            self._counts[name] += len(values)

    def result(self) -> dict[str, float]:
        """Return the means so far, by name; a metric that found nothing is not among them."""
        return {name: self._sums[name] / count for name, count in self._counts.items() if count}
