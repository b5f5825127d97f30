"""Open and run an artifact in a child process: the functions that ``edgecnn.child.Child`` calls there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgecnn.child import Arrays
from edgecnn.plugins import registry
from edgecnn.serving import limit
from edgecnn_targets.evaluate import latency
from edgecnn_targets.interface import Runtime, Saturation, Session

Answer = tuple[dict[str, Any], Arrays]
State = dict[str, Any]


def open_artifact(state: State, given: Mapping[str, Any], arrays: Arrays) -> Answer:
    """Open an artifact; return its description."""
    runtime = _runtime(given)
    limit(state["memory"])
    session = runtime.open_session(Path(given["path"]), threads=given["threads"], kernels=given["kernels"])
    state["session"] = session
    said = [(text, isinstance(text, Saturation)) for text in session.findings]
    return {**asdict(session.description), "findings": said}, {}


def run(state: State, given: Mapping[str, Any], arrays: Arrays) -> Answer:
    """Run a batch that fits."""
    session: Session = state["session"]
    return {}, session.execute(arrays)


def time(state: State, given: Mapping[str, Any], arrays: Arrays) -> Answer:
    """Time single inferences by this process's clock."""
    return asdict(latency(state["session"])), {}


def activations(state: State, given: Mapping[str, Any], arrays: Arrays) -> Answer:
    """Return what an artifact computes inside."""
    tell = _runtime(given).activations
    assert tell is not None
    limit(state["memory"])
    parameters = {name: (float(scale), int(zero)) for name, (scale, zero) in given["parameters"].items()}
    return {}, tell(Path(given["path"]), arrays, parameters, given["kernels"])


def profile(state: State, given: Mapping[str, Any], arrays: Arrays) -> Answer:
    """Return the time of each op of an artifact."""
    tell = _runtime(given).profile
    assert tell is not None
    limit(state["memory"])
    return {"costs": [asdict(cost) for cost in tell(Path(given["path"]), 1)]}, {}


def _runtime(given: Mapping[str, Any]) -> Runtime:
    return registry("runtimes", Runtime)[given["target"]]
