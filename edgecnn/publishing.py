"""A model card beside the artifacts, as the Hugging Face Hub reads it, and the way to the Hub.

Source of the metadata: huggingface_hub ``modelcard_specs``; ``model-index`` as Papers with Code has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edgecnn.artifact import Manifest, Port, graph_path, manifest_path, read_manifest
from edgecnn.errors import InputError, MissingDependencyError
from edgecnn.files import write_atomic
from edgecnn.report.markdown import text
from edgecnn.report.record import Report, ReportEntry

CARD = "README.md"
MARK = "<!-- written by edgecnn export --model-card; another export of {name} replaces it -->"
UNKNOWN = "unknown"  # a license that the Hub has
REPOSITORY = re.compile(r"([\w.-]+/)?[\w.-]+")
SHOWN = 10  # labels, and findings of each artifact
HUB = "pushing to the Hub needs huggingface_hub: pip install 'edgecnn[hub]'"


def require_place(folder: Path, name: str) -> None:
    """Check that a model card may be written.

    Raises:
        InputError: there is a ``README.md`` that is no card of this network.
    """
    path = folder / CARD
    if path.is_file() and MARK.format(name=name) not in path.read_text("utf-8", errors="replace"):
        raise InputError(f"{path} is not the card of {name}; give another directory with -o, or move it")


def require_hub(repository: str) -> None:
    """Check that a repository of the Hub can be pushed to.

    Raises:
        InputError: it is no name of a repository.
        MissingDependencyError: the Hub's library is not installed.
    """
    if not REPOSITORY.fullmatch(repository):
        raise InputError(f"--push-to-hub {repository!r} is no repository; give USER/NAME")
    _hub()


def write_card(report: Report, *, license: str, data: str | None) -> Path:
    """Write the model card beside the artifacts of a report of ``export``; return its path.

    Args:
        report: at least one artifact was written.
        license: of the weights, as the Hub names it.
        data: name of the images that accuracy was measured on.

    Raises:
        InputError: the place cannot be written.
    """
    folder = graph_path(_written(report)[0][0]).parent
    write_atomic(folder / CARD, card(report, license=license, data=data).encode())
    return folder / CARD


def push(report: Report, repository: str) -> str:
    """Push the artifacts of a report, their manifests, the ``.edgecnn`` file and the card; return the address.

    Raises:
        InputError: the Hub refuses, or cannot be reached.
        MissingDependencyError: the Hub's library is not installed.
    """
    hub = _hub()
    graph = graph_path(_written(report)[0][0])
    files = [graph.parent / CARD, graph]
    for path, target, manifest in _written(report):
        files += [*(path.with_name(name) for name in manifest.files), manifest_path(path, target)]
    names = sorted({path.relative_to(graph.parent).as_posix() for path in files if path.is_file()})
    try:
        api = hub.HfApi()
        made = api.create_repo(repo_id=repository, repo_type="model", exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            repo_type="model",
            folder_path=str(graph.parent),
            allow_patterns=[re.sub(r"([*?[])", r"[\1]", name) for name in names],
            commit_message=f"{graph.stem}, by edgecnn",
        )
    except Exception as error:  # whatever the library raises for a name, a token or a network
        said = " ".join(str(error).split())[:300]
        raise InputError(f"cannot push to {repository} ({said}); log in with `hf auth login`") from error
    return str(made)


def card(report: Report, *, license: str, data: str | None) -> str:
    """Return the model card of a report of ``export``: metadata, then what a reader should know."""
    rows = _written(report)
    manifest = rows[0][2]
    name = graph_path(rows[0][0]).stem
    head = "".join(f"{line}\n" for line in _metadata(report, manifest, name, license, data))
    parts = [
        f"---\n{head}---",
        MARK.format(name=name),
        f"# {text(name)}",
        f"{text(manifest.metadata.model)}, quantized once by edgecnn; every file holds the same network.",
        _table(
            ("file", "precision", "MB", "device", "top-1 %", "drop", "agreement %", "SQNR dB", "ms"), _figures(report)
        ),
        *_how_fed(manifest),
        *_how_made(manifest),
        *_findings(report),
    ]
    if report.invocation:
        parts += ["## Made by", f"```sh\n{report.invocation}\n```"]
    return "\n\n".join(parts) + "\n"


def _written(report: Report) -> list[tuple[Path, str, Manifest]]:
    """Return path, target and manifest of each artifact.

    Raises:
        InputError: there is none.
    """
    found: dict[Path, tuple[Path, str, Manifest]] = {}
    for entry in report.entries:
        if entry.artifact is not None and (manifest := read_manifest(Path(entry.artifact), entry.target)) is not None:
            found[Path(entry.artifact)] = (Path(entry.artifact), entry.target, manifest)
    if not found:
        raise InputError("no artifact was written, so there is nothing to describe")
    return list(found.values())


def _metadata(report: Report, manifest: Manifest, name: str, license: str, data: str | None) -> Iterator[str]:
    """Yield the lines of the card's YAML; a string of JSON is one of YAML."""
    classifies = any(entry.task == "classification" for entry in report.entries) or manifest.metadata.labels is not None
    targets = dict.fromkeys(entry.target for entry in report.entries if entry.artifact)
    yield f"license: {json.dumps(license)}"
    yield "library_name: edgecnn"
    yield "tags:"
    yield from (f"- {json.dumps(tag)}" for tag in ("edgecnn", "quantized", manifest.precision, *targets))
    if not classifies:
        return
    yield "pipeline_tag: image-classification"
    measured = [entry for entry in report.entries if entry.accuracy.top1 is not None]
    if not measured:
        return
    yield from ("metrics:", "- accuracy", "model-index:", f"- name: {json.dumps(name)}", "  results:")
    named = json.dumps(data or "images")
    for entry in measured:
        yield from ("  - task:", "      type: image-classification", "    dataset:")
        yield from (f"      type: {named}", f"      name: {named}", "    metrics:", "    - type: accuracy")
        yield f"      name: {json.dumps(f'top-1 of {entry.target} {entry.precision} on {entry.device}')}"
        yield from (f"      value: {entry.to_json()['accuracy']['top1']}", "      verified: false")


