"""One line per converter. Each module has ``convert(graph, *, precision, io) -> Emission``; it is imported on use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from edgecnn.artifact import Emission
from edgecnn.errors import InputError, unknown

CONVERTERS = {
    "tflite": "edgecnn_converters.tflite",
}


def converter(target: str) -> Callable[..., Emission]:
    """The ``convert`` function of a target.

    Raises:
        InputError: no such target.
    """
    if target not in CONVERTERS:
        raise InputError(unknown("target", target, CONVERTERS))
    function: Callable[..., Emission] = import_module(CONVERTERS[target]).convert
    return function
