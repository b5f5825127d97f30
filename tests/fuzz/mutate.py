"""Damage a file: bytes of any, and the parts of one whose structure is known."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

Random = random.Random
INTEGERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**24,
    2**31 - 1,
    -(2**31),
    2**31,
    2**32 - 1,
    2**63 - 1,
)
REALS = (0.0, -0.0, 1e-45, 1e-30, 1.0, -1.0, 1e30, 3.4e38, 1e308, float("inf"), float("-inf"), float("nan"))
TEXTS = (
    "",
    "x",
    "a" * 70000,
    "../../etc/passwd",
    "/dev/zero",
    "\x00",
    "\x1b[2J",
    "\u202e",
    "é/東",
    "nan",
    "-1",
    "1e999",
    "{",
    "%s",
)


def mutated(rng: Random, files: Mapping[str, bytes], main: str, structure: str) -> dict[str, bytes]:
    """Return files of which one, mostly the main one, is damaged in one to four places."""
    name = main if rng.random() < 0.85 else rng.choice(sorted(files))
    data = files[name]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        structured = name == main and structure and rng.random() < 0.7
        data = (STRUCTURES[structure] if structured else damaged)(rng, data)
    return {**files, name: data}


# --- bytes ---


def damaged(rng: Random, data: bytes) -> bytes:
    """Return bytes with a flip, a number, a cut, a copy or a hole somewhere."""
    if not data:
        return rng.randbytes(rng.randrange(64))
    made, at = bytearray(data), rng.randrange(len(data))
    length = min(len(data) - at, rng.choice((1, 2, 4, 8, 64, 1024)))
    how = rng.randrange(8)
    if how == 0:
        made[at] ^= 1 << rng.randrange(8)
    elif how == 1:
        made[at : at + length] = rng.randbytes(length)
    elif how == 2:
        kind, size = rng.choice((("<I", 4), ("<Q", 8), ("<H", 2), (">I", 4), ("B", 1)))
        at -= at % size
        made[at : at + size] = struct.pack(kind, rng.choice(INTEGERS) % 2 ** (8 * size))
    elif how == 3:
        del made[at:]
    elif how == 4:
        del made[at : at + length]
    elif how == 5:
        other = rng.randrange(len(data))
        made[at:at] = data[other : other + length]
    elif how == 6:
        other = rng.randrange(len(data))
        made[at : at + length] = data[other : other + length]
    else:
        made[at : at + length] = bytes([rng.choice((0, 255))]) * length
    return bytes(made)


# --- values ---


def _value(rng: Random, value: Any) -> Any:
    """Return a value in place of another: of its type mostly."""
    if rng.random() < 0.15:
        return rng.choice([None, True, [], {}, [[]], "x", 0, -1, 0.5, 2**70])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((rng.choice(INTEGERS), value + 1, value - 1, -value, value * 2, rng.randrange(-9, 99)))
    if isinstance(value, float):
        return rng.choice((rng.choice(REALS), -value, value * 1e3))
    if isinstance(value, str):
        return rng.choice((rng.choice(TEXTS), value + "x", value[:-1], value.upper()))
    return value


def _in_tree(rng: Random, tree: Any) -> Any:
    """Change one place of a tree of lists and dictionaries, in place; return the tree."""
    if not isinstance(tree, dict | list) or not tree or rng.random() < 0.05:
        return _deep(rng) if rng.random() < 0.02 else _value(rng, tree)
    keys: list[Any] = sorted(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key, how = rng.choice(keys), rng.randrange(10)
    if how == 0:
        del tree[key]
    elif how == 1 and isinstance(tree, list):
        tree.insert(key, tree[rng.choice(keys)])
    elif how == 1:
        tree[rng.choice((rng.choice(TEXTS), f"{key}x"))] = tree[key]
    elif how == 2:
        tree[key] = tree[rng.choice(keys)]
    else:
        tree[key] = _in_tree(rng, tree[key])
    return tree


def _deep(rng: Random) -> Any:
    made: Any = 1
    for _ in range(rng.choice((50, 900))):
        made = [made]
    return made


# --- structures ---


def _json(rng: Random, data: bytes) -> bytes:
    try:
        made = json.dumps(_in_tree(rng, json.loads(data)))
    except (ValueError, RecursionError):
        return damaged(rng, data)
    if rng.random() < 0.03:
        return b"[" * 100_000 if rng.random() < 0.5 else made.encode() * 2
    return made.encode("utf-8", "surrogatepass")


def _text(rng: Random, data: bytes) -> bytes:
    """Change a word of a text: a number, a name, a sign."""
    text = data.decode("utf-8", "replace")
    words = list(re.finditer(r"[\w.+-]+|[^\w\s]", text))
    if not words:
        return damaged(rng, data)
    word = rng.choice(words)
    other = rng.choice((rng.choice(TEXTS), str(rng.choice(INTEGERS)), str(rng.choice(REALS)), rng.choice(words)[0], ""))
    return (text[: word.start()] + other + text[word.end() :]).encode("utf-8", "surrogatepass")


def _toml(rng: Random, data: bytes) -> bytes:
    if rng.random() < 0.03:
        return b"x = " + b"[" * 5000
    return _text(rng, data)


def _xml(rng: Random, data: bytes) -> bytes:
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return damaged(rng, data)
    every = list(root.iter())
    element, how = rng.choice(every), rng.randrange(6)
    if how <= 2 and element.attrib:
        key = rng.choice(sorted(element.attrib))
        same = [other.attrib[key] for other in every if key in other.attrib]
        element.attrib[key] = rng.choice(
            (rng.choice(same), str(rng.choice(INTEGERS)), rng.choice(TEXTS).replace("\0", "0"))
        )
    elif how == 3 and len(element):
        element.remove(rng.choice(list(element)))
    elif how == 4 and len(element):
        element.append(rng.choice(list(element)))
    else:
        element.text = str(rng.choice(INTEGERS))
    return ElementTree.tostring(root)


def _flatbuffer(rng: Random, data: bytes) -> bytes:
    """Change a field of the tables of a TFLite file."""
    import flatbuffers

    from edgecnn_converters.tflite.format import IDENTIFIER, load_schema

    try:
        model = load_schema().ModelT.InitFromPackedBuf(data)
        _in_object(rng, model)
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        return bytes(builder.Output())
    except Exception:  # noqa: BLE001 - not everything can be packed again
        return damaged(rng, data)


def _in_object(rng: Random, item: Any) -> None:
    """Change one field of a table, or of one inside it."""
    import numpy as np

    fields = [key for key, value in vars(item).items() if value is not None] or list(vars(item))
    if not fields:
        return
    key = rng.choice(fields)
    value = getattr(item, key)
    if isinstance(value, list) and value and rng.random() < 0.9:
        inner, how = rng.randrange(len(value)), rng.randrange(8)
        if how == 0:
            del value[inner]
        elif how == 1:
            value.append(value[inner])
        elif hasattr(value[inner], "__dict__"):
            _in_object(rng, value[inner])
        else:
            value[inner] = rng.choice(INTEGERS) % 2**31
    elif isinstance(value, np.ndarray) and value.size:
        made, place = value.copy(), rng.randrange(value.size)
        with np.errstate(all="ignore"):
            whole = rng.choice(INTEGERS) % 2**31 if value.dtype.itemsize > 2 else rng.randrange(128)
            made[place] = whole if value.dtype.kind in "iu" else rng.choice(REALS)
        setattr(item, key, made if rng.random() < 0.8 else made[: rng.randrange(value.size)])
    elif hasattr(value, "__dict__"):
        _in_object(rng, value) if rng.random() < 0.9 else setattr(item, key, None)
    elif isinstance(value, bytes):
        setattr(item, key, rng.choice(TEXTS)[:300].encode())
    elif isinstance(value, int | float):
        setattr(item, key, type(value)(rng.choice((rng.choice(INTEGERS) % 128, value + 1))))
    else:
        setattr(item, key, None)


def _protobuf(rng: Random, data: bytes) -> bytes:
    """Change a field of the messages of an ONNX file."""
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(data)
        _in_message(rng, model)
        return bytes(model.SerializeToString())
    except (DecodeError, ValueError, TypeError, UnicodeError, OverflowError):
        return damaged(rng, data)


def _in_message(rng: Random, message: Any) -> None:
    held = message.ListFields()
    if not held:
        return
    field, value = rng.choice(held)
    repeated = hasattr(value, "append") or hasattr(value, "add")
    if repeated and len(value):
        place, how = rng.randrange(len(value)), rng.randrange(8)
        if how == 0:
            del value[place]
        elif field.message_type is None:
            if how == 1:
                value.append(value[place])
            else:
                value[place] = _scalar(rng, value[place])
        elif how == 1:
            value.add().CopyFrom(value[place])
        elif how == 2:
            value[place].CopyFrom(value[rng.randrange(len(value))])
        else:
            _in_message(rng, value[place])
    elif field.message_type is not None:
        _in_message(rng, value) if rng.random() < 0.9 else message.ClearField(field.name)
    elif rng.random() < 0.1:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(rng, value))


def _scalar(rng: Random, value: Any) -> Any:
    if isinstance(value, bytes):
        return damaged(rng, value)[:100_000]
    if isinstance(value, str):
        return rng.choice(
            (rng.choice(TEXTS), value + "x", rng.choice(("Conv", "Add", "Loop", "Reshape", "Concat", "Pad")))
        )
    if isinstance(value, float):
        return rng.choice(REALS)
    return rng.choice((rng.choice(INTEGERS), value + 1, rng.randrange(20)))


def _zip(rng: Random, data: bytes) -> bytes:
    """Change a member of an archive: its content, its name, whether it is there."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            packed = archive.infolist()[0].compress_type
            members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    except Exception:  # noqa: BLE001 - it is damaged already
        return damaged(rng, data)
    place, how = rng.randrange(len(members)), rng.randrange(8)
    name, content = members[place]
    if how == 0:
        del members[place]
    elif how == 1:
        members[place] = (rng.choice((f"{name}x", "../x", "")), content)
    elif how == 2:
        members[place] = (name, members[rng.randrange(len(members))][1])
    elif how == 3:
        members[place] = (name, content + bytes(rng.choice((1, 1000, 30_000_000))))
    elif name.endswith(".json"):
        members[place] = (name, _json(rng, content))
    else:
        members[place] = (name, damaged(rng, content))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((packed, zipfile.ZIP_DEFLATED))) as archive:
        for each, held in dict(members).items():
            archive.writestr(each or "empty", held)
    return buffer.getvalue()


