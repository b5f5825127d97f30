"""Reads OpenVINO IR, ours and others'. The ``.xml`` is parsed as text; no network is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.graph.ir import QParams
from edgecnn.graph.summary import Layer
from edgecnn_converters.layout import OIHW_TO_OHWI

WEIGHTED = ("Convolution", "GroupConvolution", "MatMul")
SHOWN = ("strides", "pads_begin", "pads_end", "dilations", "axis")
SCALES = ("/scale", "/zero_point", "_scale")
DTYPES = {"i8": "int8", "u8": "uint8", "i32": "int32", "i64": "int64", "f32": "float32", "f16": "float16"}


def parse(xml: bytes) -> Any:
    """The ``<net>`` element.

    Raises:
        InputError: not OpenVINO IR, or a truncated or corrupt one.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise InputError(f"the OpenVINO .xml is truncated or corrupt ({error}); export it again") from None
    if root.tag != "net" or root.find("layers") is None:
        raise InputError(f"the .xml is no OpenVINO IR: its root is <{root.tag}>, not <net> with <layers>")
    return root


def noted(root: Any, key: str) -> str | None:
    """What ``rt_info`` holds under a key."""
    info = root.find(f"rt_info/{key}")
    return None if info is None else info.get("value")


def guess_precision(root: Any) -> str:
    """One of ``artifact.PRECISIONS``, from a file that does not say."""
    kinds = {layer.get("type") for layer in root.iter("layer")}
    stored = {data.get("element_type") for data in root.iter("data") if data.get("size") not in (None, "1", "4", "8")}
    if "FakeQuantize" in kinds:
        return "int8"
    return "w8" if stored & {"i8", "u8"} else "fp16" if "f16" in stored else "fp32"


def constants(root: Any, data: bytes) -> dict[str, NDArray[Any]]:
    """Every constant by name.

    Raises:
        InputError: the ``.bin`` is shorter than the ``.xml`` says, or a type is not known.
    """
    found = {}
    try:
        for layer in root.iter("layer"):
            if layer.get("type") == "Const":
                facts = layer.find("data")
                start, size = int(facts.get("offset")), int(facts.get("size"))
                if start + size > len(data):
                    raise ValueError(f"{layer.get('name')} ends at byte {start + size} of {len(data)}")
                shape = [int(d) for d in filter(None, (facts.get("shape") or "").split(","))]
                flat = np.frombuffer(data[start : start + size], DTYPES[facts.get("element_type")])
                found[str(layer.get("name"))] = flat.reshape(shape)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"the OpenVINO .bin does not fit its .xml ({error}); export both again") from None
    return found


def integers(xml: bytes, data: bytes) -> dict[str, tuple[QParams, NDArray[Any] | None]]:
    """The quantized tensors in the graph's own form; see ``edgecnn_converters.tflite.reader.integers``.

    The scale of an activation comes from the ends of its FakeQuantize, and may be one float32 step off.

    Raises:
        InputError: as ``parse`` and ``constants``.
    """
    stored = constants(parse(xml), data)
    found: dict[str, tuple[QParams, NDArray[Any] | None]] = {}
    for key, values in stored.items():
        name, _, part = key.rpartition("/")
        if part == "low":
            low, high = float(values), float(stored[f"{name}/high"])
            scale = (high - low) / 255
            zero = np.array([round(-128 - low / scale)])
            found[name] = (QParams(scale=np.array([scale]), zero_point=zero, dtype="int8"), None)
        elif part == "q":
            if f"{name}/weight_scale" in stored:  # a bias
                product = stored[f"{name}/weight_scale"].astype(np.float64) * float(stored[f"{name}/input_scale"])
                scales = product.reshape(-1).astype(np.float32)
            else:
                scales = stored[f"{name}/scale"].reshape(-1)
            zeros = stored.get(f"{name}/zero_point")
            points = np.zeros(scales.size, np.int64) if zeros is None else zeros.reshape(-1).astype(np.int64)
            quant = QParams(scale=scales, zero_point=points, dtype=values.dtype.name, axis=0)
            found[name] = (quant, _as_graph(values) if zeros is None else values)
    return found


