"""Run random quantized networks in LiteRT's reference kernels: every activation must be the oracle's, bit for bit.

    python -m fuzz.networks --count 10000 --seed 0 --keep FILE [--beside onnx,openvino]

Network N is ``random_graph(N, 1 + N % 8)`` over every op that the reference kernels have. What the format or a kernel
cannot hold is refused before anything is written; those are counted by reason. Networks on which the reference kernels
end the process run in those that an application gets. Stop it at any time: the same command goes on from FILE, unless
edgecnn's sources have changed. Status 1 if a network differs.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from graphs import BODY, MORE_PIECES, random_graph
from int8_builder import random_images

from edgecnn.errors import UnsupportedError
from edgecnn.graph.ir import Graph
from edgecnn.graph.oracle import run

NO_REFERENCE = ("elu",)
"""Pieces of ops of which LiteRT's reference resolver has no kernel: ``converters/test_tflite_ops.py`` shows them."""
ENDING = ("argmax",)  # after which no other op takes the integers
BETWEEN = tuple(piece for piece in (*BODY, *MORE_PIECES) if piece not in NO_REFERENCE + ENDING)
SUMMED = 511
"""The reference softmax ends the process where the exponentials of a row, of at most 1, sum to more."""
KERNELS = {"onnx": "exact", "openvino": "fast"}
IMAGES = 2
FAULTS = ("differs", "fault", "death")

Row = Mapping[str, Any]


def tried(number: int, beside: Sequence[str] = ()) -> Row:
    """Return what came of one network.

    Args:
        number: of the network.
        beside: other targets that run it too.

    Returns:
        ``state`` (``equal``, ``default``: equal in the default kernels, ``unsupported``, or one of ``FAULTS``),
        ``said``, and under each other target the largest LSB from its oracle and the ops that computed in float, or
        why it was refused.
    """
    row: dict[str, Any] = {"number": number, "state": "equal", "said": ""}
    try:
        graph = random_graph(number, 1 + number % 8, BETWEEN)
        images = random_images(graph, IMAGES, number)
        with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
            try:
                if any(node.op == "softmax" and graph.tensors[node.output].shape[-1] > SUMMED for node in graph):
                    far = elsewhere("tflite", graph, images, Path(folder))["lsb"]
                    row.update(state="differs" if far else "default", said=f"{far} LSB" if far else "")
                elif said := apart(graph, images, Path(folder)):
                    row.update(state="differs", said=said)
            except UnsupportedError as error:
                row.update(state="unsupported", said=str(error))
            for target in beside:
                row[target] = elsewhere(target, graph, images, Path(folder))
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        row.update(state="fault", said=f"{type(error).__name__}: {error}")
    return row


def apart(graph: Graph, images: np.ndarray, folder: Path) -> str:
    """Return the first activation that LiteRT's reference kernels make otherwise than the oracle, or nothing.

    Raises:
        UnsupportedError: the format or a kernel cannot hold the network; nothing was written.
    """
    from edgecnn_converters.tflite import convert
    from edgecnn_targets.runtimes.litert import interpreter

    path = folder / "net.tflite"
    path.write_bytes(convert(graph, precision="int8").files[".tflite"])
    names = [node.output for node in graph]
    want = run(graph, images, keep=names)
    opened = interpreter(path, 1, "reference", keep=True)
    places = {detail["name"]: detail["index"] for detail in opened.get_tensor_details()}
    (fed,) = opened.get_input_details()
    if missing := set(graph.outputs) - set(places):
        return f"{sorted(missing)} is not in the file"
    for k, image in enumerate(images):
        opened.set_tensor(fed["index"], image[None].reshape(fed["shape"]))
        opened.invoke()
        for node in graph:
            if node.output in places:
                got, wanted = opened.get_tensor(places[node.output]), want[node.output][k : k + 1]
                far = np.abs(got.reshape(wanted.shape).astype(int) - wanted)
                if far.max():
                    return f"{node.op} {node.output}: {np.count_nonzero(far)} of {far.size} by up to {far.max()} LSB"
    return ""


def elsewhere(target: str, graph: Graph, images: np.ndarray, folder: Path) -> Row:
    """Return how far another runtime is from its oracle, or why it does not run the network."""
    from runtimes import WRITERS, distances, opened, unsaturated

    kernels = KERNELS.get(target)
    used = unsaturated(graph) if kernels == "fast" else graph
    try:
        session = opened(target, WRITERS[target].convert(used, precision="int8"), folder, kernels)
    except UnsupportedError as error:
        if target not in KERNELS:
            raise
        return {"refused": str(error)}
    far = distances(used, session, images)
    return {"lsb": int(far.max()), "share": float((far > 0).mean()),
            "float": [str(op) for op in session.ops if op.is_float]}  # fmt: skip


