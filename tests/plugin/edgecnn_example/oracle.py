"""A format and its runtime: an int8 graph in one file, executed by the oracle, in numpy alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

from edgecnn.artifact import Port, layout_of
from edgecnn.errors import InputError, unknown
from edgecnn.graph.ir import Graph, Quantized
from edgecnn.graph.oracle import run
from edgecnn.graph.serialize import load, save
from edgecnn_targets.interface import Arrays, Description, Op, Runtime, Session


def to_bytes(graph: Graph) -> bytes:
    """Return the graph as the content of a file."""
    with tempfile.TemporaryDirectory() as folder:
        save(graph, Path(folder) / "graph")
        return (Path(folder) / "graph").read_bytes()


def from_bytes(content: bytes) -> Graph:
    """Return the graph in a file.

    Raises:
        InputError: there is none.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "graph").write_bytes(content)
        return load(Path(folder) / "graph")


def port(graph: Graph, name: str) -> Port:
    """Return the input or output of that name."""
    tensor = Quantized.of(graph.tensors[name])
    return Port(
        name=name,
        shape=tensor.shape,
        layout=layout_of(tensor.shape, "NHWC"),
        dtype=tensor.quant.dtype,
        scale=float(tensor.quant.scale[0]),
        zero_point=int(tensor.quant.zero_point[0]),
    )


class OracleSession(Session):
    """An open ``.oracle`` file; see ``Session``.

    Raises:
        InputError: the file cannot be read, holds no graph, or other kernels than ``exact`` are named.
    """

    def __init__(self, path: Path, *, threads: int = 1, kernels: str | None = None) -> None:
        if kernels not in (None, "exact"):
            raise InputError(unknown("kernels", kernels, ("exact",)))
        self._graph = load(path)
        graph = self._graph
        inputs, outputs = (tuple(port(graph, name) for name in names) for names in (graph.inputs, graph.outputs))
        ops = (Op(kind=node.op, name=node.output, requested_kernels=True, is_float=False) for node in self._graph)
        super().__init__(Description(inputs=inputs, outputs=outputs, ops=tuple(ops)), threads=threads)

    def execute(self, batch: Arrays) -> Arrays:
        """See ``Session.execute``."""
        return run(self._graph, batch)


RUNTIME = Runtime(target="oracle", description="the quantized graph, run by the oracle", open_session=OracleSession)
