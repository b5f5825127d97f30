"""Check an import: one random input through the original runtime and through the graph, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import DeviceFault, InputError, MissingDependencyError
from edgecnn.graph.importers import Imported, Values
from edgecnn.graph.ir import Graph, Node

if TYPE_CHECKING:
    import torch

LIMIT_LSB = 4  # of integers: runtimes round otherwise than the oracle, and what differs adds up
LIMIT = 1e-4  # largest relative difference: float32 sums in another order differ by less
ROUNDING = 4  # times what float32 rounds away in the graph itself: another order of sums loses as much again
LOCAL = LIMIT / 5  # of what an op makes of the runtime's own values
SEED = 0
PATCH = 8  # pixels, between two independent values of a random image


@dataclass(frozen=True, kw_only=True)
class ImportCheck:
    """Hold how far a graph is from the file that it was imported from.

    Attributes:
        differences: output to ``max|a - b| / max|a|`` on one random input, of a quantized graph to the largest
            difference of integers; ``None`` where it was not compared.
        text: one line that says it, or why it was not compared.
    """

    differences: Mapping[str, float] | None
    text: str


def random_inputs(graph: Graph, seed: int = SEED) -> dict[str, NDArray[np.float32]]:
    """Return random values for every input of a graph, by name.

    An image is smooth but for some noise, as images are: a network has statistics of these, and on white noise its
    activations may be a thousand times as large, and its outputs mostly rounding.
    """
    rng = np.random.default_rng(seed)
    return {name: _random(rng, graph.tensors[name].shape) for name in graph.inputs}


def _random(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    noise = rng.standard_normal(shape).astype(np.float32)
    if len(shape) != 4:
        return noise
    smooth = rng.standard_normal((shape[0], *(size // PATCH + 2 for size in shape[1:3]), shape[3])).astype(np.float32)
    for axis in (1, 2):
        places = np.arange(shape[axis]) / PATCH
        below, share = places.astype(np.int64), (places % 1).astype(np.float32)
        share = share.reshape([-1 if k == axis else 1 for k in range(4)])
        smooth = smooth.take(below, axis) * (1 - share) + smooth.take(below + 1, axis) * share
    made: NDArray[np.float32] = 0.6 * smooth + 0.1 * noise
    return made.astype(np.float32)


def evaluate(
    graph: Graph, inputs: Values, *, keep: bool = False, double: bool = False, given: Values | None = None
) -> dict[str, NDArray[Any]]:
    """Run a float graph on inputs by name; return its outputs, or with ``keep`` every activation, by name.

    Args:
        double: compute in float64.
        given: activations that take the place of those computed, behind the op that makes them.
    """
    from edgecnn.graph.batch import Batch
    from edgecnn.graph.interpreter import TorchGraph, laid_out, tensors

    found: dict[str, NDArray[Any]] = {}

    def observe(name: str, value: torch.Tensor) -> torch.Tensor | None:
        shown = (value.permute(0, 2, 3, 1) if value.ndim == 4 else value).numpy()
        if keep:
            found[name] = shown
        if given is None or name not in given or given[name].shape != shown.shape:
            return None
        return laid_out(np.ascontiguousarray(given[name], shown.dtype))

    fed = tensors(Batch({name: np.array(inputs[name], np.float32) for name in graph.inputs}))
    runnable = TorchGraph(graph)
    if double:
        runnable.constants = {name: value.double() for name, value in runnable.constants.items()}
        fed = {name: value.double() for name, value in fed.items()}
    made = runnable.run(fed, observe)
    return found if keep else {name: value.numpy() for name, value in made.items()}


def check_import(imported: Imported, simplified: Graph) -> ImportCheck:
    """Compare a graph, as it was imported and after it was simplified, with the runtime of its file.

    Of a quantized graph, the oracle's integers are compared.

    Args:
        simplified: the same network after ``passes.simplify``, with outputs in the same order.

    Raises:
        InputError: an output differs by more than ``LIMIT``, or ``LIMIT_LSB``; names the first tensor that does.
        AssertionError: ``simplified`` computes something else: a fault of edgecnn, whatever the file holds.
    """
    graph = imported.graph
    if graph.precision != "fp32":
        return _check_integers(imported)
    if imported.reference is None:
        return ImportCheck(differences=None, text="import: not checked: no runtime is known for the file")
    inputs = random_inputs(graph)
    try:
        wanted = imported.reference(inputs)
    except MissingDependencyError as error:
        return ImportCheck(differences=None, text=f"import: not checked against the original runtime: {error}")
    except (InputError, DeviceFault) as error:
        return ImportCheck(differences=None, text=f"import: not checked: {error}")
    made = evaluate(graph, inputs, keep=True)
    differences = {name: _difference_of(graph, name, wanted, made) for name in graph.outputs}
    if _parts(graph, inputs, wanted, made, differences):
        raise InputError(_parted(graph, wanted, made, differences))
    fed = dict(zip(simplified.inputs, inputs.values(), strict=True))
    after = evaluate(simplified, fed, keep=True)
    changes = {
        name: difference(made[name], after[new], _range(graph, name))
        for name, new in zip(graph.outputs, simplified.outputs, strict=True)
    }
    if _parts(simplified, fed, made, after, dict(zip(simplified.outputs, changes.values(), strict=True))):
        worst = max(changes, key=lambda name: changes[name])
        raise AssertionError(
            f"simplifying the graph changed output {worst!r} by {changes[worst]:.2g}; at most {LIMIT:g} is allowed"
        )
    differences = {name: max(found, changes[name]) for name, found in differences.items()}
    worst = max(differences, key=lambda name: differences[name])
    shown = f"largest relative difference {differences[worst]:.2g}"
    where = f" (output {worst!r})" if len(differences) > 1 else ""
    where += "; the network is that sensitive to float32 rounding" if differences[worst] > LIMIT else ""
    return ImportCheck(
        differences=differences, text=f"import: one random input in the original runtime: {shown}{where}"
    )


def _parts(graph: Graph, inputs: Values, wanted: Values, made: Values, differences: Mapping[str, float]) -> bool:
    """Tell whether an output differs by more than ``LIMIT`` and more than rounding explains, as float64 shows it.

    A deep network can amplify float32 rounding without bound; one op does not. Where most of what the nodes make is
    known, those values take the place of computed ones: each difference is then one of the ops between two of them.

    Args:
        wanted: known activations, by name.
        made: what the graph makes in float32, by name.
        differences: of its outputs.
    """
    if max(differences.values()) <= LIMIT:
        return False
    known = [node.output for node in graph if node.output in wanted]
    if 2 * len(known) < len(graph.nodes):
        exact = evaluate(graph, inputs, keep=True, double=True)
        rounded = {name: ROUNDING * _difference_of(graph, name, exact, made) for name in graph.outputs}
        return any(differences[name] > max(LIMIT, rounded[name]) for name in graph.outputs)
    once, exact = (evaluate(graph, inputs, keep=True, double=double, given=wanted) for double in (False, True))
    for name in known:
        width = _range(graph, name)
        lost = ROUNDING * difference(exact[name], once[name], width)
        if difference(wanted[name], once[name], width) > max(LOCAL, lost):
            return True
    return False


def _check_integers(imported: Imported) -> ImportCheck:
    """Compare the oracle with the runtime of an integer file, on random integers."""
    from edgecnn.graph import oracle

    graph, rng = imported.graph, np.random.default_rng(SEED)
    if imported.reference is None or graph.precision != "int8":
        return ImportCheck(differences=None, text="import: its integers are taken as they are, and were not compared")
    low, high = graph.quant(graph.inputs[0]).limits
    inputs = {n: rng.integers(low, high + 1, graph.tensors[n].shape).astype(np.int8) for n in graph.inputs}
    try:
        wanted = imported.reference(inputs)
    except (MissingDependencyError, InputError, DeviceFault) as error:
        return ImportCheck(differences=None, text=f"import: not checked against the original runtime: {error}")
    shown = {n: _integers(graph, n, wanted[n]) for n in (t.name for t in graph.activations()) if n in wanted}
    made = oracle.run(graph, inputs, keep=tuple(shown))
    gaps = {n: int(np.abs(made[n].astype(np.int64) - values).max()) for n, values in shown.items()}
    differences = {name: float(gaps[name]) for name in graph.outputs}
    worst = max(differences, key=lambda name: differences[name])
    if differences[worst] > LIMIT_LSB:
        first = next(name for name in gaps if gaps[name] > LIMIT_LSB)
        raise InputError(
            f"the imported integers differ from the original runtime by {differences[worst]:.0f} LSB of output "
            f"{worst!r}; at most {LIMIT_LSB} are allowed. The first tensor that parts is of "
            f"{graph.producer(first) or repr(first)}, by {gaps[first]}"
        )
    text = f"import: one random input in the original runtime: largest difference {differences[worst]:.0f} LSB"
    return ImportCheck(differences=differences, text=text)


def _integers(graph: Graph, name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    """Return values of an integer file as the graph's integers: they may be real, or unsigned."""
    if values.dtype.kind == "f":
        return graph.quant(name).quantize(values).astype(np.int64)
    shift = 128 if values.dtype == np.uint8 else 0
    return np.asarray(values, np.int64) - shift


