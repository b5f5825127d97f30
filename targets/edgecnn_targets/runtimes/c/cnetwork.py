"""Read the C network that `edgecnn export` wrote: its header, and the records in its source."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.artifact import Port
from edgecnn.errors import InputError
from edgecnn_targets.interface import Description, Op

FIELD = re.compile(
    r"#define (\w+)_(INPUT|OUTPUT|ARENA)_(SIZE|SCALE|ZERO_POINT|BYTES) ([-\w.+]+)(?: /\* ([\dx ]+) \*/)?"
)


@dataclass(frozen=True, kw_only=True)
class CNetwork:
    """A C network.

    Attributes:
        source: ``NAME.c``.
        prefix: of its macros.
        function: of one inference.
        description: its input, output and ops.
        arena_bytes: of its static arena.
    """

    source: Path
    prefix: str
    function: str
    description: Description
    arena_bytes: int

    @property
    def header(self) -> Path:
        """Return the path of ``NAME.h``."""
        return self.source.with_suffix(".h")


def read_network(source: Path) -> CNetwork:
    """Read ``NAME.c`` and the header beside it.

    Raises:
        InputError: one of them is missing, or is not what `edgecnn export` wrote.
    """
    try:
        header, code = source.with_suffix(".h").read_text("utf-8"), source.read_text("utf-8")
        fields = {(side, what): (prefix, value, shape) for prefix, side, what, value, shape in FIELD.findall(header)}
        function = re.findall(r"^void (\w+)\(const int8_t \*input, int8_t \*output\);", header, re.MULTILINE)[0]
        records = map(json.loads, re.findall(r"^  /\* (\{\"op\".*\}) \*/$", code, re.MULTILINE))
        ops = tuple(Op(kind=r["op"], name=r["name"], requested_kernels=True, is_float=False) for r in records)
        return CNetwork(
            source=source,
            prefix=fields["INPUT", "SIZE"][0],
            function=function,
            description=Description(input=_port(fields, "INPUT"), output=_port(fields, "OUTPUT"), ops=ops),
            arena_bytes=int(fields["ARENA", "BYTES"][1]),
        )
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}; give the .c file of an export") from None
    except (ValueError, LookupError) as error:
        raise InputError(
            f"{source} is not a C network of edgecnn, or not all of it ({error}); export it again"
        ) from None


def _port(fields: dict[tuple[str, str], tuple[str, str, str]], side: str) -> Port:
    _, size, text = fields[side, "SIZE"]
    shape = (1, *map(int, text.split(" x ")))
    if math.prod(shape) != int(size):
        raise ValueError(f"{side} of {text} has not {size} values")
    return Port(
        name=side.lower(),
        shape=shape,
        layout="NHWC" if len(shape) == 4 else "NC",
        dtype="int8",
        scale=float(np.float32(fields[side, "SCALE"][1].rstrip("f"))),
        zero_point=int(fields[side, "ZERO_POINT"][1]),
    )
