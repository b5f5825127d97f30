"""Trace what a module does with one image, aten call by aten call. The tensors have shapes and no data.

``torch.export`` would do as much, after 1.4 s of imports (dynamo, sympy, inductor).
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from edgecnn.errors import UnsupportedError
from edgecnn.graph.meta_kernels import meta_result
from edgecnn.graph.regions import region_of, write_part
from edgecnn.graph.signatures import argument_names, named_results
from edgecnn.graph.traced import Call, Trace, Traced, each, leaves

LIBRARY = f"{Path(torch.__file__).parent}{os.sep}"
CPU = torch.device("cpu")
FAMILIAR = {  # what a user of torch calls the ops that remain when torch has taken a call apart
    "addmm": "linear",
    "bernoulli": "dropout",
    "mm": "linear",
    "max_pool2d_with_indices": "max_pool2d",
    "constant_pad_nd": "pad",
    "view": "reshape",
    "unsafe_view": "reshape",
    "to_copy": "to",
    "local_scalar_dense": "item",
}


class Dataless(torch.Tensor):
    """A tensor that is on the CPU for all who ask, and has a shape but no data.

    Attributes:
        meta: the same for torch's own kernels of shapes; views share its memory, such as it is.
    """

    meta: torch.Tensor
    # Calls go straight on to the tracer, as of a plain tensor. (The stubs have it as another kind of callable.)
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, meta: torch.Tensor) -> Dataless:
        made = torch.Tensor._make_wrapper_subclass(
            cls, meta.shape, strides=meta.stride(), storage_offset=meta.storage_offset(), dtype=meta.dtype, device=CPU
        )
        assert isinstance(made, Dataless)
        made.meta = meta
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        raise RuntimeError(f"{_name(func)} of a tensor that was kept from a capture and has no data")

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]  # torch's stub names none of its keywords
        return f"tensor(..., size={tuple(self.shape)})"

    def _no_data(self, *_: Any, **__: Any) -> Any:
        raise _data_read("numpy, tolist or dlpack")

    numpy = tolist = __array__ = __dlpack__ = _no_data


def _data_read(what: str) -> UnsupportedError:
    line = _line(sys._getframe())
    looks = f"looks at the data of a tensor while it runs ({what}{line and f' at {line}'})"
    return UnsupportedError(f"the module {looks}; its control flow must not depend on data")


def trace(module: nn.Module, input_shapes: Mapping[str, Sequence[int]]) -> Trace:
    """Trace one run on float32 inputs, each of shape (1, *shape). The module is afterwards as it was before.

    Args:
        input_shapes: by name; in the order of the module's arguments, or of the very names of those.

    Raises:
        UnsupportedError: the module asked for the data of a tensor; the message says where.
        RuntimeError, ValueError, TypeError, ...: whatever the module raises where it does not run on the inputs.
    """
    tracer = _Tracer(module)
    parts = [] if isinstance(module, torch.jit.ScriptModule) else list(module.modules())
    before = [(part, dict(vars(part))) for part in parts]
    try:
        for part in parts:
            for kind in ("_parameters", "_buffers"):
                vars(part)[kind] = {k: tracer.stand_in(t) for k, t in vars(part)[kind].items()}
        with torch.no_grad(), _without_fused_attention(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks on its own kernels; what matters is raised
            return tracer.run({k: torch.empty(1, *shape, device="meta") for k, shape in input_shapes.items()})
    finally:
        for part, attributes in before:  # also what a forward keeps on its module: it has no data
            vars(part).clear()
            vars(part).update(attributes)


class _Kept(NamedTuple):
    """A tensor of the run. It is kept, and its storage with it, so that an id and an address stay one tensor's."""

    tensor: torch.Tensor
    storage: torch.UntypedStorage
    memory: int  # the same for all views of one tensor
    moment: Traced


class Part(NamedTuple):
    """Hold what is written of a tensor."""

    whole: torch.Tensor
    before: Traced  # the whole, before the call
    begin: tuple[int, ...]  # of the region, in the whole's dimensions
    sizes: tuple[int, ...]


