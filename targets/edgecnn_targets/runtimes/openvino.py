"""OpenVINO's CPU plugin on this machine."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import Port, layout_of
from edgecnn.errors import InputError, UnsupportedError, unknown
from edgecnn.report.evidence import LayerCost
from edgecnn_targets.evaluate import encoded, fixed_input, nhwc
from edgecnn_targets.interface import Activations, Arrays, Description, Op, Parameters, Runtime, Session
from edgecnn_targets.runtimes.saturation import can_saturate, onednn_has_vnni, onednn_warning

KERNELS = ("fast", "exact")
"""``fast`` is what an application gets. ``exact`` is the same where its sums are; on x86 without VNNI, for which the
plugin has no such integer kernels, it computes in float32, quantization by quantization, as the file says."""
WARM_UP, PROFILED = 10, 50  # inferences
EXACT = "ran in float32: OpenVINO has no exact integer kernels on this CPU; the times are not those of int8"
PRECISION_HINT = "f32"  # without one, the plugin computes in bfloat16 where the CPU has it
TYPES = {"f32": "float32", "u8": "uint8", "i8": "int8"}
MULTIPLYING = ("Convolution", "FullyConnected", "MatMul")
FLOATS, EIGHT_BITS = ("f32", "bf16", "f16"), {"u8", "i8"}
NOT_COMPUTING = ("Reorder", "Reshape", "Transpose", "Convert", "Gather")
EDGES = ("FakeQuantize", "Subgraph")


class OpenVinoSession(Session):
    """An open ``.xml`` with its ``.bin``; see ``Session``. The fast of the ``KERNELS`` run it unless others are named.

    Raises:
        InputError: a file is missing or corrupt.
        UnsupportedError: the shape of an input or output is not fixed, or its type is not known.
        MissingDependencyError: OpenVINO is not installed.
    """

    def __init__(self, path: Path, *, threads: int = 1, kernels: str | None = None) -> None:
        kernels = kernels or "fast"
        if kernels not in KERNELS:
            raise InputError(unknown("kernels", kernels, KERNELS))
        compiled, weights = _compile(path, threads, kernels)
        inputs = tuple(_port(path, "input", found) for found in compiled.inputs)
        outputs = tuple(_port(path, "output", found) for found in compiled.outputs)
        ops = _ops(compiled.get_runtime_model())
        findings: tuple[str, ...] = ()
        if weights and in_float(kernels):
            findings = (EXACT,)
        elif _can_saturate(weights, ops):
            findings = (onednn_warning(),)
        described = Description(inputs=inputs, outputs=outputs, ops=ops, findings=findings, arithmetic="openvino")
        super().__init__(described, threads=threads)
        self._request = compiled.create_infer_request()

    def infer(self, sample: Arrays) -> Arrays:
        fed = [np.ascontiguousarray(sample[port.name]) for port in self.inputs]
        made = self._request.infer(fed, share_inputs=True, share_outputs=True)
        return {port.name: made[k] for k, port in enumerate(self.outputs)}


def settings(threads: int, kernels: str) -> dict[str, str]:
    """Return the plugin's properties."""
    chosen = {
        "INFERENCE_PRECISION_HINT": PRECISION_HINT,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(threads),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # by default it quantizes the activations of weight-only layers
    }
    return {**chosen, "LP_TRANSFORMS_MODE": "NO"} if in_float(kernels) else chosen


def in_float(kernels: str) -> bool:
    """Return whether the plugin has to compute int8 artifacts in float32, to be exact on this CPU."""
    return kernels == "exact" and not onednn_has_vnni()


def _can_saturate(weights: list[NDArray[Any]], ops: tuple[Op, ...]) -> bool:
    """Return whether sums of products can be clipped on this CPU; those of two activations always can without VNNI."""
    kinds, vnni = {op.kind for op in ops if not op.is_float}, onednn_has_vnni()
    of_activations = "MatMul" in kinds and not vnni
    return of_activations or (can_saturate(weights, vnni=vnni) and not kinds.isdisjoint(MULTIPLYING))


def _compile(path: Path, threads: int, kernels: str) -> tuple[Any, list[NDArray[Any]]]:
    """Return the compiled network, and its int8 weights."""
    try:
        import openvino
    except ImportError:
        raise RUNTIME.absent() from None
    weights = path.with_suffix(".bin")
    for file in (path, weights):
        if not file.is_file():
            raise InputError(f"{file} is not a file; an OpenVINO artifact is a .xml with its .bin beside it")
    try:
        core = openvino.Core()
        model = core.read_model(path.read_bytes(), weights.read_bytes())
        constants = (op for op in model.get_ops() if op.get_type_name() == "Constant")
        bytes_ = [op.data.copy() for op in constants if op.get_element_type() == openvino.Type.i8 and op.data.ndim > 1]
        return core.compile_model(model, "CPU", settings(threads, kernels)), bytes_
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-200:]
        raise InputError(f"{path} is not OpenVINO IR that the CPU plugin can run ({reason}); export it again") from None


def _port(path: Path, side: str, found: Any) -> Port:
    own, kind = found.get_node().get_friendly_name().removesuffix("/result"), found.element_type.get_type_name()
    name = own if own in found.get_names() else found.get_any_name()  # two results of one tensor have all its names
    if found.partial_shape.is_dynamic or len(found.shape) < 2 or kind not in TYPES:
        raise UnsupportedError(
            f"{path}: {side} {name!r} is {kind} {found.partial_shape}; supported: {', '.join(TYPES)} (batch, …), all "
            "fixed"
        )
    shape = tuple(int(d) for d in found.shape)
    return Port(name=name, shape=shape, layout=layout_of(shape, "NCHW"), dtype=TYPES[kind])


