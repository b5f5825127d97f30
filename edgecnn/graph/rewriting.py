"""A graph in which nodes are replaced one by one, and the driver of the rules that do it.

``Graph`` checks every node whenever one is made. A draft is checked once, when it is a graph again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.graph.ir import Attr, Constant, Graph, Node, Tensor
from edgecnn.graph.ops import make_node, output_shape

Rule = Callable[["Draft", Node], bool]
"""Looks at a node, changes the draft where it applies, and tells whether it did."""


class Draft:
    """Nodes by their output's name, tensors, and who reads what.

    Attributes:
        nodes: in no particular order once something was replaced; ``graph`` sorts them.
    """

    def __init__(self, graph: Graph) -> None:
        self.original = graph
        self.nodes: dict[str, Node] = {n.output: n for n in graph.nodes}
        self.tensors: dict[str, Tensor] = dict(graph.tensors)
        self.outputs = list(graph.outputs)
        self._readers: dict[str, dict[str, None]] = {}
        for node in graph.nodes:
            self._note(node)

    # --- look ---

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.tensors[name].shape

    def readers(self, name: str) -> list[Node]:
        """Return the nodes that read a tensor."""
        return [self.nodes[k] for k in self._readers.get(name, ())]

    def only_reader(self, name: str) -> Node | None:
        """Return the one node that reads a tensor, or ``None`` if there are others or it is an output."""
        readers = self._readers.get(name, {})
        return self.nodes[next(iter(readers))] if len(readers) == 1 and name not in self.outputs else None

    def producer(self, name: str, op: str = "") -> Node | None:
        """Return the node that makes a tensor, where it is of an op."""
        node = self.nodes.get(name)
        return node if node is not None and op in ("", node.op) else None

    def value(self, name: str) -> NDArray[np.float32] | None:
        """Return the value of a constant, or ``None`` for an activation."""
        tensor = self.tensors[name]
        return tensor.value if isinstance(tensor, Constant) else None

    def alone(self, name: str) -> bool:
        """Tell whether one node reads a constant."""
        return len(self._readers.get(name, ())) == 1

    # --- change ---

    def put(self, op: str, inputs: Sequence[str], output: str, like: Node, **attrs: Attr) -> None:
        """Let another node make a tensor; its source is that of ``like``."""
        self.place(make_node(op, tuple(inputs), output, like.source, **attrs))

    def place(self, node: Node) -> None:
        """Let a node make its output, in place of the one that did, whatever its shape was."""
        before = self.nodes.get(node.output)
        if before is not None:
            self._forget(before)
        self.nodes[node.output] = node
        self._note(node)
        shape = output_shape(node, [self.shape(i) for i in node.inputs])
        if before is None or self.shape(node.output) != shape:
            self.tensors[node.output] = Tensor(name=node.output, shape=shape)
        for read in before.inputs if before is not None else ():
            self.drop(read)

    def add(self, op: str, inputs: Sequence[str], like: Node, **attrs: Attr) -> str:
        """Add a node, named after another one; return the name of its output."""
        name = self._unique(f"{like.output}.{op}")
        self.put(op, inputs, name, like, **attrs)
        return name

    def constant(self, value: NDArray[Any], like: str) -> str:
        """Add a constant, named after another tensor; return its name."""
        name = self._unique(f"{like}.constant")
        self.tensors[name] = Constant(name=name, value=np.ascontiguousarray(value, np.float32))
        return name

    def set(self, name: str, value: NDArray[Any]) -> None:
        """Change a constant."""
        self.tensors[name] = Constant(name=name, value=np.ascontiguousarray(value, np.float32))

    def bypass(self, name: str, by: str) -> bool:
        """Drop the node that makes ``name``; what reads it reads ``by``. Not where two outputs would be one tensor."""
        if name in self.outputs and (by in self.outputs or by not in self.nodes):
            return False
        for reader in self.readers(name):
            self._forget(reader)
            self.nodes[reader.output] = replace(reader, inputs=tuple(by if i == name else i for i in reader.inputs))
            self._note(self.nodes[reader.output])
        self.outputs = [by if o == name else o for o in self.outputs]
        self.drop(name)
        return True

    def drop(self, name: str) -> None:
        """Drop a node, if it is there and nothing reads it, and then those that only it read."""
        if name in self.nodes and not self._readers.get(name) and name not in self.outputs:
            node = self.nodes.pop(name)
            self._forget(node)
            del self.tensors[name]
            for read in node.inputs:
                self.drop(read)

    def rename(self, node: Node, second: Node, **attrs: Attr) -> bool:
        """Let a node with other attributes make what ``second``, its only reader, made, under the node's name."""
        if not self.bypass(second.output, node.output):
            return False
        self.place(replace(node, attrs={**node.attrs, **attrs}))
        return True

    def graph(self) -> Graph:
        """Return the graph, nodes sorted, without nodes and constants that no output depends on."""
        order = list(self._sorted())
        needed = {*self.original.inputs, *(n for node in order for n in (node.output, *node.inputs))}
        tensors = {k: t for k, t in self.tensors.items() if k in needed}
        return replace(self.original, nodes=tuple(order), tensors=tensors, outputs=tuple(self.outputs))

    def _sorted(self) -> Iterator[Node]:
        """Yield the nodes that outputs need, each after what it reads, otherwise in the order that they have."""
        place = {name: k for k, name in enumerate(self.nodes)}
        needed: set[str] = set()
        waiting = [o for o in self.outputs if o in self.nodes]
        while waiting:
            name = waiting.pop()
            if name not in needed:
                needed.add(name)
                waiting.extend(i for i in self.nodes[name].inputs if i in self.nodes)
        done: set[str] = set()
        for name in sorted(needed, key=place.__getitem__):
            stack = [name]
            while stack:
                last = stack[-1]
                missing = [i for i in self.nodes[last].inputs if i in needed and i not in done]
                if missing and last not in done:
                    stack.extend(missing)
                    continue
                stack.pop()
                if last not in done:
                    done.add(last)
                    yield self.nodes[last]

    def _note(self, node: Node) -> None:
        for name in node.inputs:
            self._readers.setdefault(name, {})[node.output] = None

    def _forget(self, node: Node) -> None:
        for name in node.inputs:
            self._readers[name].pop(node.output, None)

    def _unique(self, name: str) -> str:
        made, k = name, 0
        while made in self.tensors:
            k += 1
            made = f"{name}_{k}"
        return made


def apply(graph: Graph, rules: Sequence[Rule]) -> Graph:
    """Apply rules to every node until none changes anything."""
    draft = Draft(graph)
    changed = True
    while changed:
        changed = False
        for name in list(draft.nodes):
            for rule in rules:
                node = draft.nodes.get(name)
                if node is not None and rule(draft, node):
                    changed = True
    return draft.graph()
