"""Capture an ``nn.Module`` as a graph: NCHW aten calls in, NHWC ops out, batch norm folded."""

from __future__ import annotations

from torch import nn

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph import passes
from edgecnn.graph.aten import handler, supported
from edgecnn.graph.builder import Value
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.graph.trace import Call, Trace, Traced, trace
from edgecnn.graph.translation import Translation


def capture(module: nn.Module, input_shape: tuple[int, int, int], metadata: Metadata) -> Graph:
    """Return the float graph of a module in evaluation mode.

    Args:
        module: one float32 image batch in (N, C, H, W), one tensor out (N, classes).
        input_shape: (C, H, W).
        metadata: what travels with the graph.

    Raises:
        UnsupportedError: ops outside the op table, all of them at once, each with its module path and source line.
        InputError: the module does not run on the input, or has more than one input or output.
    """
    traced = _run(module.eval(), input_shape)
    if len(traced.results) != 1:
        got = f"1 input and {len(traced.results)} outputs"
        raise UnsupportedError(f"the module has {got}; one image in and one tensor of logits out are supported")
    translation = Translation(traced)
    return passes.simplify(translation.graph([_walk(translation, traced)], metadata))


def _run(module: nn.Module, input_shape: tuple[int, int, int]) -> Trace:
    kinds = {str(p.dtype).removeprefix("torch.") for p in module.state_dict().values() if p.is_floating_point()}
    if kinds - {"float32"}:
        raise InputError(f"the module holds {', '.join(sorted(kinds))} parameters; give it in float32 (module.float())")
    try:
        return trace(module, input_shape)
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError) as error:
        shape = ", ".join(map(str, input_shape))
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"the module does not run on an input of shape (1, {shape}): {line}") from None


def _walk(builder: Translation, traced: Trace) -> Value:
    faults: list[str] = []
    unknown: set[Traced] = set()  # made by something that is not supported, so not looked at further
    for call in traced.calls:
        builder.begin(call)
        if not call.fault and all(i.constant is not None or i in builder.computed for i in call.reads):
            builder.computed.update(call.outputs)
        elif (handle := handler(call.name)) is None or (call.fault and unknown.isdisjoint(call.inputs)):
            faults.append(_where(call, call.fault))
            unknown.update(call.outputs)
        elif not unknown.isdisjoint(call.inputs):
            unknown.update(call.outputs)
        else:
            try:
                made = handle(builder, call)
            except InputError as error:
                faults.append(_where(call, str(error)))
                unknown.update(call.outputs)
            else:
                assert builder.shape(made) == call.output.shape, (call, made, builder.shape(made))
                builder.values[call.output] = made
    if faults:
        listed = "; ".join(dict.fromkeys(faults))
        raise UnsupportedError(f"the module has what no graph holds: {listed}. Supported: {', '.join(supported())}")
    result = traced.results[0]
    if result is None or result.constant is not None or result in builder.computed:
        raise UnsupportedError("the module's output does not depend on its input")
    return builder.value(result)


def _where(call: Call, why: str) -> str:
    """Name the op, what is wrong with it, the module path and the user's source line."""
    what = f"{call.name}: {why}" if why else call.name
    return f"{what} in {call.path or '(the module itself)'}" + (f" at {call.line}" if call.line else "")