def _safetensors(rng: Random, data: bytes) -> bytes:
    """Change the header of a safetensors file, and the graph in it."""
    size = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    try:
        header = json.loads(data[8 : 8 + size])
        graph = json.loads(header["__metadata__"]["edgecnn"]) if "edgecnn" in header.get("__metadata__", {}) else None
    except (ValueError, KeyError, AttributeError, TypeError):
        return damaged(rng, data)
    if graph is not None and rng.random() < 0.8:
        header["__metadata__"]["edgecnn"] = json.dumps(_in_tree(rng, graph))
    else:
        header = _in_tree(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + size :]


def _hdf5(rng: Random, data: bytes) -> bytes:
    """Change an attribute or an array of an HDF5 file, or its bytes."""
    if rng.random() < 0.5:
        return damaged(rng, data)
    import h5py
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.h5"
        path.write_bytes(data)
        try:
            with h5py.File(path, "r+") as file:
                names: list[str] = [""]
                file.visit(names.append)
                item = file[rng.choice(names) or "/"]
                if len(item.attrs) and rng.random() < 0.5:
                    key = rng.choice(sorted(item.attrs))
                    value = item.attrs[key]
                    text = value.decode() if isinstance(value, bytes) else value
                    made = (
                        _json(rng, text.encode()).decode("utf-8", "replace")
                        if isinstance(text, str)
                        else rng.choice(INTEGERS[:8])
                    )
                    item.attrs[key] = made
                elif item.name != "/":
                    where, parent = item.name, item.parent
                    leaf = where.rpartition("/")[2]
                    del parent[leaf]
                    how = rng.randrange(4)
                    if how == 0:
                        parent.create_dataset(leaf, shape=(2**20, 2**14), dtype="f4", chunks=(1024, 1024))
                    elif how == 1:
                        parent[leaf] = h5py.SoftLink(rng.choice(names) or "/")
                    elif how == 2:
                        parent[leaf] = rng.choice(
                            [np.zeros(3), np.full((3, 3, 3, 4), np.nan), "text", np.zeros((0, 3))]
                        )
            return path.read_bytes()
        except Exception:  # noqa: BLE001 - it is damaged already
            return damaged(rng, data)


STRUCTURES: Mapping[str, Callable[[Random, bytes], bytes]] = {
    "json": _json, "text": _text, "toml": _toml, "xml": _xml, "flatbuffer": _flatbuffer, "protobuf": _protobuf,
    "zip": _zip, "safetensors": _safetensors, "hdf5": _hdf5,
}  # fmt: skip
