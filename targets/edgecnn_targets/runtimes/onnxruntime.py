"""ONNX Runtime on this machine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Port, layout_of
from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn.files import scratch
from edgecnn.report.evidence import LayerCost
from edgecnn_targets.evaluate import dequantize, encoded, fixed_input, nhwc
from edgecnn_targets.interface import Activations, Arrays, Description, Op, Parameters, Runtime, Session
from edgecnn_targets.runtimes.runner import ONNX_TYPES, OnnxRuntime, onnx_details
from edgecnn_targets.runtimes.saturation import can_saturate, has_vnni, warning

Details = Mapping[str, Any]

KERNELS = {"fast": "0", "exact": "1"}
"""Kernels to ``session.x64quantprecision``. ``fast`` is what an application gets unless it asks. ``exact`` is the same
where its sums are; on x86 without VNNI it multiplies unsigned by unsigned bytes, whose sums have 32 bits."""
MULTIPLYING = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat")
TO_INTEGERS, TO_REAL = EDGES = ("QuantizeLinear", "DequantizeLinear")
MOVING = ("Clip", "Concat", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice", "Transpose")
"""Of integers: their output is on the grid of their input."""
WARM_UP, PROFILED = 10, 50  # inferences
KERNEL = "_kernel_time"  # after the name of a node, in a profile
EXACT = "ran with session.x64quantprecision=1: its sums are exact, it is slower, and an application has to ask for it"


class OnnxRuntimeSession(Session):
    """An open ``.onnx`` file; see ``Session``. The fast of the ``KERNELS`` run it unless others are named.

    Raises:
        InputError: the file is missing, or is not an ONNX file.
        MissingDependencyError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, *, threads: int = 1, kernels: str | None = None) -> None:
        kernels = kernels or "fast"
        if kernels not in KERNELS:
            raise InputError(unknown("kernels", kernels, KERNELS))
        self._session, original, made = open_file(path, threads, kernels)
        described = describe(path, onnx_details(self._session), original, made, kernels=kernels, vnni=has_vnni())
        super().__init__(described, threads=threads)

    def infer(self, sample: Arrays) -> Arrays:
        names = [port.name for port in self.outputs]
        return dict(zip(names, self._session.run(names, dict(sample)), strict=True))


def session_options(threads: int, kernels: str) -> Any:
    """Return ONNX Runtime's ``SessionOptions``."""
    options = OnnxRuntime.library().SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.x64quantprecision", KERNELS[kernels])
    return options


def open_file(path: Path, threads: int, kernels: str) -> tuple[Any, Any, Any]:
    """Return the session, the file's graph, and the graph that ONNX Runtime made; raises as ``OnnxRuntimeSession``."""
    try:
        import onnx

        onnxruntime = OnnxRuntime.library()
    except ImportError:
        raise RUNTIME.absent() from None
    if not path.is_file():
        raise InputError(f"{path} is not a file; give the .onnx file that `edgecnn export` wrote")
    options = session_options(threads, kernels)
    failures = tuple(
        getattr(onnxruntime.capi.onnxruntime_pybind11_state, name)
        for name in ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NotImplemented", "RuntimeException")
    )
    with scratch() as folder:
        made = folder / "optimised.onnx"
        options.optimized_model_filepath = str(made)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except failures as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{path} is not an ONNX file that ONNX Runtime can run ({reason}); export it again"
            ) from None
        return session, onnx.load(str(path)), onnx.load(str(made))


def describe(path: Path, details: Details, original: Any, optimised: Any, *, kernels: str, vnni: bool) -> Description:
    """Describe a file that is open.

    Args:
        details: ``runner.onnx_details`` of it, from wherever it is open.
        original: the file's graph.
        optimised: the graph that ONNX Runtime made of it there.
        vnni: ``saturation.has_vnni`` there.

    Raises:
        UnsupportedError: the shape of an input or output is not fixed, or its type is not known.
    """
    grids = _grids(original)
    saturates = can_saturate(_byte_weights(optimised), vnni=vnni)
    findings = (EXACT if kernels == "exact" else warning("ONNX Runtime"),) if saturates else ()
    return Description(
        inputs=tuple(_port(path, "input", found, grids) for found in details["inputs"]),
        outputs=tuple(_port(path, "output", found, grids) for found in details["outputs"]),
        ops=_ops(optimised),
        findings=findings,
        arithmetic="onnxruntime",
    )


def _grids(model: Any) -> Mapping[str, tuple[float, int]]:
    """Return scale and zero point of the file's tensors of integers."""
    from onnx import numpy_helper

    stored = {i.name: i for i in model.graph.initializer}
    grids: dict[str, tuple[float, int]] = {}
    for node in model.graph.node:
        if node.op_type in MOVING and node.input[0] in grids:
            grids[node.output[0]] = grids[node.input[0]]
        if node.op_type in EDGES and all(name in stored for name in node.input[1:3]):
            scale, zero = (numpy_helper.to_array(stored[name]) for name in node.input[1:3])
            if scale.size == 1:
                name = node.input[0] if node.op_type == TO_REAL else node.output[0]
                grids[name] = (float(scale.reshape(())), int(zero.reshape(())))
    for port in (*model.graph.input, *model.graph.output):  # our writer leaves the grid beside it, whatever reads it
        parts = [f"{port.name}/{what}" for what in ("scale", "zero_point_uint8", "zero_point_int8")]
        held = [numpy_helper.to_array(stored[name]) for name in parts if name in stored]
        if len(held) == 2:
            grids[port.name] = (float(held[0]), int(held[1]))
    return grids


