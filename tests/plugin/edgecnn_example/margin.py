"""A metric: by how much the first class is ahead of the second."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.evaluation.metrics import Metric


def _margin(outputs: NDArray[np.float32], labels: Any, reference: Any) -> NDArray[np.float32]:
    two = np.sort(outputs, axis=1)[:, -2:]
    margin: NDArray[np.float32] = two[:, 1] - two[:, 0]
    return margin


MARGIN = Metric(name="margin", unit="", measure=_margin)