def _ops(model: Any) -> tuple[Op, ...]:
    """Return the ops that the plugin made; ``is_float`` as ``_computes_in_float`` says."""
    nodes = [node for node in model.get_ordered_ops() if _fact(node, "layerType") not in ("Input", "Output", "Const")]
    return tuple(
        Op(
            kind=_fact(node, "layerType"),
            name=node.get_friendly_name(),
            requested_kernels=True,
            is_float=_computes_in_float(node),
        )
        for node in nodes
    )


def _computes_in_float(node: Any) -> bool:
    """Return whether an op computes in float between float edges.

    One that reads or writes 8 bits quantizes or dequantizes in its registers, as every integer kernel does, unless it
    multiplies by weights. Conversions at the file's edges are no float op.
    """
    kind = _fact(node, "layerType")
    if _fact(node, "runtimePrecision") not in FLOATS or kind in NOT_COMPUTING:
        return False
    read = [source for source in (port.get_source_output() for port in node.inputs()) if _kind(source) != "Const"]
    if kind not in MULTIPLYING and EIGHT_BITS & {_made(output) for output in (*read, *node.outputs())}:
        return False
    beside = _kinds_beyond(node, _sources, NOT_COMPUTING) | _kinds_beyond(node, _readers, NOT_COMPUTING)
    return not (kind in EDGES and beside & {"Input", "Output"})


def _fact(node: Any, key: str) -> str:
    """Return what the plugin says of an op that it made."""
    return str(node.get_rt_info()[key].astype(str))


def _kind(output: Any) -> str:
    return _fact(output.get_node(), "layerType")


def _made(output: Any) -> str:
    """Return the precision of an op's output; the plugin lists outputs with equal values once."""
    precisions = _fact(output.get_node(), "outputPrecisions").split(",")
    return precisions[min(int(output.get_index()), len(precisions) - 1)]


def _sources(node: Any) -> list[Any]:
    return [port.get_source_output().get_node() for port in node.inputs()]


def _readers(node: Any) -> list[Any]:
    return [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]


def _kinds_beyond(node: Any, neighbours: Callable[[Any], list[Any]], through: Collection[str]) -> set[str]:
    """Return the kinds of the ops on one side of an op, beyond those of some kinds."""
    found: set[str] = set()
    for other in neighbours(node):
        kind = _fact(other, "layerType")
        found |= _kinds_beyond(other, neighbours, through) if kind in through else {kind}
    return found


def activations(path: Path, sample: Arrays, parameters: Parameters, kernels: str | None) -> Activations:
    """Return the real values of activations; see ``registry.activations``."""
    import openvino

    model = openvino.Core().read_model(str(path))
    ops = {op.get_friendly_name(): op for op in model.get_ordered_ops()}
    kinds = [what + order for what in ("moved", "quantized") for order in ("", "_nhwc")]  # moved: no FakeQuantize
    ends = ((name, f"{name}/{kind}") for name in parameters for kind in kinds)
    wanted = {name: ops[made] for name, made in ends if made in ops}
    last = {result.input_value(0).get_node().get_friendly_name() for result in model.get_results()}
    wanted = {name: op for name, op in wanted.items() if op.get_friendly_name() not in last}
    count = len(model.outputs)
    model.add_outputs([op.output(0) for op in wanted.values()])
    compiled = openvino.Core().compile_model(model, "CPU", settings(1, kernels or "fast"))
    fed = encoded(OpenVinoSession(path, kernels=kernels), sample)
    results = compiled([np.ascontiguousarray(array) for array in fed.values()])
    made = {name: results[count + k] for k, name in enumerate(wanted)}
    last_in_order = {name for name, op in wanted.items() if op.get_friendly_name().endswith("_nhwc")}
    return {name: values if name in last_in_order else nhwc(values) for name, values in made.items()}


def profile(path: Path, threads: int) -> list[LayerCost]:
    """Return the time of each op on this machine, by OpenVINO's performance counters: the median of some inferences."""
    import openvino

    fed = [np.ascontiguousarray(array) for array in fixed_input(OpenVinoSession(path)).values()]
    how = {**settings(threads, "fast"), "PERF_COUNT": "YES"}
    request = openvino.Core().compile_model(str(path), "CPU", how).create_infer_request()
    found: dict[tuple[str, str], list[float]] = {}
    for run in range(WARM_UP + PROFILED):
        request.infer(fed)
        for op in request.profiling_info if run >= WARM_UP else ():
            if op.status == openvino.ProfilingInfo.Status.EXECUTED and op.node_type not in ("Parameter", "Result"):
                found.setdefault((op.node_type, op.node_name), []).append(op.real_time.total_seconds())
    return [
        LayerCost(op=op, name=name.split("/")[0], ms=1000 * median(times), place="CPU")
        for (op, name), times in found.items()
    ]


RUNTIME = Runtime(
    target="openvino",
    description="OpenVINO IR with FakeQuantize, run by the CPU plugin",
    open_session=OpenVinoSession,
    library="openvino",
    extra="openvino",
    activations=activations,
    profile=profile,
)
