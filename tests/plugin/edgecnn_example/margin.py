"""A metric: how far the first class is before the second."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.evaluation.metrics import Metric


def measure(
    outputs: NDArray[np.float32], labels: NDArray[np.integer[Any]] | None, reference: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """Return the difference of the two largest outputs of each image, (n,)."""
    second, first = np.sort(outputs, axis=1)[:, -2:].T
    margin: NDArray[np.float32] = first - second
    return margin


METRIC = Metric(name="margin", unit="logits", measure=measure)
