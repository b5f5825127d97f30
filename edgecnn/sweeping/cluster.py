"""What runs the jobs of a sweep: processes here, or a Dask cluster whose workers were asked whether they fit."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import InputError
from edgecnn.jobs import Executor, LocalExecutor
from edgecnn.jobs.transfer import shared, size_of_files
from edgecnn.progress import say
from edgecnn.sbom import library_versions
from edgecnn.sweeping.inputs import file_input
from edgecnn.sweeping.spec import Engine
from edgecnn_targets.devices import device
from edgecnn_targets.registry import missing

SENT_MIB = 1024  # of one folder of images; packed, it is held in memory


@dataclass(frozen=True)
class Place:
    """A device and a target that a sweep has jobs for; ``board``: one job at a time; ``timed``: by a clock there."""

    device: str
    target: str
    board: bool
    timed: bool


def executor_of(engine: Engine, places: Collection[Place], images: Collection[Path] = ()) -> Executor:
    """Return what runs the jobs.

    Args:
        engine: what the sweep says.
        places: that it has jobs for.
        images: files and folders that jobs read.

    Raises:
        InputError: no scheduler answers, it has no workers, or they have other versions, lack a device, or do not see
            images that are too large to send.
        MissingDependencyError: Dask is not installed.
    """
    if engine.scheduler is None and engine.cluster is None:
        return LocalExecutor(engine.workers)
    from edgecnn.jobs.dask_executor import Cluster, DaskExecutor

    executor = DaskExecutor(
        Cluster(
            scheduler=engine.scheduler,
            kind=engine.cluster,
            options=engine.options,
            workers=engine.workers,
            wait_s=engine.wait_s,
        )
    )
    try:
        _require_versions(executor.on_workers(_versions))
        for path in images:
            if size_of_files(path) > SENT_MIB * 2**20:
                _require_shared(path, executor.on_workers(shared, file_input(path)))
        resources = executor.resources()
        _require_devices(
            executor.on_workers(_lacking, sorted({(p.device, p.target) for p in places})), places, resources
        )
        named = {name for names in resources.values() for name in names}
        executor.demand(named)
    except BaseException:
        executor.close()
        raise
    say(f"Dask scheduler {executor.address}, {len(resources)} workers, dashboard {executor.dashboard}")
    for place in sorted({p.device for p in places if p.timed} - named):
        say(f"note: times on {place} are measured beside other jobs; start one worker with --resources '{place}=1'")
    return executor


def _versions() -> dict[str, str]:
    return dict(library_versions())


def _lacking(places: list[tuple[str, str]]) -> dict[str, str]:
    """Return the devices that this worker cannot run, with the command that installs what they need."""
    found = {}
    for name, target in places:
        command = missing(device(name), target)
        if command is not None:
            found[name] = command
    return found


def _require_versions(found: Mapping[str, Mapping[str, str]]) -> None:
    here = _versions()
    for address, versions in found.items():
        for name in sorted({*here, *versions}):
            if here.get(name) != versions.get(name):
                raise InputError(
                    f"worker {address} has {name} {versions.get(name, 'not')}, and this is {here.get(name, 'none')}; "
                    "start workers with the same versions"
                )


def _require_shared(path: Path, found: Mapping[str, bool]) -> None:
    blind = [address for address, sees in found.items() if not sees]
    if blind:
        raise InputError(
            f"worker {blind[0]} does not see {path}, and more than {SENT_MIB} MiB are not sent; "
            "put it where all workers see it under the same path"
        )


def _require_devices(
    lacking: Mapping[str, Mapping[str, str]], places: Collection[Place], resources: Mapping[str, Collection[str]]
) -> None:
    for place in places:
        having = [address for address in lacking if place.device in resources.get(address, ())]
        if place.board and not having:
            raise InputError(
                f"no worker has the board {place.device}; start one beside it with --resources '{place.device}=1'"
            )
        for address in having or lacking:
            command = lacking[address].get(place.device)
            if command is not None:
                raise InputError(
                    f"worker {address} cannot run {place.device}: {command}; or start those that can with "
                    f"--resources '{place.device}=1'"
                )
