"""Cut a ``.tflite`` file after each of its ops: what an op costs is the difference between two such files."""

from __future__ import annotations

from collections.abc import Iterator


def prefixes(content: bytes) -> Iterator[bytes]:
    """Yield the file that ends with its first op, with its second, and so on; each op's first output is the output.

    Args:
        content: of a file that LiteRT can open, with one subgraph.
    """
    import flatbuffers  # type: ignore[import-untyped]
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    (graph,) = model.subgraphs
    ops, model.signatureDefs = graph.operators, []
    for count in range(1, len(ops) + 1):
        graph.operators, graph.outputs = ops[:count], [ops[count - 1].outputs[0]]
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        yield bytes(builder.Output())
