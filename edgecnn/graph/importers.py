"""The registry of importers: entry points ``edgecnn.importers``, which read a network from a file of one format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecnn.graph import serialize
from edgecnn.graph.ir import Graph
from edgecnn.plugins import INTERFACE, registry


@dataclass(frozen=True, kw_only=True)
class Importer:
    """Describe how one format is read.

    ``read`` makes a file a graph, NHWC, with the metadata that the file has. It raises ``InputError`` for a damaged
    file, and ``UnsupportedError`` that lists every op which no graph holds.
    """

    suffixes: tuple[str, ...]  # of its files, such as ``.onnx``
    read: Callable[[Path], Graph]
    interface: int = INTERFACE  # version of this interface that the importer is written for


EDGECNN = Importer(suffixes=(".edgecnn",), read=serialize.load)


def importer_of(path: Path) -> Importer | None:
    """Return the importer of a file by its suffix, edgecnn's own first, or ``None`` where there is none.

    Raises:
        InputError: a plugin cannot be used; names it.
    """
    rows = registry("importers", Importer).values()
    return next((row for row in rows if path.suffix in row.suffixes), None)
