"""``edgecnn.convert``: a network becomes the file of one runtime."""

from __future__ import annotations

from collections.abc import Sequence

from edgecnn.errors import InputError, UnsupportedError
from edgecnn.graph.execution import with_batch
from edgecnn.graph.ir import Graph
from edgecnn.network import Artifact, Network
from edgecnn_converters.registry import converter, targets_of_all
from edgecnn_targets.devices import select

IO = {"int8": ("int8", "uint8", "float32"), "int16x8": ("int16", "float32")}  # of an artifact's input and output


def convert(
    network: Network,
    target: str,
    *,
    precision: str | None = None,
    io: str | None = None,
    batch: int = 1,
    devices: Sequence[str] = ("host",),
) -> Artifact:
    """Convert a network to the format of a runtime; the integers stay as they are.

    Args:
        network: float, or a ``QuantizedNetwork``.
        target: a name from ``edgecnn targets``: ``tflite``, ``onnx``, ``openvino``, ``c``.
        precision: ``fp16`` of a float network; ``None`` is the network's own.
        io: type of an integer artifact's input and output: ``int8``, ``uint8``, ``int16`` or ``float32``; ``None`` is
            what is usual in the format.
        batch: samples that one inference takes; C has one.
        devices: where it will run: an ONNX file carries activations as they run fastest there.

    Returns:
        The files in memory; ``save`` writes them.

    Raises:
        InputError: no such target or type, or the devices want different files.
        UnsupportedError: the format cannot hold the network; names every node and the reason.
        MissingDependencyError: writing the format needs a library that is not installed.

    Example:
        >>> edgecnn.convert(int8, "tflite", io="uint8").save("out/")
    """
    held = network.precision
    chosen = precision or held
    if chosen not in ((held, "fp16") if held == "fp32" else (held,)):
        raise InputError(f"{network.name} is {held}; convert writes it so{' or as fp16' if held == 'fp32' else ''}")
    row = converter(target)
    row.require(chosen)
    require_io(io, chosen, (target,))
    if batch < 1:
        raise InputError(f"batch {batch}; give at least 1")
    graph = network.graph if batch == 1 else with_batch(network.graph, batch)
    require_supported(graph, (target,), chosen)
    choices = {"io": io} if io is not None else {}
    if "name" in row.options:
        choices["name"] = network.name
    if "activations" in row.options and chosen == "int8":
        choices["activations"] = onnx_activations(devices)
    return Artifact(network=network, converted=row.convert(graph, precision=chosen, **choices))


def formats(target: str) -> tuple[str, ...]:
    """Return the formats that a user names with ``--target``: one, several with commas between, or all.

    Raises:
        InputError: no such target.
    """
    if target == "all":
        return targets_of_all()
    return tuple(converter(name).target for name in dict.fromkeys(target.split(",")))


def require_io(io: str | None, precision: str, targets: Sequence[str]) -> None:
    """Check that artifacts of the precision can have that type outside, in each of the formats.

    Raises:
        InputError: they cannot; names the formats, and what each takes.
    """
    if io is None:
        return
    if io not in (allowed := IO.get(precision, ())):
        has = " or ".join(allowed) or "float32"
        raise InputError(f"--io {io} is for another precision; {precision} has {has} input and output")
    types = {target: converter(target).io.get(precision) for target in targets}
    lacking = [f"{target} takes {' or '.join(has)}" for target, has in types.items() if has and io not in has]
    if lacking:
        instead = "leave --io out, or name another --target"
        raise InputError(f"--io {io} does not fit: in {precision}, {', '.join(lacking)}; {instead}")


def require_supported(graph: Graph, targets: Sequence[str], precision: str) -> None:
    """Check that the formats can hold a network.

    Raises:
        UnsupportedError: one cannot; names every node and the reason.
    """
    faults = [(t, *fault) for t in targets for fault in converter(t).unsupported(graph, precision)]
    if faults:
        raise UnsupportedError("; ".join(f"{target} cannot hold {node}: {reason}" for target, node, reason in faults))


def onnx_activations(devices: Sequence[str]) -> str:
    """Return how an int8 ONNX file carries activations so that the devices run it fastest.

    Raises:
        InputError: no such device, or they want it differently.
    """
    wanted = {device.onnx_activations: device.name for device in select(devices) if "onnx" in device.targets}
    if len(wanted) > 1:
        said = ", ".join(f"{name} wants {kind}" for kind, name in wanted.items())
        raise InputError(f"one ONNX file cannot suit every --device: {said}; export for one of them at a time")
    return next(iter(wanted), "uint8")
