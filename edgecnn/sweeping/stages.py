"""The stages of a combination, each done once for all combinations that share it, by the public functions.

capture ─► quantize ─► convert ─► validate
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from edgecnn.errors import DeviceFault
from edgecnn.evaluation.limits import Limits
from edgecnn.files import sha256
from edgecnn.jobs import FileInput
from edgecnn.plugins import imported
from edgecnn.records import read_record
from edgecnn.sbom import library_versions
from edgecnn.sweeping.inputs import file_input, file_of, split_of

MODELLING = ("edgecnn", "numpy", "torch", "pillow")  # libraries that captured and quantized networks depend on
RUNTIMES = {  # of each format, what writes and runs it
    "tflite": ("ai-edge-litert",),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "c": (),
}


@dataclass(frozen=True)
class Stage:
    """A step of some combinations, named by a digest of all that it depends on.

    Attributes:
        kind: see ``work``.
        name: for a person.
        settings: arguments, as JSON values.
        inputs: what settings name, to a digest of its content.
        parent: the stage whose files it reads.
        target: the format that it writes or runs, or empty.
        alone: it measures time on this machine.
        device: where it runs, or empty.
        board: the device takes one job at a time.
    """

    kind: str
    name: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    parent: Stage | None = None
    target: str = ""
    alone: bool = False
    device: str = ""
    board: bool = False

    @cached_property
    def versions(self) -> dict[str, str]:
        """Return the versions of the libraries that its result depends on."""
        wanted = (*MODELLING, *(RUNTIMES.get(self.target, tuple(_installed())) if self.target else ()))
        return {name: version for name, version in _installed().items() if name in wanted}

    @cached_property
    def identity(self) -> str:
        """Return a digest of what it does, without the versions of libraries."""
        return _digest(self._record(), self.parent.identity if self.parent else "")

    @cached_property
    def digest(self) -> str:
        """Return a digest of all that its result depends on."""
        return _digest({**self._record(), "versions": self.versions}, self.parent.digest if self.parent else "")

    def files(self) -> dict[str, tuple[FileInput, str]]:
        """Return the files and folders that its settings name, each with its ``:SPLIT``, by the name of the input."""
        given = {name: _given(self.settings, name) for name in self.inputs}
        paths = {name: file_of(value) for name, value in given.items()}
        return {name: (file_input(path), split_of(given[name])) for name, path in paths.items() if path is not None}

    def _record(self) -> dict[str, Any]:
        return {"kind": self.kind, "settings": dict(self.settings), "inputs": dict(self.inputs)}


def elsewhere(settings: Mapping[str, Any], paths: Mapping[str, tuple[Path, str]]) -> dict[str, Any]:
    """Return settings whose inputs are under other paths, each with its ``:SPLIT``."""
    found = dict(settings)
    for name, (path, split) in paths.items():
        given = f"{path}{split}"
        found |= {"devices": [given]} if name == "device" else {name: given}
    return found


def _given(settings: Mapping[str, Any], name: str) -> str:
    """Return the value of an input among settings."""
    given: str = settings["devices"][0] if name == "device" else settings[name]
    return given


@cache
def _installed() -> Mapping[str, str]:
    return library_versions()


def _digest(record: Mapping[str, Any], parent: str) -> str:
    return sha256(json.dumps([record, parent], sort_keys=True).encode())[:24]


@dataclass(frozen=True)
class Made:
    """What the stage before made: its files, and the value of its result."""

    folder: Path
    value: Mapping[str, Any]


def capture(settings: Mapping[str, Any], before: Made | None, folder: Path) -> dict[str, Any]:
    """Load a network and write ``NAME.edgecnn``."""
    from edgecnn.loading import load

    network = load(**settings)
    network.save(folder)
    weights = sum(tensor.value.size for tensor in network.graph.constants())
    return {"network": network.name, "macs": network.macs, "parameters": weights}


def quantize(settings: Mapping[str, Any], before: Made | None, folder: Path) -> dict[str, Any]:
    """Quantize the network of the stage before; ``recipe`` is the text of a recipe file."""
    from edgecnn.loading import load
    from edgecnn.quant.recipe import parsed_recipe
    from edgecnn.quantizing import quantize

    settings = dict(settings)
    steps = parsed_recipe(settings.pop("recipe"))
    made = quantize(load(_network(before)), settings.pop("calibration"), recipe=steps, **settings)
    made.save(folder)
    return {"network": made.name, "findings": [str(finding) for finding in made.findings]}


def convert(settings: Mapping[str, Any], before: Made | None, folder: Path) -> dict[str, Any]:
    """Convert the network of the stage before and write the artifact, its manifest and ``NAME.edgecnn``."""
    from edgecnn.converting import convert
    from edgecnn.loading import load

    network = load(_network(before))
    artifact = convert(network, **settings).save(folder)
    assert artifact.path is not None
    return {"network": network.name, "artifact": str(artifact.path.relative_to(folder))}


def validate(settings: Mapping[str, Any], before: Made | None, folder: Path) -> dict[str, Any]:
    """Run the artifact of the stage before on a device; return the entry of the report.

    Where the device executes nothing, as an NPU's compiler, its accuracy is that of the same artifact on ``witness``.

    Raises:
        DeviceFault: a device broke, which says nothing of the artifact: a resumed sweep asks it again.
    """
    from edgecnn.evaluation.validate import validate

    settings = dict(settings)
    assert before is not None
    artifact = before.folder / before.value["artifact"]
    limits, witness = read_record(Limits, settings.pop("limits"), "limits"), settings.pop("witness")
    if witness is None:
        (entry,) = validate(artifact, limits=limits, **settings).entries
    else:
        costs, accuracy = limits.split
        (entry,) = validate(artifact, limits=costs, **{**settings, "data": None}).entries
        (seen,) = validate(artifact, limits=accuracy, **{**settings, "devices": [witness]}).entries
        checks = (*entry.checks, *seen.checks)
        findings = (*entry.findings, *(finding for finding in seen.findings if finding not in entry.findings))
        entry = replace(entry, accuracy=seen.accuracy, checks=checks, findings=findings)
    broken = [finding.text for finding in entry.findings if finding.code == "device_fault"]
    if broken:
        raise DeviceFault("; ".join(broken))
    made = entry.to_json() | {"artifact": f"files/{before.folder.name}/{before.value['artifact']}"}
    return {"entry": {k: v for k, v in made.items() if k != "seconds"}, "failures": list(entry.failures)}


Work = Callable[[Mapping[str, Any], Made | None, Path], dict[str, Any]]
STAGES: Mapping[str, Work] = {
    "capture": capture,
    "quantize": quantize,
    "convert": convert,
    "validate": validate,
}


def work(kind: str) -> Work:
    """Return what a kind of stage does: one of ``STAGES``, or ``package.module:function``."""
    if kind in STAGES:
        return STAGES[kind]
    found: Work = imported(kind, "a stage")
    return found


def _network(before: Made | None) -> Path:
    assert before is not None
    return before.folder / f"{before.value['network']}.edgecnn"


def chain(stage: Stage) -> Sequence[Stage]:
    """Return a stage and those that it depends on, the first one first."""
    return (*chain(stage.parent), stage) if stage.parent is not None else (stage,)
