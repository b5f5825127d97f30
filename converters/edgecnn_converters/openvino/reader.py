"""Read OpenVINO IR, ours and others'. The ``.xml`` is parsed as text; no network is built."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from edgecnn.budget import budget
from edgecnn.errors import InputError
from edgecnn.graph.ir import Metadata, QParams
from edgecnn.graph.summary import Layer
from edgecnn_converters.layout import OIHW_TO_OHWI
from edgecnn_converters.metadata import KEY, described
from edgecnn_converters.names import part, part_of
from edgecnn_converters.openvino import format as facts

SHOWN = ("strides", "pads_begin", "pads_end", "dilations", "axis")
SCALES = (facts.SCALE, facts.ZERO_POINT, facts.WEIGHT_SCALE, facts.INPUT_SCALE, facts.UNIT)
DTYPES = {"i8": "int8", "u8": "uint8", "i32": "int32", "i64": "int64", "f32": "float32", "f16": "float16"}


def parse(xml: bytes) -> Any:
    """Return the ``<net>`` element.

    Raises:
        InputError: not OpenVINO IR, or a truncated or corrupt one.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise InputError(f"the OpenVINO .xml is truncated or corrupt ({error}); export it again") from None
    if root.tag != "net" or root.find("layers") is None:
        raise InputError(f"the .xml is no OpenVINO IR: its root is <{root.tag}>, not <net> with <layers>")
    budget().require_count(sum(1 for _ in root.iter("layer")), "layers in the .xml")
    budget().require_count(sum(1 for _ in root.iter("edge")), "edges in the .xml")
    return root


def describe(data: bytes) -> tuple[str, Metadata | None]:
    """Return the precision of an ``.xml``, ours or another's, and what our writer noted in it."""
    root = parse(data)
    note = root.find(f"rt_info/{KEY}")
    record = None if note is None else note.get("value")
    return (guess_precision(root), None) if record is None else described(record)


def guess_precision(root: Any) -> str:
    """Guess the precision of a file that does not say it."""
    kinds = {layer.get("type") for layer in root.iter("layer")}
    stored = {data.get("element_type") for data in root.iter("data") if data.get("size") not in (None, "1", "4", "8")}
    if "FakeQuantize" in kinds:
        return "int8"
    return "w8" if stored & {"i8", "u8"} else "fp16" if "f16" in stored else "fp32"


def constants(root: Any, data: bytes) -> dict[str, NDArray[Any]]:
    """Return every constant by name.

    Raises:
        InputError: the ``.bin`` is shorter than the ``.xml`` says, or a type is not known.
    """
    found, held = {}, 0
    try:
        for layer in root.iter("layer"):
            if layer.get("type") == "Const":
                facts = layer.find("data")
                start, size = int(facts.get("offset")), int(facts.get("size"))
                held += size  # one part of the .bin may be named often
                budget().require(held, "the constants of the .xml", file_bytes=len(data))
                if min(start, size) < 0 or start + size > len(data):
                    raise ValueError(f"{layer.get('name')} ends at byte {start + size} of {len(data)}")
                shape = [int(d) for d in filter(None, (facts.get("shape") or "").split(","))]
                flat = np.frombuffer(data[start : start + size], DTYPES[facts.get("element_type")])
                found[str(layer.get("name"))] = flat.reshape(shape)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"the OpenVINO .bin does not fit its .xml ({error}); export both again") from None
    return found


