"""C networks on this machine: the files are read, compiled to a shared library, and called in this process."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.artifact import Port, layout_of
from edgecnn.errors import InputError, MissingDependencyError, unknown
from edgecnn.files import scratch
from edgecnn_targets.interface import Arrays, Description, Op, Runtime, Session

NAMES = ("cc", "gcc", "clang")
INSTALL = "install a C compiler (gcc or clang), or: pip install ziglang"
ARENA = re.compile(r"^#define \w+_ARENA_BYTES (\d+)", re.MULTILINE)
INVOKE = re.compile(r"^void (\w+)_invoke\(const struct \w+ \*inputs, const struct \w+ \*outputs\);", re.MULTILINE)
PLACE = re.compile(r"^int8_t \*(\w+)\(void\);", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class CNetwork:
    """A C network.

    Attributes:
        source: ``NAME.c``.
        prefix: of its functions: ``PREFIX_invoke``, and the structs that it takes.
        places: functions that return places in the arena, of the inputs, then of the outputs.
        description: its inputs, outputs and ops.
        arena_bytes: of its static arena.
    """

    source: Path
    prefix: str
    places: tuple[str, ...]
    description: Description
    arena_bytes: int


def read_network(source: Path) -> CNetwork:
    """Read ``NAME.c`` and the header beside it.

    Raises:
        InputError: one of them is missing, or is not what `edgecnn export` wrote.
    """
    try:
        header, code = source.with_suffix(".h").read_text("utf-8"), source.read_text("utf-8")
        noted = json.loads(re.findall(r"^/\* (\{.*\}) \*/$", code, re.MULTILINE)[0])
        inputs, outputs = (tuple(map(_port, noted[side])) for side in ("inputs", "outputs"))
        places = tuple(PLACE.findall(header))
        if len(places) != len(inputs) + len(outputs) or not header.endswith("#endif\n"):
            raise ValueError(f"{len(places)} places for {len(inputs)} inputs and {len(outputs)} outputs")
        records = map(json.loads, re.findall(r"^  /\* (\{\"op\".*\}) \*/$", code, re.MULTILINE))
        ops = tuple(Op(kind=r["op"], name=r["name"], requested_kernels=True, is_float=False) for r in records)
        return CNetwork(
            source=source,
            prefix=INVOKE.findall(header)[0],
            places=places,
            description=Description(inputs=inputs, outputs=outputs, ops=ops),
            arena_bytes=int(ARENA.findall(header)[0]),
        )
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}; give the .c file of an export") from None
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"{source} is not a C network of edgecnn, or not all of it ({error}); export it again"
        ) from None


def _port(noted: Mapping[str, Any]) -> Port:
    shape = tuple(noted["shape"])
    return Port(
        name=noted["name"],
        shape=shape,
        layout=layout_of(shape, "NHWC"),
        dtype="int8",
        scale=float(np.float32(noted["scale"])),
        zero_point=noted["zero_point"],
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
        with scratch() as folder:
            library = folder / "network.so"
            compile_shared([path], library)
            self._invoke = ctypes.CDLL(str(library))[f"{network.prefix}_invoke"]

    def infer(self, sample: Arrays) -> Arrays:
        fed = [np.ascontiguousarray(sample[port.name]) for port in self.inputs]
        made = [np.empty(port.shape, np.int8) for port in self.outputs]
        structs = ((ctypes.c_void_p * len(side))(*(array.ctypes.data for array in side)) for side in (fed, made))
        self._invoke(*map(ctypes.byref, structs))
        return {port.name: array for port, array in zip(self.outputs, made, strict=True)}


RUNTIME = Runtime(
    target="c",
    description="C99 for microcontrollers, compiled for where it runs",
    open_session=CSession,
    needs=lambda: None if host_compiler() else INSTALL,
)
