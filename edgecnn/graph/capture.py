"""Capture a torch module as a graph: aten calls in torch's order of dimensions in, NHWC ops out, batch norm folded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from edgecnn.errors import InputError, UnsupportedError, supported_ops
from edgecnn.graph import passes
from edgecnn.graph.aten import HINTS, handler, supported
from edgecnn.graph.aten_translation import Translation
from edgecnn.graph.importers import Imported
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.graph.node_builder import Value
from edgecnn.graph.replay import Replay
from edgecnn.graph.signatures import argument_names
from edgecnn.graph.trace import trace
from edgecnn.graph.traced import Call, Trace
from edgecnn.own_code import own_place

Shapes = Sequence[int] | Sequence[Sequence[int]] | Mapping[str, Sequence[int]]
FAILURES: tuple[type[Exception], ...] = (
    RuntimeError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, AssertionError, torch.jit.Error,
)  # fmt: skip
RECURRENT = ("RNN", "LSTM", "GRU")  # torch's layers
LARGEST = 5  # dimensions of an input, with the batch


def capture(module: nn.Module, input_shape: Shapes, metadata: Metadata) -> Graph:
    """Return the simplified graph of a module; see ``imported``."""
    return simplified(imported(module, input_shape, metadata).graph)


def simplified(graph: Graph) -> Graph:
    """Return a captured graph after all passes; several outputs keep their names.

    Raises:
        UnsupportedError: an output is an input as it came.
    """
    names = graph.outputs
    graph = passes.simplify(graph)
    if passed := set(graph.inputs) & set(graph.outputs):
        raise UnsupportedError(f"the module returns its input {min(passed)!r} as it came; return only what it computes")
    return graph if len(names) == 1 else passes.rename(graph, dict(zip(graph.outputs, names, strict=True)))


def imported(module: nn.Module, input_shape: Shapes, metadata: Metadata) -> Imported:
    """Return the float graph of a module in evaluation mode, not simplified, and the module as its reference.

    Args:
        module: takes float32 tensors with a batch first, and returns tensors: one, several, or a structure of them. An
            ``ExportedProgram`` and a traced or scripted module are taken as well; ops of the latter go by no path.
        input_shape: of an input without its batch: (C, H, W), (C, L) or (L,); several in the order of the module's
            arguments, or by name.
        metadata: what travels with the graph.

    Returns:
        The graph. Its inputs have the names that were given, or those of the module's arguments; a single one is
        ``input``. Several outputs have the names of the keys and fields that hold them, or ``output``, ``output_1`` …

    Raises:
        UnsupportedError: ops outside the op table, all of them at once, each with its module path and source line.
        InputError: the module does not run on the inputs.
    """
    if type(module).__name__ == "ExportedProgram":
        module = cast(Any, module).module()
    elif not isinstance(module, torch.jit.ScriptModule) and module.training:  # an exported one cannot change its mode
        module = module.eval()
    traced = _run(module, named_shapes(module, input_shape))
    translation = Translation(traced)
    made = _walk(translation, traced)
    graph = translation.graph(list(made.values()), metadata)
    if passed := set(graph.inputs) & set(graph.outputs):
        raise UnsupportedError(f"the module returns its input {min(passed)!r} as it came; return only what it computes")
    if len(made) > 1:
        graph = passes.rename(graph, dict(zip(graph.outputs, made, strict=True)))
    reference = Replay(module=module, traced=traced, values=dict(translation.values), outputs=graph.outputs)
    return Imported(graph=graph, reference=reference)


def named_shapes(module: nn.Module, given: Shapes) -> dict[str, tuple[int, ...]]:
    """Return input shapes by name, without the batch.

    Raises:
        InputError: a shape is not one, or has too many dimensions.
    """
    named: dict[str, Any]
    if isinstance(given, Mapping):
        named = dict(given)
    elif all(isinstance(d, int) for d in given):
        named = {"input": given}
    else:
        names = argument_names(module)
        fits = len(names) >= len(given) > 1
        named = {names[k] if fits else f"input_{k}" if k else "input": shape for k, shape in enumerate(given)}
    for name, shape in named.items():
        whole = isinstance(shape, Sequence) and all(isinstance(d, int) and d > 0 for d in shape)
        if not whole or not 1 <= len(shape) < LARGEST:
            allowed = f"1 to {LARGEST - 1} numbers above 0, without the batch, such as (3, 224, 224)"
            raise InputError(f"input {name!r} has shape {shape!r}; give {allowed}")
    if not named:
        raise InputError("no input has a shape; give one such as (3, 224, 224)")
    return {name: tuple(shape) for name, shape in named.items()}


def _run(module: nn.Module, shapes: Mapping[str, Sequence[int]]) -> Trace:
    kinds = {str(p.dtype).removeprefix("torch.") for p in module.state_dict().values() if p.is_floating_point()}
    if kinds - {"float32"}:
        raise InputError(f"the module holds {', '.join(sorted(kinds))} parameters; give it in float32 (module.float())")
    try:
        return trace(module, shapes)
    except FAILURES as error:
        given = ", ".join(f"(1, {', '.join(map(str, shape))})" for shape in shapes.values())
        lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
        line = lines[-1] if isinstance(error, torch.jit.Error) else lines[0]
        several = "an input of shape" if len(shapes) == 1 else "inputs of shapes"
        place = own_place(error)
        raise InputError(f"the module does not run on {several} {given}: {line}{place and f' ({place})'}") from error


def _walk(builder: Translation, traced: Trace) -> dict[str, Value]:
    """Translate every call; one that cannot be is listed, and what reads it is looked at all the same."""
    faults: list[str] = []
    for call in traced.calls:
        builder.begin(call)
        if builder.unmade(call):
            continue
        why = call.fault
        handle = handler(call.name)
        if handle is not None and not why:
            try:
                made = handle(builder, call)
            except InputError as error:
                why = str(error)
            else:
                values = [made] if isinstance(made, Value) else made
                for traced_output, value in zip(call.outputs, values, strict=False):
                    if builder.shape(value) == traced_output.shape:
                        builder.values[traced_output] = value
                        continue
                    assert faults, (call, value, builder.shape(value))  # what it reads had its shape changed in place
                    builder.stand_for(traced_output)
                continue
        faults.append(_where(call, why))
        for output in call.outputs:
            builder.stand_for(output)
    results = _results(builder, traced, faults)
    if faults:
        listed = "; ".join(dict.fromkeys(faults))
        strange = dict.fromkeys(call.name for call in traced.calls if handler(call.name) is None)
        known = f"; {supported_ops('torch', strange, supported())}" if strange else ""
        raise UnsupportedError(f"the module has what no graph holds: {listed}{known}")
    return results


def _results(builder: Translation, traced: Trace, faults: list[str]) -> dict[str, Value]:
    results: dict[str, Value] = {}
    for name, result in traced.results.items():
        if result is None:
            faults.append(f"{name} is no tensor")
        elif result.constant is not None:
            faults.append(f"{name} does not depend on the module's input")
        else:
            try:
                results[name] = builder.value(result)
            except InputError as error:
                faults.append(f"{name}: {error}")
    if not traced.results:
        faults.append("it returns nothing")
    return results


def _where(call: Call, why: str) -> str:
    """Name the op, what is wrong with it, the module path, the user's source line, and what helps."""
    name = call.name
    if call.layer in RECURRENT:
        name, why = call.layer, "a recurrent layer; convolutions over time are supported"
    what = f"{name}: {why}" if why else name
    hint = "" if why or call.name not in HINTS else f" ({HINTS[call.name]})"
    return f"{what} in {call.path or '(the module itself)'}" + (f" at {call.line}" if call.line else "") + hint