def outcomes(numbers: Sequence[int], beside: Sequence[str]) -> Iterator[Row]:
    """Yield the row of each network, made in one process that is started again where native code ended it."""
    left = collections.deque(numbers)
    while left:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            while left:
                number = left.popleft()
                try:
                    yield pool.submit(tried, number, beside).result()
                except BrokenProcessPool:
                    yield {"number": number, "state": "death", "said": "the process ended"}
                    break


def code_digest() -> str:
    """Return the digest of edgecnn's Python files and of those that make the networks."""
    import edgecnn
    import edgecnn_converters
    import edgecnn_targets

    folders = [Path(str(package.__file__)).parent for package in (edgecnn, edgecnn_converters, edgecnn_targets)]
    here = Path(__file__).parents[1]
    files = [file for folder in folders for file in sorted(folder.rglob("*.py"))]
    made = [here / name for name in ("graphs.py", "pieces.py", "int8_builder.py", "fuzz/networks.py")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in (*files, *made))).hexdigest()[:16]


def kept(file: Path, key: str) -> list[Row]:
    """Return the rows of an earlier run with this key; otherwise begin the file anew."""
    lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    if lines[:1] == [key]:
        with file.open("a", encoding="utf-8") as end:
            end.write("\n")  # a killed run may leave half a line
        return [json.loads(line) for line in lines[1:] if line.endswith("}")]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{key}\n", "utf-8")
    return []


def reason(said: str) -> str:
    """Return why a network was refused, without names and numbers: what is the same of many."""
    first = said.partition("; ")[0] if said.count("; ") > 3 else said
    return re.sub(r"\d[\d.e+-]*", "N", re.sub(r"'[^']*'|\b[a-z_]+2?d?_\d+\b", "…", first))[:160]


def main() -> int:
    """Run the networks that FILE lacks, and print counts; return 1 if a network differs."""
    parser = argparse.ArgumentParser("fuzz.networks", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="networks (default 10000)")
    parser.add_argument("--seed", type=int, default=0, help="number of the first")
    parser.add_argument("--keep", type=Path, metavar="FILE", required=True, help="holds the results")
    parser.add_argument("--beside", default="", metavar="A,B", help=f"other runtimes: {', '.join(KERNELS)}")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    beside = tuple(filter(None, options.beside.split(",")))
    if set(beside) - set(KERNELS):
        parser.error(f"--beside {options.beside}: each must be one of {', '.join(KERNELS)}")
    wanted = range(options.seed, options.seed + options.count)
    rows = {row["number"]: row for row in kept(options.keep, " ".join((code_digest(), *beside)))}
    started = time.monotonic()
    with options.keep.open("a", encoding="utf-8") as file:
        for row in outcomes([number for number in wanted if number not in rows], beside):
            rows[row["number"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            if row["state"] in FAULTS:
                sys.stdout.write(f"{row['number']} {row['state']}: {row['said'][:500]}\n")
            if len(rows) % 500 == 0:
                sys.stderr.write(f"{len(rows)} networks, {time.monotonic() - started:.0f} s\n")
    return printed([rows[number] for number in wanted], beside)


def printed(rows: Sequence[Row], beside: Sequence[str]) -> int:
    """Print the counts of states, of reasons, and of the LSB of the other runtimes; return 1 if a network differs."""
    states = collections.Counter(row["state"] for row in rows)
    counted = ", ".join(f"{states[state]} {state}" for state in ("equal", "default", "unsupported", *FAULTS))
    lines = [f"{len(rows)} networks: {counted}"]
    refused = collections.Counter(reason(row["said"]) for row in rows if row["state"] == "unsupported")
    lines += [f"  {count} unsupported: {text}" for text, count in refused.most_common()]
    for target in beside:
        made = [(row["number"], row[target]) for row in rows if target in row]
        lsb = collections.Counter(each["lsb"] for _, each in made if "lsb" in each)
        without = collections.Counter(reason(each["refused"]) for _, each in made if "refused" in each)
        lines += [f"{target}: networks by their largest LSB {dict(sorted(lsb.items()))}, refused {without.total()}"]
        lines += [f"  {count} refused: {text}" for text, count in without.most_common()]
        lines += [f"  {number}: {each}" for number, each in made if each.get("lsb") or each.get("float")]
    sys.stdout.write("\n".join(lines) + "\n")
    return int(any(states[state] for state in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
