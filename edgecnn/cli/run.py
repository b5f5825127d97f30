"""``edgecnn run``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.cli import export
from edgecnn.cli.config import FILE, OF_THE_REPORT, ON_THE_LINE, Config, Network, find, namespace, parser_of
from edgecnn.cli.dry_run import planned
from edgecnn.cli.faults import status_of, was_interrupted
from edgecnn.cli.options import reported
from edgecnn.errors import InputError, unknown
from edgecnn.progress import Terminal

if TYPE_CHECKING:
    from edgecnn.planning import Plan
    from edgecnn.report.record import ReportEntry

HELP = "export and validate every network of edgecnn.toml, with one report: for continuous integration"
EXAMPLES = (
    "edgecnn run",
    "edgecnn run --config ci.toml --limit 200 --device host",
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """Hold one network: the options of its export, and of each further validation of its artifacts."""

    name: str
    export: argparse.Namespace
    validate: tuple[argparse.Namespace, ...] = ()


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the networks to run, and the options of ``export``, which win over the file's."""
    export.add_options(parser)
    for action in parser._actions:
        if action.dest not in ON_THE_LINE:
            action.default = argparse.SUPPRESS
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="only these, by the names of their artifacts")


def run(options: argparse.Namespace) -> int:
    """Run every network; return the worst exit status."""
    from edgecnn.report.record import Report

    config = find(options.config)
    if config is None:
        raise InputError(f"there is no {FILE} here; `edgecnn init MODEL` writes one, or pass --config FILE")
    defaults = vars(namespace("export", config.commands["export"]))
    for key in OF_THE_REPORT - set(vars(options)):
        setattr(options, key, defaults[key])
    work = jobs(config, options)
    if options.dry_run:
        return planned([plan for job in work for plan in _plans(job)], options)
    for own in (each for job in work for each in (job.export, *job.validate)):
        own.report = options.report  # what it shows is collected while the networks run
    entries: list[ReportEntry] = []
    status = 0
    for job in work:
        Terminal().say(f"network    {job.name}")
        try:
            for made in _entries(job):
                entries += made
        except Exception as error:
            if was_interrupted(error):
                raise
            status = max(status, status_of(error, sys.argv[1:], details=False))
            entries.append(_failed(job, error))
    report = Report(command="run", entries=tuple(entries))
    report.save(folder_of(config, options) / "report.json")
    return max(status, reported(report, options))


def folder_of(config: Config, options: argparse.Namespace) -> Path:
    """Return the folder of the report."""
    output: Path = namespace("export", {**config.commands["export"], **_given(options)}).output
    return output


def jobs(config: Config, options: argparse.Namespace) -> list[Job]:
    """Return the networks that a file and the command line ask for, in the file's order.

    Raises:
        InputError: there is none, one has no model, none has a name that was asked for, or two write the same files.
    """
    shared = config.commands["export"]
    rows = config.networks or ((Network(values={}),) if "model" in shared else ())
    if not rows:
        raise InputError(f"{config.path} has no [[network]]; give each network to export a table of that name")
    given = _given(options)
    made = [_job(config, row, {**shared, **row.values, **given}, given) for row in rows]
    places: dict[tuple[Path, str], Job] = {}
    for job in made:
        if (job.export.output, job.name) in places:
            said = f"two networks write {job.export.output / job.name}"
            raise InputError(f"{config.path}: {said}; give one of them another output")
        places[job.export.output, job.name] = job
    names = [job.name for job in made]
    if strange := [name for name in options.names if name not in names]:
        raise InputError(f"{config.path}: {unknown('network', strange[0], names)}")
    return [job for job in made if not options.names or job.name in options.names]


def _job(config: Config, row: Network, values: dict[str, Any], given: dict[str, Any]) -> Job:
    from edgecnn.loading import name_of

    if values.get("model") is None:
        raise InputError(f"{config.path}: a [[network]] has no model; give it one")
    own = namespace("export", values)
    name = export.named(own.output, own.target).get("name") or name_of(own.model)
    again = {action.dest for action in parser_of("validate")._actions}
    shared = {k: v for k, v in {**config.commands["validate"], **values}.items() if k in again}
    further = () if "device" in given else row.validate
    return Job(
        name=name, export=own, validate=tuple(namespace("validate", {**shared, **each, **given}) for each in further)
    )


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options of ``export`` that the command line gives."""
    taken = {action.dest for action in parser_of("export")._actions} - OF_THE_REPORT - ON_THE_LINE
    return {k: v for k, v in vars(options).items() if k in taken}


def _plans(job: Job) -> Iterator[Plan]:
    """Yield what the export would do, then what each further validation of its artifacts would."""
    from edgecnn.cli import validate
    from edgecnn.planning import plan_again, plan_export

    own = export.given(job.export)
    yield plan_export(job.export.model, **own)
    for options in job.validate:
        yield plan_again(job.name, own["target"], **validate.given(options))


def _entries(job: Job) -> Iterator[Sequence[ReportEntry]]:
    """Yield the entries of the export, then those of each further validation.

    Raises:
        InputError: a validation's devices take none of the artifacts.
    """
    from edgecnn.cli import validate

    made = export.exported(job.export).entries
    yield made
    files = list(dict.fromkeys((entry.target, entry.artifact) for entry in made if entry.artifact))
    for options in job.validate:
        yield from (validate.validated(options, Path(file)).entries for file in _taken(options.device, files))


def _taken(devices: str, files: Sequence[tuple[str, str]]) -> list[str]:
    from edgecnn_targets.devices import select

    targets = {target for device in select(devices.split(",")) for target in device.targets}
    taken = [file for target, file in files if target in targets]
    if not taken:
        made = ", ".join(target for target, _ in files)
        raise InputError(f"device {devices} takes none of what was exported ({made}); add one of {sorted(targets)}")
    return taken


def _failed(job: Job, error: Exception) -> ReportEntry:
    from edgecnn.export_job import PRECISIONS
    from edgecnn.report.record import Finding, ReportEntry

    return ReportEntry(
        model=job.name,
        target=job.export.target or "tflite",
        device=None,
        artifact=None,
        size_bytes=0,
        precision=PRECISIONS[job.export.quantize],
        findings=(Finding(code="not_run", text=f"{job.name} stopped: {error}", severity="error"),),
    )