def _computed(graph: Graph, name: str) -> Node | None:
    """Return the node that computes a tensor: behind it there are only moves."""
    node = graph.producer(name)
    while node is not None and node.spec.scale == "same" and len(node.inputs) == 1:
        node = graph.producer(node.inputs[0])
    return node


def _range(graph: Graph, name: str) -> float:
    """Return the width of what the op that computes a tensor returns; 0 where that is not fixed."""
    node = _computed(graph, name)
    return 1.0 if node is not None and node.spec.scale == "fixed" else 0.0


def _difference_of(graph: Graph, name: str, wanted: Values, made: Values) -> float:
    """Return how far an output is from what it should be.

    A sigmoid or softmax that is near 0 everywhere turns absolute differences of what it reads into relative ones. So
    beside its own difference, relative to its range, the difference of what it reads counts.
    """
    node, found = _computed(graph, name), difference(wanted[name], made[name])
    if found <= LIMIT or node is None or not _range(graph, name) or node.inputs[0] not in wanted:
        return found
    read = node.inputs[0]
    return max(difference(wanted[read], made[read]), difference(wanted[name], made[name], _range(graph, name)))


def difference(wanted: NDArray[Any], made: NDArray[Any], least: float = 0.0) -> float:
    """Return ``max|a - b| / max|a|``, or of ``least`` if that is more; infinite where shapes differ, or one is."""
    if wanted.shape != made.shape:
        return float("inf")
    a, b = wanted.astype(np.float64), made.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if not np.isfinite(np.where(same, 0, a - b)).all():
        return float("inf")
    gap = float(np.abs(np.where(same, 0, a - b)).max(initial=0))
    size = max(float(np.abs(np.where(np.isfinite(a), a, 0)).max(initial=0)), least)
    return gap / size if size > 0 else gap


def _parted(graph: Graph, wanted: Values, made: Values, differences: Mapping[str, float]) -> str:
    """Return the message that names the first tensor which differs."""
    both = [t.name for t in graph.activations() if t.name in wanted]
    first = next(name for name in both if difference(wanted[name], made[name]) > LIMIT)
    node = graph.producer(first)
    where = f"{node}" if node is not None else repr(first)
    worst = max(differences, key=lambda name: differences[name])
    gap = difference(wanted[first], made[first])
    return (
        f"the imported graph differs from the original runtime by {differences[worst]:.2g} of output {worst!r}; at "
        f"most {LIMIT:g} is allowed. The first tensor that parts is of {where}, by {gap:.2g}"
    )
