"""C: a folder of plain C99 that computes an int8 network by itself, for microcontrollers. ``convert`` writes it.

``NAME.h`` is what an application includes, ``NAME.c`` the kernels used and one function that calls them, and
``NAME_weights.h`` the constants. No malloc, no library; one static arena.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any

from edgecnn.artifact import ConvertedModel
from edgecnn.errors import InputError
from edgecnn.escaping import c_comment, printable
from edgecnn.graph.ir import Graph, Quantized
from edgecnn.graph.summary import layers as layers_of
from edgecnn_converters.c.format import identifier, members, real, record
from edgecnn_converters.c.reader import describe, integers, layers
from edgecnn_converters.layout import ports
from edgecnn_converters.metadata import fields_of
from edgecnn_converters.preconditions import check
from edgecnn_converters.registry import Converter

if TYPE_CHECKING:
    from edgecnn_converters.c.arena import Arena
    from edgecnn_converters.c.lowering import Emitter

FOLDER = "_c"  # ending of the folder that holds the files
HEADER = """\
/* {title}: an int8 network, {shapes}. Written by edgecnn. */
#ifndef {macro}_H
#define {macro}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* real = scale * (integer - zero point) */
{macros}
#define {macro}_ARENA_BYTES {arena} /* static; there is no other memory but the stack */
#define {macro}_CONSTANT_BYTES {constants}

struct {function}_inputs {{ {inputs} }};
struct {function}_outputs {{ {outputs} }};

/* One inference. Inputs and outputs may lie anywhere, and inputs stay as they are, unless they are in the arena. Not
   for two threads at once: they would share the arena. */
void {function}_invoke(const struct {function}_inputs *inputs, const struct {function}_outputs *outputs);

/* Places in the arena for them: they cost no memory. An inference overwrites these inputs, and the next one these
   outputs. */
{places}

#ifdef __cplusplus
}}
#endif

#endif
"""


def convert(graph: Graph, *, precision: str, io: str = "int8", name: str = "network") -> ConvertedModel:
    """Write an int8 graph as C99, bit for bit ``graph.oracle``; see ``registry.Converter``.

    ``name`` is that of the files, and stands in front of every public name in them.
    """
    from edgecnn_converters.c.arena import allocate
    from edgecnn_converters.c.lowering import LOWERINGS, Emitter

    check("C", unsupported, graph, precision, io, ("int8",))
    if printable(name) != name or not {'"', "\\"}.isdisjoint(name):
        raise InputError(
            f'the name {printable(name)!r} cannot stand in an #include of C; leave control characters, " and \\ out'
        )
    planned = allocate(graph)
    emitter = Emitter(graph, planned.places, planned.scratch)
    for node, layer in zip(graph, layers_of(graph), strict=True):
        emitter.begin(asdict(layer))
        LOWERINGS[node.op].write(emitter, node)
    texts = {
        ".c": _source(graph, emitter, name, planned),
        ".h": _header(graph, name, planned.size, emitter.constant_bytes),
        "_weights.h": f"/* The constants of {c_comment(name)}.c. */\n\n" + "\n".join(emitter.constants),
    }
    files = {suffix: text.encode() for suffix, text in texts.items()}
    inputs, outputs = ports(graph, "NHWC", "int8")
    return ConvertedModel(target="c", precision=precision, files=files, folder=FOLDER, inputs=inputs, outputs=outputs)


def _header(graph: Graph, name: str, arena: int, constants: int) -> str:
    function, shapes, macros, places = identifier(name), [], [], []
    fields: dict[str, Any] = {"arena": arena, "constants": constants}
    for side, names, kind in (("input", graph.inputs, "const int8_t"), ("output", graph.outputs, "int8_t")):
        for tensor, member in ((Quantized.of(graph.tensors[key]), member) for key, member in members(names).items()):
            shape, start = " x ".join(map(str, tensor.shape[1:])), f"#define {function}_{side}_{member}".upper()
            macros.append(f"{start.replace('#DEFINE', '#define')}_SIZE {math.prod(tensor.shape)} /* {shape} */")
            macros.append(f"{start.replace('#DEFINE', '#define')}_SCALE {real(tensor.quant.scale[0])}")
            macros.append(f"{start.replace('#DEFINE', '#define')}_ZERO_POINT {tensor.quant.zero_point[0]}")
            places.append(f"int8_t *{function}_{side}_{member}(void);")
        fields[f"{side}s"] = " ".join(f"{kind} *{member};" for member in members(names).values())
        each = (" x ".join(map(str, graph.tensors[key].shape[1:])) for key in names)
        shapes.append(f"{' and '.join(each)} {'in' if side == 'input' else 'out'}")
    fields |= {"shapes": ", ".join(shapes), "macros": "\n".join(macros), "places": "\n".join(places)}
    return HEADER.format(title=c_comment(name), macro=function.upper(), function=function, **fields)


def _source(graph: Graph, emitter: Emitter, name: str, planned: Arena) -> str:
    noted = {
        "inputs": [_noted(Quantized.of(graph.tensors[name])) for name in graph.inputs],
        "outputs": [_noted(Quantized.of(graph.tensors[name])) for name in graph.outputs],
    }
    folder = resources.files(__package__) / "kernels"
    function = identifier(name)
    body = "\n".join(f"  {line}" for line in emitter.calls)
    parts = (
        record(fields_of(graph, "int8", **noted)),
        f'#include "{name}.h"\n#include "{name}_weights.h"',
        *((folder / f"{kernel}.c").read_text("utf-8").strip() for kernel in emitter.kernels),
        "\n".join(emitter.structs),
        f"static int8_t arena[{planned.size}];",
        "\n".join(
            f"int8_t *{function}_{side}_{member}(void) {{ return {places[key]}; }}"
            for side, names, places in (
                ("input", graph.inputs, planned.inputs),
                ("output", graph.outputs, planned.outputs),
            )
            for key, member in members(names).items()
        ),
        f"void {function}_invoke(const struct {function}_inputs *inputs, const struct {function}_outputs *outputs) {{\n"
        f"{body}\n}}",
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _noted(tensor: Quantized) -> dict[str, Any]:
    quant = tensor.quant
    numbers = {"scale": float(quant.scale[0]), "zero_point": int(quant.zero_point[0])}
    return {"name": tensor.name, "shape": tensor.shape, **numbers}


def unsupported(graph: Graph, precision: str) -> list[tuple[str, str]]:
    """List what of the graph the kernels cannot compute, as (node, reason), in order."""
    from edgecnn_converters.c.lowering import LOWERINGS  # and with it the oracle, which no row needs

    source = graph.inputs[0]
    size = graph.tensors[source].shape[0]
    found = [(source, f"a batch of {size}; the function takes one sample: call it {size} times")] if size > 1 else []
    for node in graph:
        row = LOWERINGS.get(node.op)
        known = f"no row for the op {node.op}; rows: {', '.join(sorted(LOWERINGS))}"
        if reason := row.unsupported(graph, node) if row else known:
            found.append((node.output, reason))
    return found


CONVERTER = Converter(
    target="c",
    precisions=("int8",),
    suffixes=(".c", ".h", "_weights.h"),
    convert=convert,
    unsupported=unsupported,
    describe=describe,
    integers=integers,
    layers=layers,
    io={"int8": ("int8",)},
    options=("name",),
    in_all=False,
    folder=FOLDER,
)
