"""Runs one artifact wherever this file is started: in an emulator, or on another machine.

It needs Python 3.8, numpy and the artifact's runtime, and nothing of edgecnn. It answers requests on stdin, one at a
time, on stdout; what runtimes print goes to stderr. A message is a line of JSON, of which ``bytes`` says how many raw
bytes follow. ``remote.py`` is the other end.

    {"do": "open", "target", "threads", "kernels", "bytes"} + file    what it says of itself, and the graph made of it
    {"do": "run", "bytes"} + inputs                                   outputs, the raw bytes
    {"do": "time", "warmup", "runs", "bytes"} + an inference's inputs "ns" of each run, and "heap"
    {"do": "arm", "bytes"}                                            one sched_yield(2): an emulator begins to count
    {"do": "count", "warmup", "runs", "bytes"} + an inference's       each run stands between two sched_yield(2); "heap"

Of an inference's inputs, and of its outputs, the bytes stand one after another, in the file's order.
"heap" is how many bytes more than before it was opened the network holds, where the C library says it.
A request that cannot be met is answered with {"error": why}.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import sys
import time
from typing import Any

import numpy as np

SIDES = ("inputs", "outputs")
ONNX_TYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int8)": "int8"}


class Mallinfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc's malloc.h."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def heap() -> Any:
    """Bytes that malloc has given out in this process, or ``None`` where the C library is not glibc 2.33 or newer."""
    call = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if call is None:
        return None
    call.restype = Mallinfo
    info = call()
    return info.uordblks + info.hblkhd


def litert_details(interpreter: Any) -> dict[str, Any]:
    """Return what LiteRT says of an open file, as plain data."""

    def port(detail: dict[str, Any], side: str) -> dict[str, Any]:
        parameters = detail["quantization_parameters"]
        return {
            "name": signed[side].get(int(detail["index"]), detail["name"]),
            "index": int(detail["index"]),
            "shape": [int(d) for d in detail["shape"]],
            "dtype": np.dtype(detail["dtype"]).name,
            "scales": [float(s) for s in parameters["scales"]],
            "zero_points": [int(z) for z in parameters["zero_points"]],
        }

    def op(node: dict[str, Any]) -> dict[str, Any]:
        numbers = {key: [int(i) for i in node[key]] for key in ("inputs", "outputs")}
        kinds = {
            "operand_types": [types[i] for i in numbers["inputs"] if i in types],
            "result_types": [types[i] for i in numbers["outputs"] if i in types],
        }
        return {"index": int(node["index"]), "op_name": node["op_name"], **numbers, **kinds}

    signatures = list(interpreter._interpreter.GetSignatureDefs().values())
    signed = {side: {i: n for n, i in signatures[0][side].items()} if len(signatures) == 1 else {} for side in SIDES}
    tensors = interpreter.get_tensor_details()
    types = {int(t["index"]): np.dtype(t["dtype"]).name for t in tensors}

    return {
        "inputs": [port(detail, "inputs") for detail in interpreter.get_input_details()],
        "outputs": [port(detail, "outputs") for detail in interpreter.get_output_details()],
        "tensors": [[int(t["index"]), t["name"]] for t in tensors],
        "ops": [op(node) for node in interpreter._get_ops_details()],
        "machine": platform.machine(),
    }


def onnx_details(session: Any) -> dict[str, Any]:
    """Return what ONNX Runtime says of an open file, as plain data."""
    sides = {"inputs": session.get_inputs(), "outputs": session.get_outputs()}
    return {
        side: [{"name": p.name, "shape": list(p.shape), "type": p.type} for p in ports] for side, ports in sides.items()
    }


class LiteRt:
    """An open ``.tflite`` file."""

    @staticmethod
    def library() -> Any:
        try:
            from ai_edge_litert import interpreter
        except ImportError:
            from tflite_runtime import interpreter
        return interpreter

    def __init__(self, content: bytes, threads: int, kernels: str) -> None:
        library = self.library()
        resolver = library.OpResolverType[kernels]
        self.interpreter = library.Interpreter(
            model_content=content, num_threads=threads, experimental_op_resolver_type=resolver
        )
        self.interpreter.allocate_tensors()
        self.details, self.graph = litert_details(self.interpreter), b""
        self.inputs = self.details["inputs"]

    def feed(self, arrays: Any) -> None:
        for port, array in zip(self.inputs, arrays):  # noqa: B905  # Python 3.8 has no strict
            self.interpreter.set_tensor(port["index"], array)

    def invoke(self) -> None:
        self.interpreter.invoke()

    def fetch(self) -> Any:
        return [self.interpreter.get_tensor(port["index"]) for port in self.details["outputs"]]


class OnnxRuntime:
    """An open ``.onnx`` file."""

    @staticmethod
    def library() -> Any:
        """ONNX Runtime with its telemetry off, unless the environment says otherwise: from 1.29 on it writes a database
        in the home folder, starts threads, which costs memory and instructions, and connects to its maker."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        return onnxruntime

    def __init__(self, content: bytes, threads: int, kernels: str) -> None:
        library = self.library()
        options = library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.x64quantprecision", kernels)
        with os.fdopen(os.memfd_create("optimised.onnx"), "rb") as made:  # a file's random name would move the heap
            options.optimized_model_filepath = f"/proc/self/fd/{made.fileno()}"
            self.session = library.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.graph = made.read()
        self.details = onnx_details(self.session)
        self.inputs = [
            {"name": p["name"], "shape": fixed(p["shape"]), "dtype": ONNX_TYPES[p["type"]]}
            for p in self.details["inputs"]
        ]
        self.names = [p["name"] for p in self.details["outputs"]]
        self.fed: dict[str, Any] = {}

    def feed(self, arrays: Any) -> None:
        self.fed = {port["name"]: array for port, array in zip(self.inputs, arrays)}  # noqa: B905  # as above

    def invoke(self) -> None:
        self.made = self.session.run(self.names, self.fed)

    def fetch(self) -> Any:
        return self.made