class _Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves the base untyped
    """Records every aten call of the run, whoever makes it."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.module = module
        self.calls: list[Call] = []
        self.data_read: UnsupportedError | None = None
        self.tensors: dict[int, _Kept] = {}  # by id of the torch tensor
        self.held: set[int] = set()  # memory of what the module holds: no call may write there
        self.read: dict[int, list[Traced]] = {}  # constants that calls read, by their memory
        self.paths: dict[int, list[str]] = {}
        for path, part in module.named_modules(remove_duplicate=False):
            self.paths.setdefault(id(part), []).append(path)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # true imports it

    def stand_in(self, stored: torch.Tensor | None) -> torch.Tensor | None:
        """Return what stands for a parameter or a buffer while the module runs: its data, under another identity."""
        if stored is None:
            return None
        made = stored.detach()
        self._hold(made)
        return made

    def run(self, inputs: Mapping[str, torch.Tensor]) -> Trace:
        """Run the module."""
        given = {name: Dataless(x) for name, x in inputs.items()}
        start = {name: self._keep(x) for name, x in given.items()}
        by_name = len(given) > 1 and set(given) <= set(argument_names(self.module))
        with self:
            made = self.module(**given) if by_name else self.module(*given.values())
        if self.data_read:  # and the module caught the error
            raise self.data_read
        results = {k: self._moment(r) if isinstance(r, torch.Tensor) else None for k, r in named_results(made).items()}
        return Trace(inputs=start, calls=tuple(self.calls), by_name=by_name, results=results)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = {id(t): t for t in leaves((args, kwargs), torch.Tensor)}
        before = {i: self._moment(t) for i, t in given.items()}
        schema = func._schema.arguments
        slots = [*zip(schema, args, strict=False), *((s, kwargs[s.name]) for s in schema if s.name in kwargs)]
        written = list(leaves([v for slot, v in slots if slot.alias_info and slot.alias_info.is_write], torch.Tensor))
        random = torch.Tag.nondeterministic_seeded in func.tags and "attention" not in _name(func)  # has its dropout
        named_slots = {slot.name: value for slot, value in slots}
        if _name(func).startswith("rrelu_with_noise") and not named_slots.get("training"):
            random, written = False, [t for t in written if t is args[0]]  # noise is for training alone
        if not random and _asks_for_a_shape(_name(func)):  # of values that it does not look at
            args, kwargs = each(lambda t: torch.empty(t.shape, dtype=t.dtype), (args, kwargs))
            made = func(*args, **kwargs)
            return self._computed(made.zero_() if "empty" in _name(func) else made)
        known = all(m.constant is not None for m in before.values())
        held = any(self.tensors[id(t)].memory in self.held for t in written)
        parts = {id(t): part for t in written if (part := self._part(t)) is not None}
        fixed = [t for t in written if before[id(t)].constant is not None and id(t) not in parts]
        into_constant = held or (bool(fixed) and not known)
        if known and not random and not held:
            for tensor in written:
                self._save(self.tensors[id(tensor)].memory)
            made = func(*args, **kwargs)
            return self._computed(made.zero_() if _name(func).startswith("empty") else made)
        layout = _layout(args[0]) if written and written[0] is args[0] else ()
        dataless = into_constant or any(isinstance(t, Dataless) for t in given.values())
        made = self._without_data(func, args, kwargs, given) if dataless else func(*args, **kwargs)
        if outputs := list(leaves(made, torch.Tensor)):
            fault = next((m.fault for m in before.values() if m.fault), "")
            same_layout = bool(layout) and _layout(outputs[0]) == layout
            if random:
                fault = "random numbers, at inference"
            elif into_constant and written[0] is args[0]:
                fault = "writes into a parameter, a buffer or a constant"
            elif torch.Tag.inplace_view in func.tags and not (_name(func) == "as_strided_" and same_layout):
                fault = "changes a shape in place"
            elif written and not (_name(func).endswith("_") and written[0] is args[0]):
                fault = "writes into an argument"
            for tensor in written:
                self._save(self.tensors[id(tensor)].memory)
                self._outdate(tensor, constants=not known)
            name, (path, layer), line = _familiar(_name(func), args), self._module(), _line(sys._getframe())
            taken, named = each(lambda t: before[id(t)], (args, kwargs))
            for i, moment in before.items():
                if moment.constant is not None:
                    self.read.setdefault(self.tensors[i].memory, []).append(moment)
            kept = tuple(self._keep(t) for t in outputs)
            self.calls.append(
                Call(
                    name=name,
                    args=taken,
                    kwargs=named,
                    outputs=kept,
                    path=path,
                    layer=layer,
                    line=line,
                    fault=fault,
                    op=func,
                )
            )
            for tensor in written if not fault else ():
                self._spread(tensor)
                if id(tensor) in parts:
                    self._write_back(tensor, parts[id(tensor)])
        return made

    def _computed(self, made: Any) -> Any:
        """Keep what was computed from constants as constants."""
        for tensor in leaves(made, torch.Tensor):
            self._keep(tensor, constant=tensor)
        return made

    def _save(self, memory: int) -> None:
        """Copy the constants of a memory that calls read before it is written."""
        for moment in self.read.pop(memory, []):
            assert moment.constant is not None
            object.__setattr__(moment, "constant", moment.constant.clone())

    def _hold(self, tensor: torch.Tensor) -> Traced:
        """Begin with a tensor that the module holds."""
        self.held.add(tensor.untyped_storage()._cdata)
        return self._keep(tensor, constant=tensor.detach())

    def _without_data(self, func: Any, args: Any, kwargs: Any, given: dict[int, torch.Tensor]) -> Any:
        """Return the shapes of the result; an argument that comes back is the one that was given."""
        meta = {i: t.meta if isinstance(t, Dataless) else torch.empty_like(t, device="meta") for i, t in given.items()}
        inputs, named = each(lambda t: meta[id(t)], (args, kwargs))
        if kwargs.get("device"):
            named["device"] = "meta"
        name, made = _name(func), None
        if not kwargs and all(t.dtype == torch.float32 for t in given.values()):
            made = meta_result(name.removesuffix("_"), inputs)
            if name.endswith("_"):
                made = inputs[0] if isinstance(made, torch.Tensor) and made.shape == inputs[0].shape else None
        if made is None:
            try:
                made = func(*inputs, **named)
            except RuntimeError as error:
                # how torch says that the op needs data: no meta kernel, or one that names the device in its refusal
                if isinstance(error, NotImplementedError) or re.search(r"\bmeta\b", str(error)):
                    self.data_read = _data_read(_familiar(name, args))
                    raise self.data_read from None
                zeros = each(lambda t: torch.zeros(t.shape, dtype=t.dtype), (inputs, named))
                func(*zeros[0], **zeros[1])  # the kernels that users know say it in other words
                raise
        back = {id(m): given[i] for i, m in meta.items()}
        return each(lambda t: back[id(t)] if id(t) in back else Dataless(t), made)

    def _keep(self, tensor: torch.Tensor, constant: torch.Tensor | None = None, fault: str = "") -> Traced:
        """Begin a moment of a tensor."""
        moment = Traced(shape=tuple(tensor.shape), constant=constant, fault=fault, dtype=tensor.dtype)
        storage = tensor.untyped_storage()
        memory = tensor.meta.untyped_storage()._cdata if isinstance(tensor, Dataless) else storage._cdata
        self.tensors[id(tensor)] = _Kept(tensor, storage, memory, moment)
        return moment

    def _moment(self, tensor: torch.Tensor) -> Traced:
        """Return what a tensor is now. One that no call made is held by the module."""
        kept = self.tensors.get(id(tensor))
        if kept is None:
            return self._hold(tensor)
        if tensor.untyped_storage()._cdata != kept.storage._cdata:
            return self._keep(tensor, fault="reads a tensor whose data was replaced (.data = ...)")
        return kept.moment

    def _part(self, written: torch.Tensor) -> Part | None:
        """Return what tells which part of another tensor is written, where that tensor is all of its memory."""
        mine = self.tensors[id(written)]
        for kept in self.tensors.values():
            if kept.memory == mine.memory and kept.tensor is not written and not kept.moment.fault:
                region = region_of(_geometry(written), _geometry(kept.tensor), _held(kept.tensor))
                if region is not None:
                    return Part(kept.tensor, kept.moment, *region)
        return None

    def _spread(self, tensor: torch.Tensor) -> None:
        """Let tensors that are the same memory in the same shape be what this one is now."""
        mine, geometry = self.tensors[id(tensor)], _geometry(tensor)
        for i, kept in self.tensors.items():
            if kept.memory == mine.memory and _geometry(kept.tensor) == geometry:
                self.tensors[i] = kept._replace(moment=mine.moment)

    def _write_back(self, written: torch.Tensor, part: Part) -> None:
        """Begin a moment of the tensor of which a part was written: a call of ours makes it of the two."""
        made = self._keep(part.whole)
        object.__setattr__(made, "constant", None)
        if part.before.constant is not None:
            self.read.setdefault(self.tensors[id(part.whole)].memory, []).append(part.before)
            object.__setattr__(part.before, "constant", part.before.constant.clone())
        last = self.calls[-1]
        given = (part.before, self.tensors[id(written)].moment, part.begin, part.sizes)
        self.calls.append(
            replace(last, name="write_part", args=given, kwargs={}, outputs=(made,), fault="", op=write_part)
        )
        self._spread(part.whole)

    def _outdate(self, written: torch.Tensor, *, constants: bool = False) -> None:
        """Mark all tensors that share memory with a written one: their values are others now, so none may be read."""
        memory = self.tensors[id(written)].memory
        for kept in list(self.tensors.values()):
            if kept.memory == memory and (constants or kept.moment.constant is None):
                self._keep(kept.tensor, fault="reads a tensor that shares memory with one changed in place")

    def _module(self) -> tuple[str, str]:
        """Return the path of the innermost module of the network that runs, and its class if that is torch's."""
        running = [f.f_locals["self"] for f in _frames(sys._getframe()) if f.f_code is nn.Module._call_impl.__code__]
        path, layer = "", ""
        for module in reversed(running):
            if paths := self.paths.get(id(module)):
                path = next((p for p in paths if p.startswith(f"{path}.")), paths[0])
                torchs = type(module).__module__.startswith("torch.nn.modules.")
                layer = type(module).__name__ if torchs else ""
        return path, layer


