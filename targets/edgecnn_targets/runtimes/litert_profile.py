"""The time of each op of a ``.tflite`` file in LiteRT, whose Python interface offers no profile.

An op takes what the network that ends with it takes longer than the network that ends with the op before.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.files import scratch
from edgecnn.report.evidence import LayerCost
from edgecnn_targets.evaluate import fixed_input
from edgecnn_targets.runtimes.litert import LiteRtSession, interpreter

WARM_UP = 3
PASSES = 3  # over all parts: what else runs on the machine comes and goes
LEAST, MOST = 5, 50  # inferences of each part in a pass
SECONDS = 6.0  # for all inferences, about


def profile(path: Path, threads: int) -> list[LayerCost]:
    """Return the time of each op on this machine: of each part of the network, the fastest of some inferences."""
    session = LiteRtSession(path, threads=threads)
    sample = fixed_input(session)
    started = time.perf_counter()
    for _ in range(WARM_UP):
        session.run(sample)
    whole = (time.perf_counter() - started) / WARM_UP
    runs = int(np.clip(2 * SECONDS / (PASSES * whole * len(session.ops)), LEAST, MOST))
    parts = list(prefixes(path.read_bytes()))
    taken = [float("inf")] * len(parts)
    with scratch() as folder:
        part = folder / "part.tflite"
        for _ in range(PASSES):
            for k, content in enumerate(parts):
                part.write_bytes(content)
                opened = interpreter(part, threads, "xnnpack")
                taken[k] = min(taken[k], _fastest(opened, list(sample.values()), runs))
    spent = np.diff(rising(taken), prepend=0.0)
    return [
        LayerCost(op=op.kind, name=op.name, ms=float(ms), place="CPU")
        for op, ms in zip(session.ops, spent, strict=True)
    ]


def rising(values: Sequence[float]) -> list[float]:
    """Return the numbers nearest to these, by least squares, of which none is below the one before.

    Source: Ayer et al., "An empirical distribution function for sampling with incomplete information" (1955): pool
    neighbours that fall.
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((value, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (mean, many), (last, few) = pools[-2:]
            pools[-2:] = [((mean * many + last * few) / (many + few), many + few)]
    return [mean for mean, many in pools for _ in range(many)]


def _fastest(opened: Any, sample: Sequence[Any], runs: int) -> float:
    """Return the milliseconds of the fastest inference."""
    for detail, array in zip(opened.get_input_details(), sample, strict=True):
        opened.set_tensor(detail["index"], array)
    taken = []
    for _ in range(WARM_UP + runs):
        started = time.perf_counter()
        opened.invoke()
        taken.append(time.perf_counter() - started)
    return 1000 * min(taken[WARM_UP:])


def prefixes(content: bytes) -> Iterator[bytes]:
    """Yield a ``.tflite`` file of one subgraph that ends with its first op, with its second, and so on.

    Each op's first output is the file's output."""
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