RUNTIMES: dict[str, Any] = {"tflite": LiteRt, "onnx": OnnxRuntime}


def fixed(shape: Any) -> Any:
    """A shape whose batch, where the file leaves it open, is 1."""
    return [shape[0] if isinstance(shape[0], int) else 1, *shape[1:]]


def inferences(network: Any, raw: bytes) -> Any:
    """The arrays of each inference in a message, in the order of the inputs."""
    at = 0
    while at < len(raw):
        arrays = []
        for port in network.inputs:
            count, dtype = int(np.prod(port["shape"])), np.dtype(port["dtype"])
            arrays.append(np.frombuffer(raw, dtype, count, at).reshape(port["shape"]))
            at += count * dtype.itemsize
        yield arrays


def held(network: Any, raw: bytes) -> Any:
    """Bytes of the heap that came with an open network; the message that is being answered is none of them."""
    now = heap()
    return None if now is None else now - network.before - len(raw)


def opened(request: dict[str, Any], raw: bytes) -> Any:
    """A network, which knows what the heap held before."""
    runtime = RUNTIMES[request["target"]]
    runtime.library()
    before = heap()
    network = runtime(raw, request["threads"], request["kernels"])
    network.before = before
    return network


def run(network: Any, request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Run each inference."""
    made = []
    for arrays in inferences(network, raw):
        network.feed(arrays)
        network.invoke()
        made += [array.tobytes() for array in network.fetch()]
    return {}, b"".join(made)


def timed(network: Any, request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Nanoseconds, feeding and reading included."""
    arrays, found = next(inferences(network, raw)), []
    for _ in range(request["warmup"] + request["runs"]):
        start = time.perf_counter_ns()
        network.feed(arrays)
        network.invoke()
        network.fetch()
        found.append(time.perf_counter_ns() - start)
    return {"ns": found[request["warmup"] :], "heap": held(network, raw)}, b""


def armed(network: Any, request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
    """A mark by itself."""
    os.sched_yield()
    return {}, b""


def counted(network: Any, request: dict[str, Any], raw: bytes) -> tuple[dict[str, Any], bytes]:
    """Inferences between marks. Python's collector of garbage stands still, or it would add to some of them."""
    network.feed(next(inferences(network, raw)))
    gc.disable()
    for _ in range(request["warmup"]):
        network.invoke()
    for _ in range(request["runs"]):
        os.sched_yield()
        network.invoke()
        os.sched_yield()
    gc.enable()
    return {"heap": held(network, raw)}, b""


def main() -> None:
    """Answer until stdin ends."""
    source, wire = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    network: Any = None
    answers = {"run": run, "time": timed, "arm": armed, "count": counted}
    for line in source:
        request = json.loads(line)
        raw = source.read(request["bytes"])
        try:
            if request["do"] == "open":
                network = None  # of two open networks the heap holds both
                network = opened(request, raw)
                answer, payload = network.details, network.graph
            else:
                answer, payload = answers[request["do"]](network, request, raw)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            answer, payload = {"error": " ".join(f"{type(error).__name__}: {error}".split())}, b""
        wire.write(json.dumps({**answer, "bytes": len(payload)}).encode() + b"\n" + payload)
        wire.flush()


if __name__ == "__main__":
    main()
