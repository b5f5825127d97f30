"""C: a folder of plain C99 that computes an int8 network by itself, for microcontrollers. ``convert`` writes it.

``NAME.h`` is what an application includes, ``NAME.c`` the kernels used and one function that calls them, and
``NAME_weights.h`` the constants. No malloc, no library; one static arena.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib import resources
from typing import Any

from numpy.typing import NDArray

from edgecnn.artifact import Emission, Port
from edgecnn.graph.ir import Graph, Metadata, QParams, Tensor
from edgecnn.graph.summary import Layer
from edgecnn.graph.summary import layers as layers_of
from edgecnn_converters.c import reader
from edgecnn_converters.c.memory import Memory, memory
from edgecnn_converters.c.rows import ROWS, Emitter
from edgecnn_converters.c.text import identifier, real, record
from edgecnn_converters.request import check_request, refuse

__all__ = ["convert", "describe", "integers", "layers", "unsupported"]
HEADER = """\
/* {title}: an int8 network, {input_shape} in, {output_shape} out. Written by edgecnn. */
#ifndef {macro}_H
#define {macro}_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {macro}_INPUT_SIZE {input_size} /* {input_shape} */
#define {macro}_INPUT_SCALE {input_scale} /* real = scale * (integer - zero point) */
#define {macro}_INPUT_ZERO_POINT {input_zero}
#define {macro}_OUTPUT_SIZE {output_size} /* {output_shape} */
#define {macro}_OUTPUT_SCALE {output_scale}
#define {macro}_OUTPUT_ZERO_POINT {output_zero}
#define {macro}_ARENA_BYTES {arena} /* static; there is no other memory but the stack */
#define {macro}_CONSTANT_BYTES {constants}

/* One inference. Input and output may lie anywhere, and the input stays as it is, unless they are in the arena. Not for
   two threads at once: they would share the arena. */
void {function}_invoke(const int8_t *input, int8_t *output);

/* Places in the arena for them: they cost no memory. An inference overwrites this input, and the next this output. */
int8_t *{function}_input(void);
int8_t *{function}_output(void);

#ifdef __cplusplus
}}
#endif

#endif
"""


def convert(graph: Graph, *, precision: str, io: str = "int8", name: str = "network") -> Emission:
    """Write a graph as C99, bit for bit ``quant.reference``. The same graph and name give the same bytes.

    Args:
        graph: full int8, one input, one output.
        precision: ``int8``.
        io: ``int8``.
        name: of the files, and in front of every public name in them.

    Raises:
        InputError: the graph is not int8, or breaks the numerics contract.
        UnsupportedError: it holds what the kernels cannot compute; all of it is listed.
    """
    check_request(graph, precision, io, ("int8",))
    refuse("C", unsupported(graph, precision))
    planned = memory(graph)
    emitter = Emitter(graph, planned.places, planned.scratch)
    for node, layer in zip(graph, layers_of(graph), strict=True):
        emitter.begin(asdict(layer))
        ROWS[node.op].write(emitter, node)
    source, result = (graph.tensors[n] for n in (graph.inputs[0], graph.outputs[0]))
    files = {
        ".c": _source(graph, emitter, name, planned),
        ".h": _header(source, result, name, planned.arena, emitter.constant_bytes),
        "_weights.h": f"/* The constants of {name}.c. */\n\n" + "\n".join(emitter.constants),
    }
    return Emission(
        target="c",
        precision=precision,
        files={suffix: text.encode() for suffix, text in files.items()},
        folder="_c",
        input=_port(source),
        output=_port(result),
    )


def _header(source: Tensor, result: Tensor, name: str, arena: int, constants: int) -> str:
    fields: dict[str, Any] = {"arena": arena, "constants": constants}
    for side, tensor in (("input", source), ("output", result)):
        port = _port(tensor)
        fields[f"{side}_size"] = math.prod(tensor.shape)
        fields[f"{side}_shape"] = " x ".join(map(str, tensor.shape[1:]))
        fields[f"{side}_scale"], fields[f"{side}_zero"] = real(port.scale or 0.0), port.zero_point
    function = identifier(name)
    return HEADER.format(title=name, macro=function.upper(), function=function, **fields)


def _source(graph: Graph, emitter: Emitter, name: str, planned: Memory) -> str:
    grid = graph.tensors[graph.inputs[0]].quant
    assert grid is not None
    noted = {"name": graph.inputs[0], "scale": float(grid.scale[0]), "zero_point": int(grid.zero_point[0])}
    fields = {"precision": "int8", "input": noted, **graph.metadata.to_json()}
    folder = resources.files(__package__) / "kernels"
    kernels = [(folder / f"{kernel}.c").read_text("utf-8") for kernel in emitter.kernels]
    function = identifier(name)
    body = "\n".join(f"  {line}" for line in emitter.calls)
    parts = (
        record(fields),
        f'#include "{name}.h"\n#include "{name}_weights.h"',
        *(kernel.strip() for kernel in kernels),
        "\n".join(emitter.structs),
        f"static int8_t arena[{planned.arena}];",
        f"int8_t *{function}_input(void) {{ return {planned.input}; }}",
        f"int8_t *{function}_output(void) {{ return {planned.output}; }}",
        f"void {function}_invoke(const int8_t *input, int8_t *output) {{\n{body}\n}}",
    )
    return "\n\n".join(filter(None, parts)) + "\n"


def _port(tensor: Tensor) -> Port:
    assert tensor.quant is not None
    return Port(
        name=tensor.name,
        shape=tensor.shape,
        layout="NHWC" if len(tensor.shape) == 4 else "NC",
        dtype="int8",
        scale=float(tensor.quant.scale[0]),
        zero_point=int(tensor.quant.zero_point[0]),
    )


def unsupported(graph: Graph, precision: str) -> list[tuple[str, str]]:
    """What of the graph the kernels cannot compute: (node, reason), in order. Empty when all of it can be written."""
    found = []
    for node in graph:
        row = ROWS.get(node.op)
        reason = row.obstacle(graph, node) if row else f"no row for the op {node.op}; rows: {', '.join(sorted(ROWS))}"
        if reason:
            found.append((node.output, reason))
    return found


def describe(data: bytes) -> tuple[str, Metadata | None]:
    """See ``edgecnn_converters.c.reader.describe``."""
    return reader.describe(data)


def integers(source: bytes, header: bytes, weights: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """See ``edgecnn_converters.c.reader.integers``."""
    return reader.integers(source, weights)


def layers(source: bytes, header: bytes, weights: bytes) -> list[Layer]:
    """See ``edgecnn_converters.c.reader.layers``."""
    return reader.layers(source)
