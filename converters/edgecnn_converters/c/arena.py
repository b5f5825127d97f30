"""Place each activation of a graph: in the arena; inputs and outputs where the caller says.

The arena keeps places for those as well, so that an application needs no other memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgecnn.graph.ir import Graph
from edgecnn_converters.c.format import members
from edgecnn_converters.c.lowering import LOWERINGS
from edgecnn_converters.c.planner import Buffer, plan
from edgecnn_converters.names import part

INPUTS, OUTPUTS = "inputs", "outputs"  # the parameters of the C function: structs of pointers


@dataclass(frozen=True, kw_only=True)
class Arena:
    """Places, as C expressions."""

    places: Mapping[str, str]  # of activations
    scratch: Mapping[str, str]  # of what nodes need while they run; only of those that need something
    inputs: Mapping[str, str]  # places in the arena that are kept for the inputs, in the graph's order
    outputs: Mapping[str, str]
    size: int  # in bytes


def allocate(graph: Graph) -> Arena:
    """Plan a graph's memory. Tensors that are one under another shape share a place."""
    homes = _homes(graph)
    first: dict[str, int] = dict.fromkeys(graph.inputs, -1)
    last: dict[str, int] = {}
    for step, node in enumerate(graph.nodes):
        for name in (*node.inputs, node.output):
            if name in homes:
                first.setdefault(homes[name], step)
                last[homes[name]] = step
    last |= dict.fromkeys((homes[name] for name in graph.outputs), len(graph.nodes))
    buffers = [
        Buffer(name=home, size=math.prod(graph.tensors[home].shape), first=step, last=last.get(home, -1))
        for home, step in first.items()
    ]
    leads = {}
    for step, node in enumerate(graph.nodes):
        home, row = homes[node.output], LOWERINGS[node.op]
        if (needed := row.scratch(graph, node)) > 0:
            buffers.append(Buffer(name=_scratch(node.output), size=needed, first=step, last=step))
        for name in node.inputs:
            lone = first[home] == step and name in homes and last[homes[name]] == step
            if lone and (lead := row.lead(graph, node, graph.tensors[name])) is not None:
                leads[home, homes[name]] = lead
    made = plan(buffers, leads)
    where = {name: f"arena + {offset}" for name, offset in made.offsets.items()}
    seen = dict(where)
    for side, names in ((INPUTS, graph.inputs), (OUTPUTS, graph.outputs)):
        seen |= {homes[name]: f"{side}->{member}" for name, member in members(names).items()}
    return Arena(
        places={name: seen[home] for name, home in homes.items()},
        scratch={n.output: where[_scratch(n.output)] for n in graph if _scratch(n.output) in where},
        inputs={name: where[homes[name]] for name in graph.inputs},
        outputs={name: where[homes[name]] for name in graph.outputs},
        size=made.size,
    )


def _scratch(node: str) -> str:
    return part(node, "scratch")


def _homes(graph: Graph) -> dict[str, str]:
    """Map each activation to the first of those that share its place. No input or output shares one with another."""
    homes = {name: name for name in graph.inputs}
    taken = set(homes)
    for node in graph:
        home, leaves = homes.get(node.inputs[0]) if LOWERINGS[node.op].moves else None, node.output in graph.outputs
        homes[node.output] = node.output if home is None or (leaves and home in taken) else home
        if leaves:
            taken.add(homes[node.output])
    return homes
