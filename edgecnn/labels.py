"""Files of class names: one name per line, or JSON; and files that map a data set's classes to a network's."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgecnn.errors import InputError

FORMS = 'a name per line, a JSON list, or a JSON object of index to name, such as {"0": "cat"}'
MAP_FORMS = 'a JSON object {"class of the data": "label of the network"}, or CSV lines of the two; an index will do'


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names of a file, in the order of the classes.

    A JSON object may be inside another as ``id2label`` (Hugging Face's ``config.json``), and the last of a list of
    names is taken (Keras' ``imagenet_class_index.json``).

    Raises:
        InputError: the file cannot be read, or is of none of ``FORMS``.
    """
    text = _text(path)
    if path.suffix != ".json":
        names: Sequence[Any] = [line.strip() for line in text.rstrip().splitlines()]
    else:
        found = _json(path, text, FORMS)
        found = found.get("id2label", found) if isinstance(found, Mapping) else found
        names = _by_index(found, path) if isinstance(found, Mapping) else found
        names = [each[-1] if isinstance(each, list) and each else each for each in names]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{path} has {len(names)} class names, some of them empty or no text; give {FORMS}")
    return tuple(names)


def read_class_map(path: Path) -> dict[str, str]:
    """Return the network's label, or its index as text, for each class of a data set.

    Raises:
        InputError: the file cannot be read, or is of none of ``MAP_FORMS``.
    """
    text = _text(path)
    if path.suffix == ".json":
        pairs = _json(path, text, MAP_FORMS)
        rows: list[Sequence[Any]] = list(pairs.items()) if isinstance(pairs, Mapping) else []
    else:
        rows = [tuple(word.strip() for word in row) for row in csv.reader(text.splitlines()) if row]
    if not rows or not all(
        len(row) == 2 and all(isinstance(word, str | int) and word != "" for word in row) for row in rows
    ):
        raise InputError(f"{path} is no class map; give {MAP_FORMS}")
    return {str(ours): str(theirs) for ours, theirs in rows}


def labels_of(given: Sequence[str] | str | Path) -> tuple[str, ...]:
    """Return class names, or those of a file; raises as ``read_labels``."""
    return read_labels(Path(given)) if isinstance(given, str | Path) else tuple(given)


def class_map_of(given: Mapping[str, str | int] | str | Path) -> dict[str, str]:
    """Return a class map, or that of a file; raises as ``read_class_map``."""
    return read_class_map(Path(given)) if isinstance(given, str | Path) else {k: str(v) for k, v in given.items()}


def fitting(labels: Sequence[str], outputs: int | None, offset: int) -> tuple[str, ...]:
    """Return a label for each class of a network.

    Args:
        labels: one for each class, or one for each output.
        outputs: of a classifier; ``None`` of another network, where any number will do.
        offset: class ``k`` is output ``k + offset``.

    Raises:
        InputError: there are more or fewer.
    """
    if outputs is None or len(labels) == outputs - offset:
        return tuple(labels)
    if len(labels) == outputs:
        return tuple(labels[offset:])
    wanted = f"{outputs}" + (f", or {outputs - offset} with --label-offset {offset}" if offset else "")
    raise InputError(f"{len(labels)} labels were given, but the network has {outputs} outputs; give {wanted}")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path} ({getattr(error, 'strerror', None) or error}); give UTF-8 text") from None


def _json(path: Path, text: str, forms: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); give {forms}") from None
    if not isinstance(found, list | Mapping):
        raise InputError(f"{path} holds a {type(found).__name__}; give {forms}")
    return found


def _by_index(found: Mapping[str, Any], path: Path) -> list[Any]:
    """Return the values of an object of index to name, or of name to index, in the order of the indices."""
    if found and all(isinstance(value, int) for value in found.values()):  # label2id
        found = {str(index): name for name, index in found.items()}
    if not all(key.isdecimal() for key in found) or sorted(map(int, found)) != list(range(len(found))):
        raise InputError(f"{path}: the indices are not 0 to {len(found) - 1}, each once; give {FORMS}")
    return [found[key] for key in sorted(found, key=int)]
