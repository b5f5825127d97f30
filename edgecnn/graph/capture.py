"""From an ``nn.Module`` to a graph, by ``torch.export``: NCHW aten nodes in, NHWC ops out, batch norm folded."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph import passes
from edgecnn.graph.ir import Attr, Graph, Metadata, Node, Tensor
from edgecnn.graph.ops import make_node, output_shape


@dataclass(frozen=True)
class Value:
    """What an aten node made.

    Attributes:
        name: the graph tensor that holds it.
        chw: for a flattened image, the (channels, height, width) it was flattened from: torch flattens channels
            first, the graph channels last, and only a linear layer can absorb the difference.
    """

    name: str
    chw: tuple[int, int, int] | None = None


class Builder:
    """A graph in the making. Handlers in ``aten.py`` add to it."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.values: dict[fx.Node, Value] = {}
        self.constants: dict[fx.Node, NDArray[np.float32]] = {}
        self.current: fx.Node | None = None  # the aten node being handled

    def shape(self, value: Value) -> tuple[int, ...]:
        """The NHWC (or NC) shape."""
        return self.tensors[value.name].shape

    def value(self, argument: Any) -> Value:
        """The graph value of an aten argument; a constant becomes a constant tensor."""
        if isinstance(argument, fx.Node):
            if argument in self.values:
                return self.values[argument]
            raise UnsupportedError("a constant where an activation is needed")
        raise UnsupportedError(f"argument {argument!r} where an activation is needed")

    def operand(self, argument: Any, rank: int) -> Value:
        """As ``value``; a number or a parameter becomes a constant that broadcasts over ``rank`` dimensions."""
        if isinstance(argument, int | float):
            return self.constant(np.full((1,), argument, np.float32), "constant")
        if isinstance(argument, fx.Node) and argument in self.constants:
            array = self.constants[argument]
            array = array.reshape((1,) * (rank - array.ndim) + array.shape) if array.size > 1 else array.reshape(1)
            return self.constant(np.moveaxis(array, 1, -1) if array.ndim == 4 else array, "constant")
        return self.value(argument)

    def array(self, argument: fx.Node | None) -> NDArray[np.float32] | None:
        """A parameter or buffer as torch has it.

        Raises:
            UnsupportedError: the argument is computed while the network runs.
        """
        if argument is None:
            return None
        if argument not in self.constants:
            raise UnsupportedError("a weight that is computed while the network runs")
        return self.constants[argument]

    def constant(self, value: NDArray[np.float32], suffix: str) -> Value:
        """A new constant tensor named after the present module."""
        name = self._unique(f"{self.path}.{suffix}" if self.path else suffix)
        self.tensors[name] = Tensor(name=name, shape=value.shape, value=np.ascontiguousarray(value, np.float32))
        return Value(name)

    def add(
        self, op: str, *inputs: Value, name: str | None = None, chw: tuple[int, int, int] | None = None, **attrs: Attr
    ) -> Value:
        """A new node on the given values; its output shape comes from the op table."""
        output = self._unique(name or self._name(op))
        node = make_node(op, tuple(i.name for i in inputs), output, self.path, **attrs)
        shape = output_shape(node, [self.shape(i) for i in inputs])
        self.nodes.append(node)
        self.tensors[output] = Tensor(name=output, shape=shape)
        return Value(output, chw)

    def weighted(
        self, op: str, x: Value, weight: NDArray[np.float32], bias: NDArray[np.float32] | None, **attrs: Any
    ) -> Value:
        """A conv2d (weight OHWI) or fully_connected node with its constants; a missing bias is zero."""
        name = self._unique(self._name(op))
        zeros = np.zeros(weight.shape[0], np.float32)
        for suffix, array in (("weight", weight), ("bias", zeros if bias is None else bias)):
            self.tensors[f"{name}.{suffix}"] = Tensor(
                name=f"{name}.{suffix}", shape=array.shape, value=np.ascontiguousarray(array, np.float32)
            )
        return self.add(op, x, Value(f"{name}.weight"), Value(f"{name}.bias"), name=name, **attrs)

    @property
    def path(self) -> str:
        """Module path of the present aten node."""
        assert self.current is not None
        stack = self.current.meta.get("nn_module_stack") or {"": ("", "")}
        return str(list(stack.values())[-1][0])

    def _name(self, op: str) -> str:
        assert self.current is not None
        stack = self.current.meta.get("nn_module_stack") or {"": ("", "")}
        path, kind = list(stack.values())[-1]
        leaf = str(kind).startswith("torch.nn.modules.") and path
        return str(path) if leaf else ".".join(filter(None, (str(path), op)))

    def _unique(self, name: str) -> str:
        taken, candidate, k = self.tensors, name, 0
        while candidate in taken:
            k += 1
            candidate = f"{name}_{k}"
        return candidate


