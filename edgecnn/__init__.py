"""edgecnn: quantize a CNN once, emit the same integers for every runtime, and check them on each device.

    net = edgecnn.load("mobilenet_v2", weights="w.safetensors")
    int8 = edgecnn.quantize(net, calibration="images/")
    file = edgecnn.convert(int8, "tflite").save("out/")
    report = edgecnn.validate(file, data="val/", devices=["host", "cortex-a72"], limits=edgecnn.Limits(max_drop=1))

Names are imported when they are used: ``import edgecnn`` imports neither torch nor numpy. What is not in ``__all__`` is
private.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not typing's: before the command handles interrupts, as little as possible is imported
if TYPE_CHECKING:
    from typing import Any

    from edgecnn.benchmarking import benchmark
    from edgecnn.converting import convert
    from edgecnn.errors import DeviceFault, EdgecnnError, InputError, MissingDependencyError, UnsupportedError
    from edgecnn.evaluation.compare import compare
    from edgecnn.evaluation.limits import Limits
    from edgecnn.evaluation.validate import validate
    from edgecnn.exporting import export
    from edgecnn.inspecting import inspect
    from edgecnn.loading import load
    from edgecnn.network import Artifact, Network, QuantizedNetwork
    from edgecnn.preprocess import Preprocess
    from edgecnn.progress import Progress
    from edgecnn.quant.recipe import Recipe
    from edgecnn.quantizing import quantize
    from edgecnn.report.record import Report
    from edgecnn.sweeping.api import sweep

__version__ = "0.2.0"
__all__ = [
    "Artifact", "DeviceFault", "EdgecnnError", "InputError", "Limits", "MissingDependencyError", "Network",
    "Preprocess", "Progress", "QuantizedNetwork", "Recipe", "Report", "UnsupportedError", "benchmark", "compare",
    "convert", "export", "inspect", "load", "quantize", "sweep", "validate",
]  # fmt: skip

_HOMES = {
    "benchmarking": "benchmark",
    "converting": "convert",
    "errors": "DeviceFault EdgecnnError InputError MissingDependencyError UnsupportedError",
    "evaluation.compare": "compare",
    "evaluation.limits": "Limits",
    "evaluation.validate": "validate",
    "inspecting": "inspect",
    "loading": "load",
    "network": "Artifact Network QuantizedNetwork",
    "exporting": "export",
    "preprocess": "Preprocess",
    "progress": "Progress",
    "quant.recipe": "Recipe",
    "quantizing": "quantize",
    "report.record": "Report",
    "sweeping.api": "sweep",
}
_MODULES = {name: f"edgecnn.{module}" for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'edgecnn' has no attribute {name!r}; it has: {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
