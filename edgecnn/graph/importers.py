"""The registry of importers: entry points ``edgecnn.importers``, which read a network from a file of one format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.budget import budget
from edgecnn.child import kept
from edgecnn.graph import serialize
from edgecnn.graph.ir import Graph
from edgecnn.plugins import INTERFACE, registry
from edgecnn.reading import checked
from edgecnn.serving import limit

COPIES = 8  # of a file, that a runtime may hold
REFERENCE_S = 300.0
Shapes = Mapping[str, Sequence[int]]
Values = Mapping[str, NDArray[Any]]
"""Name of a graph tensor to its values, dimensions in the graph's order (images NHWC), with a batch of 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Imported:
    """Hold what an importer read.

    Attributes:
        graph: as the file has it, before ``passes.simplify``; quantized where the file is.
        reference: runs the file in the runtime that it is for: values of the graph's inputs to values of tensors of
            the graph, all that the runtime shows, the outputs at least. Of a quantized graph, it takes integers and
            returns integers, or real values where the file has these. It raises ``MissingDependencyError`` where that
            runtime is not installed. ``None``: there is none to compare with.
    """

    graph: Graph
    reference: Callable[[Values], Values] | None = None


@dataclass(frozen=True, kw_only=True)
class Importer:
    """Describe how one format is read.

    ``read`` makes a file a graph, NHWC, with the metadata that the file has. It raises ``InputError`` for a damaged
    file, and ``UnsupportedError`` that lists every op which no graph holds. Where ``sized``, it takes the shapes,
    without the batch, of inputs whose size the file leaves open, by name; one under ``""`` is the first's. ``beside``
    returns the other files that ``read`` needs, all in the folder of the file that a path leads to or below it.
    """

    suffixes: tuple[str, ...]  # of its files, such as ``.onnx``
    read: Callable[..., Imported]
    ops: Callable[[], Iterable[str]] = tuple  # names of those that it reads, as the format has them
    sized: bool = False
    beside: Callable[[Path], Sequence[Path]] = lambda path: ()
    native: str = (
        ""  # library in this process that the reference runs the file in; a child process runs it in its place
    )
    interface: int = INTERFACE  # version of this interface that the importer is written for

    def __post_init__(self) -> None:
        object.__setattr__(self, "read", checked(_bounded(self.read)))

    def reference(self, path: Path, imported: Imported, shapes: Shapes | None) -> Callable[[Values], Values] | None:
        """Return what runs a file that ``read`` made ``imported`` of: where it is native code, in a child process.

        Raises:
            DeviceFault: on a call, the native code crashed, hung, or took more memory than it may.
        """
        if imported.reference is None or not self.native:
            return imported.reference
        given = {"path": str(path.absolute()), "shapes": shapes and {k: list(v) for k, v in shapes.items()}}
        size = path.stat().st_size

        def run(values: Values) -> Values:
            call = f"{__name__}:referenced"
            room = sum(array.nbytes for array in values.values())
            with kept(self.native, file_bytes=COPIES * size) as child:
                _, made = child.call(call, given, values, room=room, within_s=REFERENCE_S)
                return {name: np.array(array) for name, array in made.items()}

        return run


def referenced(state: dict[str, Any], given: Mapping[str, Any], arrays: Values) -> tuple[dict[str, Any], Values]:
    """Run a file that is imported in the runtime that it is for; ``child.Child`` calls this in a child process."""
    path, shapes = Path(given["path"]), given["shapes"]
    importer = importer_of(path)
    assert importer is not None
    imported = importer.read(path) if shapes is None else importer.read(path, shapes)
    assert imported.reference is not None
    limit(state["memory"])
    return {}, imported.reference(arrays)


def _bounded(read: Callable[..., Imported]) -> Callable[..., Imported]:
    """Return a reader that checks the sizes of a graph's tensors, which others allocate."""

    @wraps(read)
    def inside(path: Path, *shapes: Any) -> Imported:
        imported = read(path, *shapes)
        budget().require_count(len(imported.graph.tensors), f"tensors in {path}")
        for tensor in imported.graph.activations():
            budget().require_shape(tensor.shape, f"{path}: {tensor.name!r} of shape {tensor.shape}")
        return imported

    return inside


def _read_edgecnn(path: Path) -> Imported:
    return Imported(graph=serialize.load(path))


EDGECNN = Importer(suffixes=(".edgecnn",), read=_read_edgecnn)


def importer_of(path: Path) -> Importer | None:
    """Return the importer of a file by its suffix, edgecnn's own first, or ``None`` where there is none.

    Raises:
        InputError: a plugin cannot be used; names it.
    """
    rows = registry("importers", Importer).values()
    return next((row for row in rows if path.suffix in row.suffixes), None)