def _as_graph(values: NDArray[Any]) -> NDArray[Any]:
    """Weights from (O, I, H, W) or (G, O/G, I, H, W) to OHWI, biases to a vector."""
    if values.ndim == 2 and values.dtype == np.int8:
        return values
    if values.dtype in (np.int32, np.int64):
        return values.reshape(-1)
    wide = values.reshape(-1, *values.shape[2:]) if values.ndim == 5 else values
    return np.ascontiguousarray(wide.transpose(OIHW_TO_OHWI))


def layers(xml: bytes, data: bytes) -> list[Layer]:
    """Every operation that computes (weights' conversions and FakeQuantize are shown as the type), with what it costs.

    Shapes are as in the file, channels first.

    Raises:
        InputError: as ``parse`` and ``constants``.
    """
    root = parse(xml)
    stored = constants(root, data)
    by_id = {layer.get("id"): layer for layer in root.iter("layer")}
    edges = [(e.get("from-layer"), e.get("to-layer")) for e in root.iter("edge")]
    feeds: dict[str, list[str]] = {}
    readers: dict[str, list[str]] = {}
    for source, target in edges:
        feeds.setdefault(target, []).append(source)
        readers.setdefault(source, []).append(target)
    constant = _constant_layers(by_id, feeds)
    identities = {key for key in by_id if _is_identity(by_id[key], feeds.get(key, ()), by_id, stored)}
    found = []
    for key, layer in by_id.items():
        kind = layer.get("type")
        if key in constant or key in identities or kind in ("Parameter", "Result", "FakeQuantize"):
            continue
        own = [by_id[i] for i in _constants_behind(key, by_id, feeds, constant)]
        held = [stored[c.get("name")] for c in own if not c.get("name").endswith(SCALES)]
        weight = next((a for a in held if kind in WEIGHTED), None)
        near = readers.get(key, [])
        beyond = [r for identity in near if identity in identities for r in readers.get(identity, ())]
        grid = next((by_id[r] for r in (*near, *beyond) if by_id[r].get("type") == "FakeQuantize"), None)
        name = (grid if grid is not None else layer).get("name").removesuffix("/quantized")
        low, high = (stored.get(f"{name}/{end}") for end in ("low", "high"))
        scale = None if grid is None or low is None or high is None else (float(high) - float(low)) / 255
        shape = tuple(int(d.text) for d in layer.find("output/port").iter("dim"))
        kernel = () if weight is None else weight.shape[2:] if kind == "GroupConvolution" else weight.shape[1:]
        found.append(
            Layer(
                op=str(kind),
                name=name,
                output=shape,
                dtype="float32" if grid is None else "u8 levels",
                scale=scale,
                zero_point=None if scale is None or low is None else round(-128 - float(low) / scale),
                weight="" if weight is None else f"{weight.dtype} {'x'.join(map(str, weight.shape))}",
                weight_bytes=sum(a.nbytes for a in held),
                macs=0 if weight is None else int(np.prod(shape) * np.prod(kernel)),
                details=" ".join(f"{k}={v}" for k, v in layer.find("data").items() if k in SHOWN)
                if layer.find("data") is not None
                else "",
            )
        )
    return found


def _is_identity(layer: Any, sources: Sequence[str], by_id: dict[str, Any], stored: dict[str, NDArray[Any]]) -> bool:
    """Whether a layer is the PReLU of slope 1 that ``rows.Emitter`` writes before some FakeQuantizes."""
    if layer.get("type") != "PReLU":
        return False
    slopes = [stored[name] for i in sources if i in by_id and (name := by_id[i].get("name")) in stored]
    return len(slopes) == 1 and bool(np.all(slopes[0] == 1))


def _constant_layers(by_id: dict[str, Any], feeds: dict[str, list[str]]) -> set[str]:
    """Layers that depend on constants alone."""
    known = {key for key, layer in by_id.items() if layer.get("type") == "Const"}
    grown = True
    while grown:
        more = {key for key in by_id if key not in known and feeds.get(key) and set(feeds[key]) <= known}
        known |= more
        grown = bool(more)
    return known


def _constants_behind(key: str, by_id: dict[str, Any], feeds: dict[str, list[str]], constant: set[str]) -> list[str]:
    """The Const layers that a layer reads, through conversions of constants."""
    found: list[str] = []
    pending = [i for i in feeds.get(key, ()) if i in constant]
    while pending:
        current = pending.pop(0)
        if by_id[current].get("type") == "Const":
            found.append(current)
        pending += feeds.get(current, ())
    return found