@contextmanager
def _without_fused_attention() -> Iterator[None]:
    """Let torch's attention layers run by ops that are known, not by one fused kernel for inference."""
    mha: Any = torch.backends.mha
    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)


def _asks_for_a_shape(name: str) -> bool:
    """Tell whether an op reads only the shapes of its tensors: ``zeros_like``, ``new_ones``."""
    return name.endswith("_like") or name.startswith("new_")


def _held(tensor: torch.Tensor) -> int:
    """Return how many elements a tensor's memory has."""
    held = tensor.meta if isinstance(tensor, Dataless) else tensor
    return held.untyped_storage().nbytes() // held.itemsize


def _geometry(tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return shape, strides and offset."""
    held = tensor.meta if isinstance(tensor, Dataless) else tensor
    return tuple(held.shape), tuple(held.stride()), int(held.storage_offset())


def _layout(tensor: torch.Tensor) -> tuple[Any, ...]:
    """Return what tells where each element lies: the shape, and the strides of dimensions of several elements."""
    held = tensor.meta if isinstance(tensor, Dataless) else tensor
    strides = tuple(s for s, d in zip(held.stride(), held.shape, strict=True) if d > 1)
    return tuple(held.shape), strides, held.storage_offset()


def _name(func: Any) -> str:
    """Return ``add_`` of ``aten::add_.Tensor``."""
    return str(func._schema.name).removeprefix("aten::")


def _familiar(name: str, args: tuple[Any, ...]) -> str:
    if name in ("convolution", "_convolution"):
        return f"conv{'_transpose' if args[6] else ''}{len(args[1].shape) - 2}d"
    name = name.strip("_").removeprefix("native_").removesuffix("_kernel")
    return FAMILIAR.get(name, name)


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield frames from the innermost outwards, as far as the module's run; none of this file."""
    while frame is not None and frame.f_code is not _Tracer.run.__code__:
        if frame.f_code.co_filename != __file__:
            yield frame
        frame = frame.f_back


def _line(frame: FrameType | None) -> str:
    """Return the innermost line that is not torch's; if there is none, the line of the innermost module's forward."""
    inner, forward = "", ""
    for near in _frames(frame):
        file = near.f_code.co_filename
        if not file.startswith(LIBRARY):
            return f"{file}:{near.f_lineno}"
        if near.f_code is nn.Module._call_impl.__code__:
            forward = forward or inner
        inner = f"{Path(file).relative_to(LIBRARY).as_posix()}:{near.f_lineno}"
    return forward
