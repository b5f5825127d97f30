"""The interface of a quantization step, and the registry of all steps (entry points ``edgecnn.steps``).

A step is one file: a frozen dataclass of its settings that says at which stage of quantization it works, what images it
looks at, and how it changes the graph. Modules of steps import torch inside functions: listing recipes must stay light.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from enum import IntEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, ClassVar

from edgecnn.errors import InputError, unknown
from edgecnn.graph.batch import Batch
from edgecnn.graph.contract import check_integers
from edgecnn.graph.ir import Graph, Node, QParams, Quantized
from edgecnn.plugins import registry
from edgecnn.quant.step_checkpoint import StepCheckpoint

if TYPE_CHECKING:
    from edgecnn.quant.observers.histogram import ActivationStatistics
    from edgecnn.quant.recipe import Recipe


class Stage(IntEnum):
    """Say how far the quantization of a graph has come. Steps stand in a recipe in the order of their stages."""

    LOADED, FLOAT, CALIBRATED, SCALED, FINAL, INTEGER, CORRECTED = range(7)

    def __str__(self) -> str:
        return STAGES[self]


STAGES = (
    "a float network of which no image was read yet",
    "a float network",
    "a float network whose activation statistics are known",
    "activations with scales",
    "activation scales that are final",
    "integer weights and biases",
    "weights and biases that were corrected by images",
)
BY_ITSELF = (Stage.FLOAT, Stage.CALIBRATED)  # the pipeline reaches these where a step needs them


def setting(
    default: Any, says: str, *, allowed: Sequence[Any] = (), low: float | None = None, high: float | None = None
) -> Any:
    """Declare a setting of a step: its default, one line for users, and the values that are allowed."""
    return field(default=default, metadata={"says": says, "allowed": allowed, "low": low, "high": high})


@dataclass(frozen=True, kw_only=True)
class Work:
    """Hold a quantization under way.

    Attributes:
        graph: as the steps so far left it.
        recipe: all steps.
        precision: ``int8``, or ``int16x8``.
        images: the first calibration images, as float32 network inputs.
        statistics: of every activation, from ``Stage.CALIBRATED`` on.
        parameters: of activations whose parameters no range decides.
        checkpoint: keeps what takes minutes.
    """

    graph: Graph
    recipe: Recipe
    precision: str = "int8"
    images: Batch = field(default_factory=Batch)
    statistics: Mapping[str, ActivationStatistics] = field(default_factory=dict)
    parameters: Mapping[str, QParams] = field(default_factory=dict)
    checkpoint: StepCheckpoint = field(default_factory=StepCheckpoint)


@dataclass(frozen=True, kw_only=True)
class Step:
    """Transform a graph. A subclass adds its settings, by ``setting``, and ``apply``.

    Attributes:
        name: in recipes; that of the class in small letters.
        says: one line for users: the first of the class's docstring.
        before, after: the stage of the graph that it takes, and of the graph that it leaves.
        limitable: whether it can be limited to layers.
        layers, exclude: patterns (fnmatch) of node names or source paths of the layers that it changes; ``exclude`` is
            ``except`` in TOML.

    Raises:
        InputError: a value of the wrong type, or that is not allowed.
    """

    name: ClassVar[str]
    says: ClassVar[str]
    before: ClassVar[Stage]
    after: ClassVar[Stage]
    limitable: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        if "name" not in vars(cls):
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        cls.says = (cls.__doc__ or "").strip().split("\n")[0].rstrip(".")

    layers: tuple[str, ...] = setting((), "only these layers: patterns of names or source paths")
    exclude: tuple[str, ...] = setting((), "but not these")

    def __post_init__(self) -> None:
        for each in fields(self):
            self._check(each, getattr(self, each.name))
        if (self.layers or self.exclude) and not self.limitable:
            raise InputError(f"step {self.name!r} works on the whole network: it takes no `layers` and no `except`")

    def _check(self, each: Field[Any], value: Any) -> None:
        where, limits = f"step {self.name!r}: {each.name}", each.metadata
        kind = each.type.__name__ if isinstance(each.type, type) else str(each.type)  # a string where it is postponed
        if kind == "tuple[str, ...]":
            value = (value,) if isinstance(value, str) else value
            if not isinstance(value, (list, tuple)) or not all(isinstance(v, str) for v in value):
                raise InputError(f"{where} is {value!r}; it must be a string or a list of strings")
            object.__setattr__(self, each.name, tuple(value))
            return
        if type(value).__name__ != kind and (type(value), kind) != (int, "float"):
            raise InputError(f"{where} is {value!r}, a {type(value).__name__}; it must be a {kind}")
        if limits.get("allowed") and value not in limits["allowed"]:
            if isinstance(value, str):
                raise InputError(f"step {self.name!r}: {unknown(each.name, value, limits['allowed'])}")
            raise InputError(f"{where} {value}; allowed: {', '.join(map(str, limits['allowed']))}")
        low, high = limits.get("low"), limits.get("high")
        if low is not None and not low <= value <= (value if high is None else high):
            allowed = f"at least {low}" if high is None else f"allowed: {low} to {high}"
            raise InputError(f"{where} {value}; {allowed}")

    def images_needed(self, graph: Graph) -> int:
        """Return how many of the first calibration images the step looks at again: its setting ``images``."""
        return int(getattr(self, "images", 0))

    def fixed_parameters(self, graph: Graph) -> Mapping[str, QParams]:
        """Return the parameters of int8 activations that no range decides, by name."""
        return {}

    def apply(self, work: Work) -> Work:
        """Return the work with another graph.

        Raises:
            InputError: the graph lacks what the step needs.
            UnsupportedError: the graph holds what it cannot quantize.
        """
        raise NotImplementedError

    def quick(self) -> Step:
        """Return what stands in for the step where minutes are too long."""
        return self

    def plain(self) -> Step | None:
        """Return what is left of the step in plain rounding to nearest over all that was seen; ``None``: nothing."""
        return None if self.before == self.after or self.after == Stage.CORRECTED else self

    def damped(self) -> Step | None:
        """Return the step with half of its strength; ``None`` where it has none to halve."""
        return None

    def selects(self, node: Node) -> bool:
        """Tell whether the step may change a node, by ``layers`` and ``except``."""
        return (not self.layers or matches(node, self.layers)) and not matches(node, self.exclude)

    def settings(self) -> dict[str, tuple[Any, str]]:
        """Return every setting with what it means, as TOML has them; ``layers`` and ``except`` where they are given."""
        made = {}
        for each in sorted(fields(self), key=lambda each: each.name in ("layers", "exclude")):
            value = getattr(self, each.name)
            if value or each.name not in ("layers", "exclude"):
                key = "except" if each.name == "exclude" else each.name
                made[key] = (list(value) if isinstance(value, tuple) else value, each.metadata["says"])
        return made

    def with_settings(self, **settings: Any) -> Step:
        """Return the step with other settings.

        Raises:
            InputError: it has no such setting, or a value is not allowed.
        """
        known = {"except" if each.name == "exclude" else each.name for each in fields(self)}
        for key in settings:
            if key not in known:
                raise InputError(f"step {self.name!r}: {unknown('setting', key, known)}")
        if "except" in settings:
            settings["exclude"] = settings.pop("except")
        return replace(self, **settings)


def matches(node: Node, patterns: Sequence[str]) -> bool:
    """Tell whether a pattern is, or matches, the name of a node or the path of the module that it came from."""
    names = (node.output, node.source)
    return any(pattern in names or any(fnmatchcase(name, pattern) for name in names) for pattern in patterns)


def steps() -> Mapping[str, type[Step]]:
    """Return all installed steps by name; plugins add some through entry points ``edgecnn.steps``.

    Raises:
        InputError: an entry point is no step, or has another name than its step.
    """
    found = registry("steps", type)
    for name, kind in found.items():
        if not issubclass(kind, Step):
            raise InputError(
                f"edgecnn.steps {name!r} is {kind.__name__}; it must be a subclass of edgecnn.quant.step.Step"
            )
        lacks = [key for key in ("before", "after") if not hasattr(kind, key)]
        lacks += [f"a default of {each.name}" for each in fields(kind) if each.default is MISSING]
        if lacks or kind.name != name:
            wrong = f"lacks {', '.join(lacks)}" if lacks else f"is {kind.name!r} by its class"
            raise InputError(f"step {name!r} of {kind.__module__} {wrong}; mend or uninstall its package")
    return found


def check_order(sequence: Sequence[Step]) -> None:
    """Check that each step finds the graph at the stage that it takes, and that integers come out.

    Raises:
        InputError: names the step and what must come before it, or after.
    """
    stage, last = Stage.LOADED, ""
    for step in sequence:
        if missing := [between for between in range(stage + 1, step.before + 1) if between not in BY_ITSELF]:
            makers = (
                " or ".join(repr(name) for name, kind in steps().items() if kind.before < kind.after == between)
                for between in missing
            )
            raise InputError(f"step {step.name!r} needs {step.before}: put {', then '.join(makers)} before it")
        if step.before < stage:
            raise InputError(
                f"step {step.name!r} needs {step.before}, and {last!r} before it leaves {stage}: "
                f"put {step.name!r} first, or leave it out"
            )
        stage, last = step.after, step.name
    if stage < Stage.INTEGER:
        raise InputError("the steps leave float weights: add 'ranges', 'rounding_safe_scales' and 'weights'")


def check_stage(step: Step, graph: Graph) -> None:
    """Check what a step leaves against the stage that it promises.

    Raises:
        InputError: names the step and what does not hold.
    """
    activations = [isinstance(t, Quantized) for t in graph.activations()]
    weights = [isinstance(t, Quantized) for t in graph.constants()]
    if step.after >= Stage.INTEGER:
        check_integers(graph)
    elif any(weights) or (any(activations) if step.after <= Stage.CALIBRATED else not all(activations)):
        raise InputError(f"step {step.name!r} promises {step.after} and does not leave that; mend the step")
