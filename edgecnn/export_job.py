"""What an export is asked for, and whether it can be done: all that is found before work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.converting import onnx_activations, require_io
from edgecnn.data.stored import parts
from edgecnn.errors import EdgecnnError, InputError, MissingDependencyError
from edgecnn.evaluation.limits import Limits
from edgecnn.evaluation.subject import Checking
from edgecnn.files import require_writable
from edgecnn.loading import is_factory, is_file
from edgecnn.network import Network, QuantizedNetwork
from edgecnn.progress import say
from edgecnn.quant.recipe import Recipe
from edgecnn_converters.registry import converter
from edgecnn_targets.registry import runtime

if TYPE_CHECKING:
    from torch import nn

PRECISIONS = {"none": "fp32", "fp16": "fp16", "w8": "w8", "int8": "int8", "int16x8": "int16x8"}  # of --quantize


@dataclass(frozen=True, kw_only=True)
class Job:
    """Hold what an export does.

    Attributes:
        own: arguments of ``load``.
        asked: formats, in the order of the report.
        refused: of those, the errors of what cannot be written.
    """

    model: str | Path | Network | nn.Module
    own: Mapping[str, Any]
    checking: Checking
    asked: Sequence[str]
    precision: str
    recipe: Recipe
    folder: Path
    io: str | None
    batch: int
    data: Any
    labels: Any
    class_map: Mapping[str, str] | str | Path | None
    limit: int | None
    calibration: Any
    calibration_images: int | None
    skip_bad_images: bool
    mixed: bool
    guard: bool
    seed: int
    refused: dict[str, EdgecnnError] = field(default_factory=dict)

    @property
    def targets(self) -> list[str]:
        """Return the formats that are written."""
        return [target for target in self.asked if target not in self.refused]

    @property
    def runs(self) -> bool:
        """Tell whether artifacts are run."""
        return self.data is not None or self.checking.runs_anything


def required(job: Job, quantize: str) -> Job:
    """Check arguments before work starts; return the job with ``train/`` of the data as calibration, where that is it.

    Raises:
        EdgecnnError: as ``export`` says.
    """
    model, precision, places, given = job.model, job.precision, job.checking.devices, job.own.items()
    if isinstance(model, Network) and any(value is not None for _, value in given):
        raise InputError(f"{' and '.join(k for k, v in given if v is not None)} are for load, not for a Network")
    held = isinstance(model, QuantizedNetwork) or (isinstance(model, str | Path) and is_file(str(model)))
    if isinstance(model, str | Path) and not held and not is_factory(str(model)):
        from edgecnn.models import resolve

        resolve(str(model))
    job.refused.update(_missing(job.asked, precision))
    require_io(job.io, precision, job.asked)
    if any("activations" in converter(name).options for name in job.targets):
        onnx_activations(places)
    if job.calibration is None and precision in INTEGER_PRECISIONS:
        job = replace(job, calibration=training_part(job.data))
    require_calibration(job.calibration, precision, quantize, held)
    job.checking.need(job.data)
    if job.mixed:
        require_mixed(precision, job.checking.limits, job.data, job.calibration, job.recipe)
    if job.runs:
        job.checking.places(job.targets, precision)
    require_writable(job.folder)
    return job


def _missing(targets: Sequence[str], precision: str) -> dict[str, EdgecnnError]:
    """Return the errors of the formats whose library is not installed.

    Raises:
        UnsupportedError: a format is not written in the precision.
        MissingDependencyError: no library is installed.
    """
    missing: dict[str, EdgecnnError] = {}
    for target in targets:
        converter(target).require(precision)
        try:
            require_library(target)
        except MissingDependencyError as error:
            missing[target] = error
    if len(missing) == len(targets):
        raise together(missing)
    for lacking in missing.values():
        say(f"warning: {lacking}; the other formats are written")
    return missing


def require_library(target: str) -> None:
    """Check that the library of a format is installed.

    Raises:
        MissingDependencyError: it is not; the message installs it.
    """
    command = runtime(target).missing()
    if command is not None:
        raise MissingDependencyError(f"target {target} needs a library that is not installed: {command}")


def together(refused: Mapping[str, EdgecnnError]) -> EdgecnnError:
    """Return one error, of the first one's kind, that says what all say."""
    first, *_ = refused.values()
    return type(first)("; ".join(map(str, refused.values())))


def training_part(data: Any) -> Any:
    """Return the data, of which ``train/`` is for calibration, where it has such a folder; else ``None``."""
    return data if isinstance(data, str | Path) and parts(Path(data)) else None


def require_calibration(calibration: Any, precision: str, quantize: str, held: bool) -> None:
    """Check that there are images where the precision needs ranges; ``held`` is whether the model may have them.

    Raises:
        InputError: there are none, or some that nothing needs.
    """
    integer = precision in INTEGER_PRECISIONS
    if not integer and calibration is not None:
        raise InputError(f"--calibration is for --quantize int8 and int16x8; {quantize} needs none")
    if integer and calibration is None and not held:
        allowed = "--calibration DIR (some 300 typical images), demo, or none to do without"
        raise InputError(f"{quantize} needs calibration images: pass {allowed}")


def require_mixed(precision: str, limits: Limits, data: Any, calibration: Any, recipe: Recipe) -> None:
    """Check that ``mixed`` has what it works with.

    Raises:
        InputError: it has not.
    """
    if precision != "int8":
        raise InputError(f"--mixed is for --quantize int8: {precision} has no 8-bit activations to keep from")
    if limits.max_drop is None or data is None:
        raise InputError("--mixed keeps layers in 16 bits until a limit holds: pass --max-drop POINTS and --data DIR")
    if calibration is None:
        raise InputError("--mixed ranks the layers and quantizes again: pass --calibration DIR")
    if recipe.setting("int16_promotion", "keep"):
        raise InputError(f"--mixed finds what to keep, and recipe {recipe.name} says it; give one of them")
