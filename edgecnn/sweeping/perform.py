"""What a job does: one stage, on a machine that sees the folder of the sweep or on one that does not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError
from edgecnn.files import scratch
from edgecnn.jobs import Executor, FileInput, Status
from edgecnn.jobs.transfer import pack
from edgecnn.report.document import this_machine
from edgecnn.sweeping.inputs import file_input
from edgecnn.sweeping.stages import Made, Stage, elsewhere, work
from edgecnn.sweeping.store import Result, Store


def perform(folder: Path, stage: Stage) -> Result:
    """Do a stage and write its result into the folder of the sweep; one that is there is returned.

    Raises:
        InputError: the stage raised it, or there is no result of the stage before.
    """
    store = Store(folder)
    kept = store.done(stage.digest)
    if kept is not None:
        return kept
    with store.making(stage.digest) as place:
        value, run = _timed(stage.kind, stage.settings, _before(store, stage), place)
    return store.put(stage, Status.OK, value=value, run=run)


@dataclass(frozen=True)
class Away:
    """What came of a stage on another machine: its value, how it ran, and the files that it made, packed."""

    value: dict[str, Any]
    run: dict[str, Any]
    packed: bytes


def perform_away(
    kind: str,
    settings: Mapping[str, Any],
    paths: Mapping[str, tuple[Path, str]],
    before: tuple[Path, Mapping[str, Any]] | None,
) -> Away:
    """Do a stage without the folder of the sweep.

    Args:
        kind, settings: of the stage.
        paths: where the inputs that the settings name are on this machine, each with its ``:SPLIT``.
        before: files and value of the stage before.

    Raises:
        InputError: the stage raised it.
    """
    made = None if before is None else Made(*before)
    with scratch() as place:
        value, run = _timed(kind, elsewhere(settings, paths), made, place)
        return Away(value, run, pack(place, ".") if any(place.iterdir()) else b"")


def job(store: Store, stage: Stage, executor: Executor) -> tuple[Any, ...]:
    """Return a function that does a stage on an executor, and its arguments."""
    if executor.shares_files:
        return perform, store.folder, stage
    before: tuple[Path | FileInput, Mapping[str, Any]] | None = None
    if (made := _before(store, stage)) is not None:
        before = (file_input(made.folder) if made.folder.exists() else made.folder), made.value
    return perform_away, stage.kind, stage.settings, stage.files(), before


def keep(store: Store, stage: Stage, value: Any) -> None:
    """Write the result of a stage that was done elsewhere; one that was done here has written it."""
    if isinstance(value, Away):
        store.put_files(stage.digest, value.packed)
        store.put(stage, Status.OK, value=value.value, run=value.run)


def _timed(
    kind: str, settings: Mapping[str, Any], made: Made | None, place: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Do a stage; return its value, and how it ran."""
    start = time.perf_counter()
    value = work(kind)(settings, made, place)
    return value, {"seconds": round(time.perf_counter() - start, 3), "cpu": this_machine()["cpu"]}


def _before(store: Store, stage: Stage) -> Made | None:
    """Return what the stage before made.

    Raises:
        InputError: there is no result of it.
    """
    before = stage.parent
    if before is None:
        return None
    found = store.result(before.digest)
    if found is None or found.status is not Status.OK:
        raise InputError(f"{stage.name}: there is no result of {before.name} in {store.folder}")
    return Made(store.files(before.digest), found.value)
