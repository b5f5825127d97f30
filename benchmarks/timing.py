"""Latency of artifacts beside each other: timed in turns, so that what the machine does else hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.interface import Session

TURNS, RUNS = 15, 40  # turns of each artifact, runs per turn; the first turn warms up


def interleaved(
    sessions: Mapping[str, Session], runs: int = RUNS, clock: Callable[[], int] = time.perf_counter_ns
) -> dict[str, list[float]]:
    """Return each name's median ms in every turn.

    Args:
        sessions: by name.
        runs: of each in a turn.
        clock: in nanoseconds; ``time.process_time_ns`` leaves out what other processes take.
    """
    inputs = {name: fixed_input(session) for name, session in sessions.items()}
    medians: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(TURNS + 1):
        for name, session in sessions.items():
            times = []
            for _ in range(runs):
                start = clock()
                session.run(inputs[name])
                times.append(clock() - start)
            if turn:
                medians[name].append(float(np.median(times)) / 1e6)
    return medians


def ratio(mine: list[float], theirs: list[float]) -> dict[str, Any]:
    """Median and quartiles of the ratio, turn by turn."""
    low, middle, high = np.percentile(np.array(mine) / np.array(theirs), [25, 50, 75])
    return {"median": round(float(middle), 3), "quartiles": [round(float(low), 3), round(float(high), 3)]}
