"""The record that travels in every file: the precision, and the fields of ``graph.ir.Metadata``, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgecnn.errors import InputError
from edgecnn.graph.ir import Graph, Metadata

KEY = "edgecnn"
"""Name of the record, in each format's place for what programs note."""


def fields_of(graph: Graph, precision: str, **more: Any) -> dict[str, Any]:
    """Return the record; ``more`` is what a format notes besides."""
    return {"precision": precision, **more, **graph.metadata.to_json()}


def to_text(graph: Graph, precision: str, **more: Any) -> str:
    """Return the record as JSON, its keys sorted."""
    return json.dumps(fields_of(graph, precision, **more), sort_keys=True, allow_nan=False)


def described(record: str | Mapping[str, Any], *more: str) -> tuple[str, Metadata]:
    """Return the precision and the metadata of a record; ``more`` are the keys that a format notes besides.

    Raises:
        InputError: the record is damaged.
    """
    try:
        fields = dict(json.loads(record) if isinstance(record, str) else record)
    except (ValueError, TypeError) as error:
        raise InputError(f"the record of edgecnn in the file is damaged ({error}); export it again") from None
    for key in more:
        fields.pop(key, None)
    return str(fields.pop("precision", "")), Metadata.from_json(fields)
