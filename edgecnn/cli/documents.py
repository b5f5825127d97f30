"""The typed content of each command's JSON document, and the JSON Schema of them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True, kw_only=True)
class ModelRow:
    """Hold a line of ``edgecnn models``: parameters and MACs are counts, the resolution is in pixels."""

    name: str
    parameters: int
    macs: int
    resolution: int
    demo_weights: bool


@dataclass(frozen=True, kw_only=True)
class OpRow:
    """Hold the ops of a format that a network may hold, as ``edgecnn models ops`` lists them."""

    name: str
    ops: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class TargetRow:
    """Hold a line of ``edgecnn targets``; ``missing`` is the command that installs the runtime."""

    name: str
    description: str
    precisions: tuple[str, ...]
    refusals: Mapping[str, str]
    missing: str | None


@dataclass(frozen=True, kw_only=True)
class DeviceRow:
    """Hold a line of ``edgecnn devices``; ``ready`` are targets, ``missing`` the commands that make the others so."""

    name: str
    kind: str
    description: str
    targets: tuple[str, ...]
    figures: tuple[str, ...]
    ready: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SetUp:
    """Hold a line of ``edgecnn devices setup``."""

    name: str
    done: str


@dataclass(frozen=True, kw_only=True)
class RecipeRow:
    """Hold a recipe: each step has its ``name`` and its settings."""

    name: str
    steps: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class DoctorRow:
    """Hold a line of ``edgecnn doctor``; ``missing`` is empty, or says what to do."""

    what: str
    found: str
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Hold what ``edgecnn train`` made; ``val_top1`` is in percent."""

    weights: str
    val_top1: float
    seconds: float


def documents() -> dict[str, type | tuple[type, ...] | None]:
    """Return, by command, the type of its content; several types where it is ``entries`` of these; ``None``: open."""
    from edgecnn.benchmarking import Cell
    from edgecnn.evaluation.compare import Comparison
    from edgecnn.graph.summary import Layer
    from edgecnn.planning import Plan
    from edgecnn.quant.sensitivity import Sensitivity
    from edgecnn.report.evidence import LayerCost
    from edgecnn.report.record import ReportEntry

    return {
        **dict.fromkeys(("export", "validate", "run"), (ReportEntry,)), "compare": Comparison, "benchmark": (Cell,),
        **{f"{command} --dry-run": (Plan,) for command in ("export", "validate", "run", "sweep")},
        "inspect": (Layer, LayerCost, Sensitivity), "train": Trained, "models": (ModelRow,),
        "models show": (ModelRow,), "models ops": (OpRow,),
        "targets": (TargetRow,), "targets show": (TargetRow,),
        "devices": (DeviceRow,), "devices show": (DeviceRow,), "devices setup": (SetUp,),
        "recipes": (RecipeRow,), "recipes show": RecipeRow, "doctor": (DoctorRow,),
        **dict.fromkeys(("scale show", "scale law", "scale fit", "scale search", "scale study"), None),
        **dict.fromkeys(("study blocks", "study residual", "sweep"), None),
    }  # fmt: skip


def schema() -> dict[str, Any]:
    """Return the JSON Schema of every document: what all have, and what each command adds to it."""
    from msgspec.json import schema_components

    from edgecnn.report.document import SCHEMA_VERSION, Envelope

    contents = documents()
    kinds = [kind for given in contents.values() for kind in (given if isinstance(given, tuple) else (given,)) if kind]
    (_, *references), parts = schema_components([Envelope, *kinds], ref_template="#/$defs/{name}")
    of_kind = dict(zip(kinds, references, strict=True))
    parts = {name: _closed(name, part) for name, part in parts.items()}
    first = parts.pop(Envelope.__name__)
    properties = first["properties"]
    properties |= {"schema_version": {"const": SCHEMA_VERSION}, "command": {"enum": list(contents)}}
    cases = []
    for command, given in contents.items():
        if isinstance(given, tuple):
            rows = {"anyOf": [of_kind[kind] for kind in given]} if len(given) > 1 else of_kind[given[0]]
            own: dict[str, Any] = {"entries": {"type": "array", "items": rows}}
        elif given is not None:
            own = parts[_name(of_kind[given])]["properties"]
        else:
            continue
        then = {"properties": {**dict.fromkeys(properties, True), **own}, "required": list(own)}
        chosen = {"properties": {"command": {"const": command}}}
        cases.append({"if": chosen, "then": {**then, "additionalProperties": False}})
    return {
        "$schema": DIALECT,
        "title": "What edgecnn prints with --json",
        "description": "report.json is that of its command. docs/reference/report.md says what each field means.",
        "type": "object",
        "properties": properties,
        "required": first["required"],
        "allOf": cases,
        "$defs": dict(sorted(parts.items())),
    }


def _name(reference: Mapping[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _closed(name: str, part: dict[str, Any]) -> dict[str, Any]:
    """Return a part without defaults, all of whose properties are there and no others; and what ``to_json`` changes."""
    properties = {key: {k: v for k, v in said.items() if k != "default"} for key, said in part["properties"].items()}
    properties |= _written().get(name, {})
    others: Any = False
    if name == "Accuracy":  # metrics stand beside the other figures
        del properties["metrics"]
        others = {"type": ["number", "null"]}
    if name == "Disagreement":  # pictures are for a page
        del properties["thumbnail"]
    said = " ".join(part.get("description", "").partition("\n\n")[0].split())
    return {
        "description": said, "type": "object", "properties": properties, "required": list(properties),
        "additionalProperties": others,
    }  # fmt: skip


def _written() -> dict[str, dict[str, Any]]:
    """Return, by record, the fields that its ``to_json`` adds or changes."""
    from edgecnn.report.record import STEPS, Check, ReportEntry

    seconds: dict[str, Any] = {"type": "object", "properties": {step: {"type": ["number", "null"]} for step in STEPS}}
    seconds |= {"required": list(STEPS), "additionalProperties": False}
    return {
        Check.__name__: {"passed": {"type": "boolean"}},
        ReportEntry.__name__: {"seconds": seconds},
        "Plan": {"seconds": {"type": ["number", "null"]}, "exit_status": {"type": "integer"}},
        "Comparison": {"parts_at": {"type": ["string", "null"]}},
    }