def integers(xml: bytes, data: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """Return the quantized tensors in the graph's own form; see ``registry.Converter``.

    The scale of an activation comes from the ends of its FakeQuantize, and may be one float32 step off. What only
    moves integers has the grid of its operands.
    """
    root = parse(xml)
    stored = constants(root, data)
    weight_of = _weights_of_biases(root, stored)
    found: dict[str, tuple[QParams, NDArray[Any] | None]] = {}
    for key, values in stored.items():
        name, what = part_of(key)
        if what == facts.LOW:
            found[name] = (facts.parameters(float(values), float(stored[part(name, facts.HIGH)])), None)
        elif what in (facts.INTEGERS, facts.INTEGERS + facts.IN_ORDER):
            if (factor := stored.get(part(name, facts.INPUT_SCALE))) is not None:  # a bias
                own, weights = part(name, facts.WEIGHT_SCALE), part(weight_of.get(name, name), facts.SCALE)
                product = stored[own if own in stored else weights].astype(np.float64) * float(factor)
                scales = product.reshape(-1).astype(np.float32)
            else:
                scales = stored[part(name, facts.SCALE)].reshape(-1)
            zeros = stored.get(part(name, facts.ZERO_POINT))
            points = np.zeros(scales.size, np.int64) if zeros is None else zeros.reshape(-1).astype(np.int64)
            quant = QParams(scale=scales, zero_point=points, dtype=values.dtype.name, axis=0)
            first = zeros is not None and values.ndim == 4 and what == facts.INTEGERS
            values = values.transpose(OIHW_TO_OHWI) if first else values
            found[name] = (quant, _as_graph(values) if zeros is None else values)
    moved = _moved(root)
    found.update({name: (found[operand][0], None) for name, operand in moved.items() if operand in found})
    order = dict.fromkeys(part_of(str(layer.get("name")))[0] for layer in root.iter("layer"))
    return {name: found[name] for name in order if name in found}


def _weights_of_biases(root: Any, stored: Mapping[str, Any]) -> dict[str, str]:
    """Return the weight of the convolution that each bias is added to, by name."""
    layers = {layer.get("id"): str(layer.get("name")) for layer in root.iter("layer")}
    held = defaultdict[str, dict[str, str]](dict)
    for edge in root.iter("edge"):
        source = part_of(layers[edge.get("from-layer")])[0]
        name, what = part_of(layers[edge.get("to-layer")])
        if part(source, facts.INTEGERS) in stored:
            held[name][what] = source
    both = {facts.SUMS, facts.WITH_BIAS}
    return {parts[facts.WITH_BIAS]: parts[facts.SUMS] for parts in held.values() if both <= parts.keys()}


def _moved(root: Any) -> dict[str, str]:
    """Return the tensors whose integers are only moved, and for each the one that has its grid in the file."""
    layers = {layer.get("id"): str(layer.get("name")) for layer in root.iter("layer")}  # as they are computed
    feeds = defaultdict[str, list[str]](list)
    for edge in root.iter("edge"):
        feeds[edge.get("to-layer")].append(edge.get("from-layer"))

    def origin(key: str, name: str) -> str | None:
        """Return the first tensor outside ``name`` that a layer depends on; each layer is looked at once."""
        queue, seen = [key], {key}
        while queue:
            ahead = []
            for source in feeds[queue.pop()]:
                owner = part_of(layers[source])[0]
                if not f"{owner}/".startswith(f"{name}/"):
                    return owner
                if source not in seen:
                    ahead.append(source)
                    seen.add(source)
            queue += reversed(ahead)
        return None

    found: dict[str, str] = {}
    for key, layer in layers.items():
        name = facts.made_by(layer, facts.MOVED)
        operand = None if name is None else origin(key, name)
        if name is not None and operand is not None:
            found[name] = found.get(operand, operand)
    return found


def _as_graph(values: NDArray[Any]) -> NDArray[Any]:
    """Return weights from (O, I, H, W) or (G, O/G, I, H, W) to OHWI, biases to a vector."""
    if values.ndim == 2 and values.dtype == np.int8:
        return values
    if values.dtype in (np.int32, np.int64):
        return values.reshape(-1)
    wide = values.reshape(-1, *values.shape[2:]) if values.ndim == 5 else values
    return np.ascontiguousarray(wide.transpose(OIHW_TO_OHWI))


def layers(xml: bytes, data: bytes) -> list[Layer]:
    """List every operation that computes, with what it costs. Conversions and FakeQuantize are the type; NCHW."""
    root = parse(xml)
    stored = constants(root, data)
    by_id = {layer.get("id"): layer for layer in root.iter("layer")}
    edges = [(e.get("from-layer"), e.get("to-layer")) for e in root.iter("edge")]
    feeds, readers = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for source, target in edges:
        feeds[target].append(source)
        readers[source].append(target)
    behind = _constants_behind(by_id, feeds)
    unseen = {key for key, layer in by_id.items() if part_of(str(layer.get("name")))[1].startswith(facts.UNSEEN)}
    moved = _moved(root)
    found = []
    for key, layer in by_id.items():
        kind = layer.get("type")
        if key in behind or key in unseen or kind in ("Parameter", "Result", "FakeQuantize"):
            continue
        own = [by_id[i].get("name") for source in feeds[key] for i in behind.get(source, ())]
        held = [stored[name] for name in own if part_of(name)[1] not in SCALES]
        weight = next((a for a in held if kind in facts.WEIGHTED), None)
        after = list(readers[key])
        for reader in after:  # which grows
            after += [r for r in dict.fromkeys(readers[reader]) if reader in unseen and r not in after]
        grid = next((by_id[r] for r in after if by_id[r].get("type") == "FakeQuantize"), None)
        owner, what = part_of(layer.get("name"))
        name = facts.made_by(layer.get("name"), facts.MOVED)
        kept = grid is not None or name is not None or kind in facts.WEIGHTED
        if not kept and _is_step(owner, [by_id[r].get("name") for r in after]):
            continue
        if name is None:
            made = (grid if grid is not None else layer).get("name")
            name = facts.made_by(made, facts.QUANTIZED) or made
        ends = owner if what.startswith(facts.ORDERED) else name if grid is not None else ""
        ends = moved.get(ends or name, ends)
        low, high = (stored.get(part(ends, end)) for end in (facts.LOW, facts.HIGH))
        quant = None if low is None or high is None else facts.parameters(float(low), float(high))
        shape = _dimensions(layer, "output/port")
        kernel = () if weight is None else weight.shape[2:] if kind == "GroupConvolution" else weight.shape[1:]
        if kind == "MatMul" and weight is None:  # of two activations
            kernel = _dimensions(layer, "input/port")[-1:]
        found.append(
            Layer(
                op=str(kind),
                name=name,
                output=shape,
                dtype="float32" if grid is None and quant is None else "u8 levels",
                scale=None if quant is None else float(quant.scale[0]),
                zero_point=None if quant is None else int(quant.zero_point[0]),
                weight="" if weight is None else f"{weight.dtype} {'x'.join(map(str, weight.shape))}",
                weight_bytes=sum(a.nbytes for a in held),
                macs=0 if not kernel else int(np.prod(shape) * np.prod(kernel)),
                details=" ".join(f"{k}={v}" for data in layer.findall("data") for k, v in data.items() if k in SHOWN),
            )
        )
    return found


def _is_step(owner: str, readers: list[str]) -> bool:
    """Tell whether a layer that makes a part of a tensor is read by layers that make others of it, and only by them."""
    return bool(owner and readers) and all(f"{part_of(name)[0]}/".startswith(f"{owner}/") for name in readers)


def _dimensions(layer: Any, port: str) -> tuple[int, ...]:
    """Return the shape of the first of a layer's inputs or outputs."""
    return tuple(int(d.text) for d in layer.find(port).iter("dim"))


def _constants_behind(by_id: dict[str, Any], feeds: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the Const layers that each layer is computed from which depends on constants alone."""
    found = {key: {key: None} for key, layer in by_id.items() if layer.get("type") == "Const"}
    size = -1
    while size < len(found):
        size = len(found)
        for key, sources in feeds.items():
            if key not in found and sources and found.keys() >= set(sources):
                found[key] = {constant: None for source in sources for constant in found[source]}  # each once
    return {key: list(constants) for key, constants in found.items()}
