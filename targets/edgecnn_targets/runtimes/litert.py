"""LiteRT (the TensorFlow Lite runtime) on this machine."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgecnn.artifact import Port, layout_of
from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn.report.evidence import LayerCost
from edgecnn_targets.evaluate import dequantize, encoded
from edgecnn_targets.interface import Activations, Arrays, Description, Op, Parameters, Runtime, Session
from edgecnn_targets.runtimes.runner import litert_details

Details = Mapping[str, Any]

RESOLVERS = {"xnnpack": "BUILTIN", "reference": "BUILTIN_REF", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}
"""Kernels to LiteRT's op resolver: XNNPACK (what an application gets by default), the bit-exact reference kernels,
and LiteRT's own optimised kernels."""

_STDERR = threading.Lock()


class LiteRtSession(Session):
    """An open ``.tflite`` file; see ``Session``. XNNPACK runs it unless other ``RESOLVERS`` are named.

    Raises:
        InputError: the file is missing, or is not a TFLite file.
        UnsupportedError: XNNPACK was asked for and runs none of its ops, though it has kernels for some.
        MissingDependencyError: LiteRT is not installed.
    """

    def __init__(self, path: Path, *, threads: int = 1, kernels: str | None = None) -> None:
        kernels = kernels or "xnnpack"
        if kernels not in RESOLVERS:
            raise InputError(unknown("kernels", kernels, RESOLVERS))
        self._interpreter = interpreter(path, threads, kernels)
        details = litert_details(self._interpreter)
        super().__init__(describe(path, details, kernels=kernels), threads=threads)
        self._feed, self._fetch = ([each["index"] for each in details[side]] for side in ("inputs", "outputs"))

    def infer(self, sample: Arrays) -> Arrays:
        for port, index in zip(self.inputs, self._feed, strict=True):
            self._interpreter.set_tensor(index, sample[port.name])
        self._interpreter.invoke()
        made = [self._interpreter.get_tensor(index) for index in self._fetch]
        return {port.name: array for port, array in zip(self.outputs, made, strict=True)}


def interpreter(path: Path, threads: int, kernels: str, *, keep: bool = False) -> Any:
    """Return LiteRT's ``Interpreter``, ready to run; with ``keep``, every tensor can be read afterwards."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        raise RUNTIME.absent() from None
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the .tflite file that `edgecnn export` wrote")
    try:
        with without_info():
            opened = Interpreter(
                str(path),
                num_threads=threads,
                experimental_op_resolver_type=OpResolverType[RESOLVERS[kernels]],
                experimental_preserve_all_tensors=keep,
            )
            opened.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if "custom op: ethos-u" in reason:
            raise InputError(
                f"{path} is compiled for an Ethos-U and runs on that alone; give the file that was compiled"
            ) from None
        raise InputError(f"{path} is not a TFLite file that LiteRT can run ({reason}); export it again") from None
    return opened


@contextmanager
def without_info() -> Iterator[None]:
    """Keep LiteRT's ``INFO:`` lines, which no setting turns off, from file descriptor 2; the other lines pass."""
    with _STDERR, tempfile.TemporaryFile() as captured:  # one thread at a time: the descriptor is the process's
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            captured.seek(0)
            os.write(2, b"".join(line for line in captured if not line.startswith(b"INFO:")))


def describe(path: Path, details: Details, *, kernels: str) -> Description:
    """Describe a file that is open, wherever ``details``, ``runner.litert_details`` of it, are from.

    Raises:
        UnsupportedError: the shape of an input or output is not fixed, or XNNPACK runs none of its ops, though it has
            kernels for some.
    """
    ops = _ops(details, delegated=kernels == "xnnpack")
    arithmetic = "xnnpack_arm" if details["machine"] in ("aarch64", "arm64") else "xnnpack"
    return Description(
        inputs=tuple(_port(path, "input", detail) for detail in details["inputs"]),
        outputs=tuple(_port(path, "output", detail) for detail in details["outputs"]),
        ops=ops,
        findings=tuple(_findings(path, ops, details)),
        arithmetic=arithmetic if kernels == "xnnpack" else "litert",
    )