def _port(path: Path, side: str, found: Details, grids: Mapping[str, tuple[float, int]]) -> Port:
    name, kind = found["name"], found["type"]
    shape = tuple(1 if index == 0 and not isinstance(d, int) else d for index, d in enumerate(found["shape"]))
    if len(shape) < 2 or not all(isinstance(d, int) for d in shape):
        raise UnsupportedError(f"{path}: {side} {name!r} has shape {found['shape']}; supported: (batch, …), all fixed")
    if kind not in ONNX_TYPES:
        raise UnsupportedError(f"{path}: {side} type {kind}; supported: {', '.join(ONNX_TYPES)}")
    scale, zero = (None, None) if ONNX_TYPES[kind] == "float32" else grids.get(name, (None, None))
    layout = layout_of(shape, "NCHW")
    return Port(name=name, shape=shape, layout=layout, dtype=ONNX_TYPES[kind], scale=scale, zero_point=zero)


def _ops(model: Any) -> tuple[Op, ...]:
    """Return the nodes that run, and whether each computes in float.

    Conversions of the file's input and output do not count. Nor do those around a float op, which counts itself; where
    there is none between them, the second counts.
    """
    from onnx import TensorProto

    floats = {TensorProto.FLOAT, TensorProto.FLOAT16}
    is_float = {i.name: i.data_type in floats for i in model.graph.initializer}
    is_float |= {i.name: i.type.tensor_type.elem_type in floats for i in model.graph.input}
    outputs = {o.name for o in model.graph.output}
    inputs = {i.name for i in model.graph.input}
    inside = {n.output[0] for n in model.graph.node if n.op_type == TO_REAL and n.input[0] not in inputs}
    ops = []
    for node in model.graph.node:
        first = is_float.get(node.input[0], False) if node.input else False
        computes = first and not node.op_type.startswith("QLinear") and node.op_type not in ("QGemm", *EDGES)
        for name in node.output:
            is_float[name] = computes or node.op_type == TO_REAL
        rescales = node.op_type == TO_INTEGERS and node.input[0] in inside
        edge = {*node.input} & inputs or {*node.output} & outputs
        moves = node.op_type in (*EDGES, "Transpose", "Reshape", "Flatten")
        counts = (computes or rescales) and not (moves and edge)
        ops.append(Op(kind=node.op_type, name=node.output[0], requested_kernels=True, is_float=counts))
    return tuple(ops)


def _byte_weights(model: Any) -> list[NDArray[Any]]:
    """Return the 8-bit weights of ops that multiply integers, signed; exact kernels store them unsigned, 128 higher."""
    from onnx import TensorProto, numpy_helper

    zero = {TensorProto.INT8: 0, TensorProto.UINT8: 128}
    stored = {i.name: i for i in model.graph.initializer if i.data_type in zero and len(i.dims) > 1}
    read = {name for n in model.graph.node if n.op_type in MULTIPLYING for name in n.input if name in stored}
    return [numpy_helper.to_array(stored[n]).astype(np.int16) - zero[stored[n].data_type] for n in sorted(read)]


def activations(path: Path, sample: Arrays, parameters: Parameters, kernels: str | None) -> Activations:
    """Return the real values of activations; see ``registry.activations``."""
    fed = encoded(OnnxRuntimeSession(path, kernels=kernels), sample)
    import onnx

    model = onnx.load(str(path))
    kept, made = {o.name for o in model.graph.output}, {name for n in model.graph.node for name in n.output}
    wanted = {name: f"{name}/q" for name in parameters if f"{name}/q" in made}
    model.graph.output.extend(onnx.ValueInfoProto(name=inner) for inner in wanted.values() if inner not in kept)
    options = session_options(1, kernels or "fast")
    library = OnnxRuntime.library()
    session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    values = session.run(list(wanted.values()), fed)
    signed = [v.astype(np.int16) - (128 if v.dtype == np.uint8 else 0) for v in values]
    return {name: nhwc(dequantize(v, parameters[name])) for name, v in zip(wanted, signed, strict=True)}


def profile(path: Path, threads: int) -> list[LayerCost]:
    """Return the time of each op on this machine, by ONNX Runtime's own profile: the median of some inferences."""
    sample, library = fixed_input(OnnxRuntimeSession(path)), OnnxRuntime.library()
    with scratch() as folder:
        options = session_options(threads, "fast")
        options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
        session = library.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for _ in range(WARM_UP + PROFILED):
            session.run(None, sample)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    found: dict[tuple[str, str], list[int]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            name = event["name"].removesuffix(KERNEL)
            found.setdefault((event["args"]["op_name"], name), []).append(event["dur"])
    return [
        LayerCost(op=op, name=name.split("/")[0], ms=median(times[-PROFILED:]) / 1000, place="CPU")
        for (op, name), times in found.items()
    ]


RUNTIME = Runtime(
    target="onnx",
    description="ONNX with QuantizeLinear and DequantizeLinear, run by ONNX Runtime",
    open_session=OnnxRuntimeSession,
    library="onnxruntime",
    extra="onnx",
    activations=activations,
    profile=profile,
)
