"""Read back what was written: the records in its comments, and the constants themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.ir import Metadata, QParams
from edgecnn.graph.summary import Layer
from edgecnn.records import read_record
from edgecnn_converters.c.format import parsed, records
from edgecnn_converters.metadata import described


def describe(source: bytes) -> tuple[str, Metadata | None]:
    """Return the precision of a ``NAME.c`` of ours, and what our writer noted in it."""
    with _whole():
        return described(_noted(source)[0], "inputs", "outputs")


def layers(source: bytes, header: bytes, weights: bytes) -> list[Layer]:
    """List every op, in order."""
    with _whole():
        return [read_record(Layer, fields, "record of a layer") for fields in _noted(source)[1:]]


def integers(source: bytes, header: bytes, weights: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """Return the quantized tensors in the graph's own form; biases without what the writer folded into them."""
    with _whole():
        first, *ops = _noted(source)
        found: dict[str, tuple[QParams, NDArray[Any] | None]] = {}
        for fields in (*first["inputs"], *ops):
            grid = QParams(scale=fields["scale"], zero_point=fields["zero_point"], dtype="int8")
            found[fields["name"]] = (grid, None)
        text = weights.decode()
        if records(text) and not text.endswith("};\n"):
            raise ValueError("the constants have no end")
        for end, fields in records(text):
            ctype, array = re.findall(r"static const (\w+) (\w+)\[", text[end : end + 200])[0]
            found[fields["name"]] = _constant(fields, parsed(text[end:], array), ctype.removesuffix("_t"), found)
        return found


def _constant(
    fields: dict[str, Any], values: NDArray[np.int64], dtype: str, found: dict[str, Any]
) -> tuple[QParams, NDArray[Any]]:
    shape, scale = tuple(fields["shape"]), np.asarray(fields["scale"], np.float32)
    if "stored" in fields:
        axes = fields["stored"]
        values = values.reshape([shape[a] for a in axes]).transpose(np.argsort(axes))
    if "folded" in fields:
        weight, zero = fields["folded"]
        values = values + zero * found[weight][1].reshape(len(values), -1).sum(axis=1, dtype=np.int64)
    zeros = np.asarray(fields.get("zero_point", np.zeros(len(scale))), np.int64)
    return QParams(scale=scale, zero_point=zeros, dtype=dtype, axis=fields["axis"]), values.reshape(shape).astype(dtype)


def _noted(source: bytes) -> list[dict[str, Any]]:
    """Return the file's own record, then one for each op. The closing brace comes last: a cut file is noticed."""
    text = source.decode()
    found = [fields for _, fields in records(text)]
    if not found or "precision" not in found[0] or not text.endswith("}\n"):
        raise ValueError("no record of the network, or no end")
    return found


@contextmanager
def _whole() -> Iterator[None]:
    """Raise what goes wrong in reading as one error."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InputError(f"not a C network of edgecnn, or not all of it ({error}); export it again") from None