def _port(path: Path, side: str, detail: Details) -> Port:
    """Return an input or output, by its name in the file's signature where there is one."""
    shape = tuple(detail["shape"])
    if len(shape) < 2 or min(shape) < 1:
        raise UnsupportedError(f"{path}: {side} {detail['name']!r} has shape {shape}; supported: (batch, …), all fixed")
    return Port(
        name=detail["name"],
        shape=shape,
        layout=layout_of(shape, "NHWC"),
        dtype=detail["dtype"],
        scale=detail["scales"][0] if detail["scales"] else None,
        zero_point=detail["zero_points"][0] if detail["zero_points"] else None,
    )


def _ops(details: Details, *, delegated: bool) -> tuple[Op, ...]:
    """Return the file's ops. LiteRT lists them first, and then an op DELEGATE for each partition that XNNPACK runs."""
    nodes = details["ops"]
    names = dict(details["tensors"])
    maker = {out: node["index"] for node in nodes if node["op_name"] != "DELEGATE" for out in node["outputs"]}
    inside: set[int] = set()
    for partition in (node for node in nodes if node["op_name"] == "DELEGATE"):
        stop = set(partition["inputs"])
        pending = [maker[out] for out in partition["outputs"]]
        while pending:
            index = pending.pop()
            inside.add(index)
            made = (maker.get(i) for i in nodes[index]["inputs"] if i not in stop)
            pending.extend(m for m in made if m is not None and m not in inside)
    edges = {detail["index"] for detail in (*details["inputs"], *details["outputs"])}
    return tuple(
        Op(
            kind=node["op_name"],
            name=names.get(node["outputs"][0], ""),
            requested_kernels=not delegated or node["index"] in inside,
            is_float=_is_float(node, edges),
        )
        for node in nodes
        if node["op_name"] != "DELEGATE"
    )


def _findings(path: Path, ops: tuple[Op, ...], details: Details) -> Iterator[str]:
    """Yield what XNNPACK does not run; raises as ``describe``."""
    names = dict(details["tensors"])
    wide = (n for n in details["ops"] if "int16" in (*n["operand_types"], *n["result_types"]))
    made = {names.get(n["outputs"][0], "") for n in wide if n["op_name"] != "DELEGATE"}  # XNNPACK has no such kernels
    outside = [op for op in ops if not op.requested_kernels]
    unasked = [op for op in outside if op.name not in made]
    expected = len(outside) - len(unasked)
    if unasked and len(outside) == len(ops):
        raise UnsupportedError(f"{path}: XNNPACK runs none of its {len(ops)} ops on this machine")
    if expected:
        yield (
            f"LiteRT's built-in kernels run {expected} of {len(ops)} ops, those of 16-bit activations: "
            "XNNPACK has none for them"
        )
    if unasked:
        yield f"XNNPACK leaves {len(unasked)} of {len(ops)} ops out: {', '.join(map(str, unasked))}"


def _is_float(node: Details, edges: set[int]) -> bool:
    """Return whether an op computes in float. Conversion of the network's own input or output does not count."""
    if node["op_name"] in ("QUANTIZE", "DEQUANTIZE") and edges & {node["inputs"][0], node["outputs"][0]}:
        return False
    return any(name.startswith("float") for name in (*node["operand_types"], *node["result_types"]))


def activations(path: Path, sample: Arrays, parameters: Parameters, kernels: str | None) -> Activations:
    """Return the real values of activations; see ``registry.activations``."""
    fed = encoded(LiteRtSession(path, kernels=kernels), sample)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it costs memory
        opened = interpreter(path, 1, kernels or "xnnpack", keep=True)
    for detail, array in zip(opened.get_input_details(), fed.values(), strict=True):
        opened.set_tensor(detail["index"], array)
    opened.invoke()
    places = {detail["name"]: detail["index"] for detail in opened.get_tensor_details()}
    made = {name: opened.get_tensor(places[name]) for name in parameters if name in places}
    return {name: dequantize(values, parameters[name]) for name, values in made.items()}


def profile(path: Path, threads: int) -> list[LayerCost]:
    """Return the time of each op on this machine; see ``litert_profile``."""
    from edgecnn_targets.runtimes import litert_profile

    return litert_profile.profile(path, threads)


RUNTIME = Runtime(
    target="tflite",
    description="TensorFlow Lite flatbuffer, run by LiteRT",
    open_session=LiteRtSession,
    library="ai_edge_litert",
    extra="tflite",
    activations=activations,
    profile=profile,
    exact="xnnpack",
)
