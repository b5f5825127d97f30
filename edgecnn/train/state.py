"""Where a run stands, kept beside its output: what a stopped run needs to go on to the same result."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from edgecnn.errors import InputError
from edgecnn.files import write_atomic
from edgecnn.reading import reading
from edgecnn.records import read_record
from edgecnn.train.config import TrainConfig

SUFFIX = ".checkpoint.pt"


@dataclass(kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch: epochs done.
        step: steps done of the epoch under way.
        sums: of loss and of right answers over these steps.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0])


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that training changes."""

    module: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    progress: Progress

    @property
    def parts(self) -> dict[str, Any]:
        """Return what is saved of it by ``state_dict``."""
        return {name: getattr(self, name) for name in ("module", "average", "optimizer", "scaler")}


def save(config: TrainConfig, state: State) -> None:
    """Write the checkpoint. Atomic.

    Raises:
        InputError: the place cannot be written.
    """
    record = {name: part.state_dict() for name, part in state.parts.items()}
    buffer = io.BytesIO()
    torch.save({"config": json.dumps(config.identity()), "progress": vars(state.progress), **record}, buffer)
    write_atomic(config.beside(SUFFIX), buffer.getvalue())


def resume(config: TrainConfig, state: State) -> None:
    """Go on from the checkpoint beside the output, where there is one.

    Raises:
        InputError: it is no checkpoint, of another model, or of other settings; says which.
    """
    path = config.beside(SUFFIX)
    if not path.exists():
        return
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - what torch raises for a damaged file
        saved = None
    if not isinstance(saved, dict) or not {"config", "progress", "module"} <= set(saved):
        raise InputError(f"{path} is no checkpoint of `edgecnn train`; delete it or choose another -o")
    with reading(path, remedy="delete it or choose another -o"):
        mine, theirs = config.identity(), dict(json.loads(saved["config"]))
    if theirs.get("model") != config.model:
        raise InputError(
            f"{path} is a checkpoint of {theirs.get('model')}, not of {config.model}; delete it or choose another -o"
        )
    differs = [f"{k} is {theirs.get(k)!r} there, {v!r} here" for k, v in mine.items() if theirs.get(k) != v]
    if differs:
        raise InputError(f"{path} is of another run ({'; '.join(differs)}); delete it or choose another -o")
    with reading(path, remedy="delete it or choose another -o"):
        for name, part in state.parts.items():
            part.load_state_dict(saved[name])
    vars(state.progress).update(vars(read_record(Progress, saved["progress"], str(path))))
