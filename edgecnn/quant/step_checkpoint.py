"""Step checkpoints: a quantization step that takes minutes is kept part by part, so that it resumes after a kill.

A folder holds one safetensors file per step, each written whole or not at all, with the key of what the step depends
on: the graph, the settings, the images and the code. Files of another key are never used.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgecnn.errors import InputError
from edgecnn.files import sha256, write_atomic
from edgecnn.graph.ir import Graph, Quantized, QuantizedConstant, Tensor
from edgecnn.graph.serialize import arrays_of

SUFFIX = ".safetensors"
KEY, STEP = "edgecnn key", "edgecnn step"

Say = Callable[[str], None]
Solve = Callable[[], tuple[QuantizedConstant, ...]]


class StepCheckpoint:
    """Hold the parts that earlier runs solved, and those of this one.

    Args:
        folder: where they are kept until ``finish``; ``None`` keeps nothing.
        say: tells the person at the terminal what is taken from an earlier run.
    """

    def __init__(self, folder: Path | None = None, say: Say = lambda line: None) -> None:
        self._folder, self._say, self._key = folder, say, ""
        self._begun: set[str] = set()
        self._known: dict[str, dict[str, np.ndarray]] = {}

    def begin(self, graph: Graph, *rest: bytes | memoryview) -> None:
        """Say what the parts that follow depend on: the graph, anything else, and the code of this package.

        Another pass of the same run begins again, with what its own steps depend on.

        Raises:
            InputError: the folder cannot be read.
        """
        self._known = {}
        if self._folder is None:
            return
        code = b"".join(place.read_bytes() for place in sorted(Path(__file__).parent.rglob("*.py")))
        self._key = sha256(b"".join(sha256(part).encode() for part in (digest(graph), code, *rest)))
        self._begun.add(self._key)
        others = 0
        for place in sorted(self._folder.glob(f"*{SUFFIX}")):
            said, arrays = _read(place)
            if said.get(KEY) == self._key:
                self._known[said[STEP]] = arrays
            elif said.get(KEY) not in self._begun:
                others += 1
        if self._known:
            self._say(f"{len(self._known)} steps are of an earlier run that did not end, in {self._folder}")
        elif others:
            self._say(f"{self._folder} is of another model, recipe, images or version: nothing of it is used")

    def __contains__(self, step: str) -> bool:
        return step in self._known

    def step(self, name: str, tensors: Mapping[str, Tensor], solve: Solve) -> tuple[QuantizedConstant, ...]:
        """Return the tensors that a part changes: those of an earlier run, or what ``solve`` makes, which is kept.

        Args:
            name: of the step.
            tensors: all, by name, before the step.
            solve: does the work.

        Raises:
            InputError: the folder cannot be written.
        """
        if name in self._known:
            return _restored(self._known[name], tensors)
        made = solve()
        if self._folder is not None:
            from safetensors.numpy import save

            arrays = {f"{t.name}/integers": np.ascontiguousarray(t.integers) for t in made}
            arrays |= {f"{t.name}/scale": np.ascontiguousarray(t.quant.scale) for t in made}
            file = self._folder / f"{sha256(f'{self._key} {name}'.encode())[:16]}{SUFFIX}"
            write_atomic(file, save(arrays, metadata={KEY: self._key, STEP: name}))
        return made

    def finish(self) -> None:
        """Remove what was kept: all is done."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def digest(graph: Graph) -> bytes:
    """Return everything of a graph that a computation can see."""
    parts = [repr((graph.inputs, graph.outputs, graph.nodes)).encode()]
    for tensor in graph.tensors.values():
        grid = (tensor.quant.dtype, tensor.quant.axis) if isinstance(tensor, Quantized) else None
        parts.append(repr((tensor.name, tensor.shape, grid)).encode())
        arrays = arrays_of(tensor)
        parts += [repr((key, a.dtype.str, a.shape)).encode() + a.tobytes() for key, a in arrays.items()]
    return b"".join(sha256(part).encode() for part in parts)


def _read(place: Path) -> tuple[Mapping[str, str], dict[str, np.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(place, framework="numpy") as file:
            said = file.metadata() or {}
            return said, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {place} ({error}); remove its folder to start over") from None


def _restored(arrays: Mapping[str, np.ndarray], tensors: Mapping[str, Tensor]) -> tuple[QuantizedConstant, ...]:
    made = []
    for name in (key.removesuffix("/integers") for key in arrays if key.endswith("/integers")):
        old = QuantizedConstant.of(tensors[name])
        quant = replace(old.quant, scale=arrays[f"{name}/scale"])
        made.append(replace(old, integers=arrays[f"{name}/integers"], quant=quant))
    return tuple(made)