def _figures(report: Report) -> Iterator[Sequence[str]]:
    for entry in report.entries:
        if entry.artifact is None:
            continue
        found: dict[str, Any] = entry.to_json()
        accuracy, latency = found["accuracy"], found["latency"]["median_ms"]
        size = f"{entry.size_bytes / 1e6:.2f}"
        shown = [accuracy[key] for key in ("top1", "drop", "agreement", "sqnr_db")]
        values = ["-" if value is None else str(value) for value in (*shown, latency)]
        yield Path(entry.artifact).name, entry.precision, size, entry.device or "-", *values


def _how_fed(manifest: Manifest) -> Iterator[str]:
    yield "## Inputs and outputs"
    ports = [(side, port) for side in ("inputs", "outputs") for port in getattr(manifest, side)]
    yield _table(("", "name", "shape", "type", "scale", "zero point"), (_port(side, port) for side, port in ports))
    fed, labels = manifest.metadata.preprocess, manifest.metadata.labels
    if fed is not None:
        yield f"An image becomes the input by `{fed}`, in levels of 0 to 255."
    if labels is not None:
        more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
        shown = ", ".join(map(text, labels[:SHOWN]))
        offset = manifest.metadata.label_offset
        yield f"{len(labels)} classes: {shown}{more}." + (f" Class k is output k + {offset}." if offset else "")


def _port(side: str, port: Port) -> tuple[str, ...]:
    shape = f"{'x'.join(map(str, port.shape))} {port.layout}"
    grid = ("-", "-") if port.scale is None else (f"{port.scale:.6g}", str(port.zero_point))
    return side.removesuffix("s"), port.name, shape, port.dtype, *grid


def _how_made(manifest: Manifest) -> Iterator[str]:
    record = manifest.metadata.quantization or {}
    recipe, calibration = record.get("recipe", {}).get("name"), record.get("calibration")
    said = [f"Recipe `{recipe}`, seed {record.get('seed', 0)}."] if recipe else []
    if calibration:
        said.append(f"Calibrated on {calibration['images']} images, SHA-256 `{calibration['sha256']}`.")
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    yield "## Quantization"
    yield " ".join([*said, f"Versions: {text(versions)}."])


def _findings(report: Report) -> Iterator[str]:
    lines = dict.fromkeys(line for entry in report.entries for line in _said(entry))
    if lines:
        yield "## To know"
        yield "\n".join(f"- {text(line)}" for line in lines)


def _said(entry: ReportEntry) -> list[str]:
    warnings = [str(finding) for finding in entry.findings if finding.severity != "info"]
    return [*entry.failures, *warnings][:SHOWN]


def _table(headings: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *([text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingDependencyError(HUB) from None
    return huggingface_hub