def capture(module: nn.Module, input_shape: tuple[int, int, int], metadata: Metadata) -> Graph:
    """The float graph of a module in evaluation mode.

    Args:
        module: one float32 image batch in (N, C, H, W), one tensor out (N, classes).
        input_shape: (C, H, W).
        metadata: what travels with the graph.

    Raises:
        UnsupportedError: ops outside the op table, all of them at once, each with its module path and source line.
        InputError: the module does not run on the input, or has more than one input or output.
    """
    program = _export(module.eval(), input_shape)
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        got = f"{len(signature.user_inputs)} inputs and {len(signature.user_outputs)} outputs"
        raise UnsupportedError(f"the module has {got}; one image in and one tensor of logits out are supported")
    builder = Builder()
    _placeholders(builder, program, input_shape)
    result = _walk(builder, program)
    graph = Graph(
        nodes=tuple(builder.nodes),
        tensors=builder.tensors,
        inputs=("input",),
        outputs=(result.name,),
        metadata=metadata,
    )
    return passes.simplify(graph)


def _export(module: nn.Module, input_shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    kinds = {str(p.dtype).removeprefix("torch.") for p in module.state_dict().values() if p.is_floating_point()}
    if kinds - {"float32"}:
        raise InputError(f"the module holds {', '.join(sorted(kinds))} parameters; give it in float32 (module.float())")
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on its own kernels; what matters is raised
            return torch.export.export(module, (torch.zeros(1, *input_shape),), strict=False)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch.fx")):  # of tracing, not of the module
            raise UnsupportedError(
                f"torch.export cannot follow the module ({_first_line(error)}); "
                "its control flow must not depend on data"
            ) from None
        raise InputError(
            f"the module does not run on an input of shape (1, {_csv(input_shape)}): {_first_line(error)}"
        ) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _csv(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _placeholders(builder: Builder, program: torch.export.ExportedProgram, input_shape: tuple[int, int, int]) -> None:
    signature = program.graph_signature
    stored = {**program.state_dict, **program.constants}
    owner = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in owner:
            tensor = stored[owner[node.name]]
            builder.constants[node] = tensor.detach().to(torch.float32).numpy()
        elif node.op == "placeholder":
            channels, height, width = input_shape
            builder.tensors["input"] = Tensor(name="input", shape=(1, height, width, channels))
            builder.values[node] = Value("input")


def _walk(builder: Builder, program: torch.export.ExportedProgram) -> Value:
    from edgecnn.graph.aten import HANDLERS, SUPPORTED

    faults: list[str] = []
    unknown: set[fx.Node] = set()  # made by something that is not supported, so not looked at further
    for node in program.graph.nodes:
        if node.op == "output":
            result = node.args[0][0]
            break
        if node.op != "call_function":
            continue
        kind = str(node.target).removeprefix("aten.").rpartition(".")[0].rstrip("_") or str(node.target)
        builder.current = node
        if kind not in HANDLERS:
            faults.append(_where(node, kind))
            unknown.add(node)
        elif any(i in unknown for i in node.all_input_nodes):
            unknown.add(node)
        else:
            try:
                made = HANDLERS[kind](builder, node)
                if (
                    str(node.target).split(".")[1].endswith("_")
                ):  # in place: whoever reads the argument later reads this
                    old = builder.value(node.args[0])
                    builder.values.update({k: made for k, v in builder.values.items() if v == old})
                builder.values[node] = made
            except InputError as error:
                faults.append(_where(node, f"{kind}: {error}"))
                unknown.add(node)
    if faults:
        listed = "; ".join(dict.fromkeys(faults))
        raise UnsupportedError(f"the module has what no graph holds: {listed}. Supported: {', '.join(SUPPORTED)}")
    value = builder.values.get(result)
    if value is None:
        raise UnsupportedError("the module's output does not depend on its input")
    if value.chw is not None:
        raise UnsupportedError("the module returns a flattened image; end it with a linear layer or a pooling")
    return value


def _where(node: fx.Node, what: str) -> str:
    """``what`` with the module path and the user's source line."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    path = list(stack.values())[-1][0] or "(the module itself)"
    frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
    library = str(Path(torch.__file__).parent)
    lines = [f"{file}:{line}" for file, line in frames if not file.startswith(library)]
    lines = lines or [f"{Path(file).relative_to(library).as_posix()}:{line}" for file, line in frames]
    return f"{what} in {path}" + (f" at {lines[-1]}" if lines else "")
