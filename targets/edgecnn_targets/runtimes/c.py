"""C networks on this machine: the files are read, compiled to a shared library, and called in this process."""

from __future__ import annotations

import ctypes
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edgecnn.artifact import Port
from edgecnn.errors import InputError, MissingDependencyError, unknown
from edgecnn_targets.interface import Arrays, Description, Op, Runtime, Session

NAMES = ("cc", "gcc", "clang")
INSTALL = "install a C compiler (gcc or clang), or: pip install ziglang"
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
            description=Description(inputs=(_port(fields, "INPUT"),), outputs=(_port(fields, "OUTPUT"),), ops=ops),
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


def host_compiler() -> list[str] | None:
    """Return the words that call it, or ``None`` where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is not None:
        return [found]
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else None


def compile_shared(sources: Sequence[Path], library: Path, options: Sequence[str] = ("-O2",)) -> None:
    """Compile C99 sources into one shared library for this machine.

    Raises:
        MissingDependencyError: there is no compiler.
        InputError: the sources do not compile.
    """
    compiler = host_compiler()
    if compiler is None:
        raise MissingDependencyError(f"running C needs a compiler: {INSTALL}")
    words = [*compiler, "-std=c99", *options, "-shared", "-fPIC", "-o", str(library), *map(str, sources)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = next(filter(None, map(str.strip, done.stderr.splitlines())), "it said nothing")
        raise InputError(f"{sources[0]} does not compile ({said}); export it again")


class CSession(Session):
    """An open C network, ``NAME.c``; see ``Session``. It has one thread and one kind of kernels, ``exact``.

    Raises:
        InputError: the files are missing, not what `edgecnn export` wrote, or do not compile.
        MissingDependencyError: there is no C compiler.
    """

    def __init__(self, path: Path, *, threads: int = 1, kernels: str | None = None) -> None:
        if kernels not in (None, "exact"):
            raise InputError(unknown("kernels", kernels, ("exact",)))
        network = read_network(path)
        super().__init__(network.description)
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "network.so"
            compile_shared([path], library)
            self._invoke = ctypes.CDLL(str(library))[network.function]

    def infer(self, sample: Arrays) -> Arrays:
        fed, made = np.ascontiguousarray(sample[self.input.name]), np.empty(self.output.shape, np.int8)
        self._invoke(ctypes.c_void_p(fed.ctypes.data), ctypes.c_void_p(made.ctypes.data))
        return {self.output.name: made}


RUNTIME = Runtime(
    target="c",
    description="C99 for microcontrollers, compiled for where it runs",
    open_session=CSession,
    needs=lambda: None if host_compiler() else INSTALL,
)
