"""Artifacts that this process has not written: their runtime is in a child, which they may crash, hang or fill."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.artifact import Port, was_written_here
from edgecnn.child import Child
from edgecnn.errors import DeviceFault
from edgecnn.report.evidence import LayerCost
from edgecnn.report.record import Latency
from edgecnn_targets.interface import (
    Activations,
    Arrays,
    Description,
    Op,
    Parameters,
    Runtime,
    Saturation,
    Session,
    bytes_of,
)

OPEN_S, INFERENCE_S, PROFILE_S = 120.0, 20.0, 600.0  # of a processor that others use too
SERVED = "edgecnn_targets.runtimes.served"
PER_BYTE = 8  # bytes of memory for each of a file, beside what the budget allows


class ForeignSession(Session):
    """An artifact open in a child; see ``Session``.

    Raises:
        InputError: the runtime refuses the file.
        DeviceFault: it ended, hung, or took more memory than it may; with its last output.
    """

    def __init__(self, runtime: Runtime, path: Path, *, threads: int, kernels: str | None) -> None:
        self._child = _child(runtime, path)
        given = {"target": runtime.target, "path": str(path.absolute()), "threads": threads, "kernels": kernels}
        try:
            said, _ = self._child.call(f"{SERVED}:open_artifact", given, within_s=OPEN_S)
            super().__init__(_description(said), threads=threads)
        except BaseException:
            self.close()
            raise

    def execute(self, batch: Arrays) -> Arrays:
        count = len(batch[self.inputs[0].name])
        room = sum(array.nbytes for array in batch.values()) + bytes_of(self.outputs) * (count + 1)
        _, made = self._child.call(f"{SERVED}:run", {}, batch, room=room, within_s=OPEN_S + INFERENCE_S * count)
        return {name: np.array(array) for name, array in made.items()}  # the next call overwrites them

    def time(self) -> Latency:
        """Time single inferences in the child.

        Raises:
            DeviceFault: the child ended or hung.
        """
        said, _ = self._child.call(f"{SERVED}:time", {}, within_s=OPEN_S + 110 * INFERENCE_S)
        return Latency(**said)

    def close(self) -> None:
        self._child.close()


def open_session(runtime: Runtime, path: Path, *, threads: int = 1, kernels: str | None = None) -> Session:
    """Open an artifact: in this process where it has been written here, in a child otherwise; raises as both."""
    if was_written_here(path):
        return runtime.open_session(path, threads=threads, kernels=kernels)
    return ForeignSession(runtime, path, threads=threads, kernels=kernels)


def activations(
    runtime: Runtime, path: Path, sample: Arrays, parameters: Parameters, kernels: str | None
) -> Activations:
    """Return what an artifact computes inside, from a child where it has not been written here."""
    assert runtime.activations is not None
    if was_written_here(path):
        return runtime.activations(path, sample, parameters, kernels)
    child = _child(runtime, path)
    given = {
        "target": runtime.target, "path": str(path.absolute()), "kernels": kernels,
        "parameters": {name: (float(scale), int(zero)) for name, (scale, zero) in parameters.items()},
    }  # fmt: skip
    try:
        _, made = child.call(f"{SERVED}:activations", given, sample, within_s=OPEN_S)
        return {name: np.array(array) for name, array in made.items()}
    finally:
        child.close()


def profile(runtime: Runtime, path: Path) -> list[LayerCost]:
    """Return the time of each op on this machine, from a child where the artifact has not been written here."""
    assert runtime.profile is not None
    if was_written_here(path):
        return runtime.profile(path, 1)
    child = _child(runtime, path)
    try:
        said, _ = child.call(
            f"{SERVED}:profile", {"target": runtime.target, "path": str(path.absolute())}, within_s=OPEN_S + PROFILE_S
        )
        return [LayerCost(**each) for each in said["costs"]]
    finally:
        child.close()


def _child(runtime: Runtime, path: Path) -> Child:
    missing = runtime.missing()
    if missing is not None:
        raise runtime.absent()
    try:
        size = sum(file.stat().st_size for file in (path, path.with_suffix(".bin")) if file.is_file())
    except OSError as error:
        raise DeviceFault(f"cannot read {path}: {error.strerror}") from None
    return Child(f"{path.name} in {runtime.target}'s runtime", file_bytes=PER_BYTE * size)


def _description(said: Mapping[str, Any]) -> Description:
    return Description(
        inputs=tuple(_port(each) for each in said["inputs"]),
        outputs=tuple(_port(each) for each in said["outputs"]),
        ops=tuple(Op(**each) for each in said["ops"]),
        findings=tuple(Saturation(text) if saturates else text for text, saturates in said["findings"]),
        arithmetic=said["arithmetic"],
    )


def _port(said: Mapping[str, Any]) -> Port:
    return Port(**{**said, "shape": tuple(said["shape"])})
