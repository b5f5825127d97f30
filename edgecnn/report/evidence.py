"""What a page shows beside figures: where int8 and fp32 part, layer by layer and image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """Hold the error of one activation in the integer oracle, beside the float network.

    Attributes:
        name: of the tensor.
        op: that makes it, or ``input``.
        sqnr_db: in the network that is quantized as a whole; ``None`` where nothing differs.
    """

    name: str
    op: str
    sqnr_db: float | None


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Hold what one op costs on a device; ``None`` where the device does not say.

    Attributes:
        op, name: as the runtime has them; ops are named after what they make.
        instructions: of one inference.
        cycles: of the core or the NPU.
        ms: by the clock, of several inferences.
        place: what runs it, ``CPU`` or ``NPU``.
    """

    op: str
    name: str
    instructions: int | None = None
    cycles: int | None = None
    ms: float | None = None
    place: str | None = None


def unit_of(costs: Sequence[LayerCost]) -> str:
    """Return what costs are counted in: the field that they have."""
    return next((unit for unit in ("cycles", "instructions") if any(getattr(cost, unit) for cost in costs)), "ms")


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """Count the images that fp32 puts into one class and the artifact into another.

    Attributes:
        fp32, artifact: names of the classes, or their numbers.
        images: how many.
        won, lost: of labelled images, those on which only the artifact is right, and only fp32.
    """

    fp32: str
    artifact: str
    images: int
    won: int | None = None
    lost: int | None = None


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Hold one image on which artifact and fp32 pick different classes.

    Attributes:
        image: its name, or its number in the set.
        fp32, artifact: the classes that they pick.
        label: the right class, where it is known.
        margin: by how much fp32 prefers its class to the artifact's, in steps of its outputs' standard deviation.
        thumbnail: PNG or JPEG, small; empty where the input is no image. It is not in JSON.
    """

    image: str
    fp32: str
    artifact: str
    label: str | None
    margin: float
    thumbnail: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Hold what was collected about one artifact on one device, on request.

    Attributes:
        errors: of each activation, in order; empty where there is no integer oracle.
        costs: of each op, in order; empty where the device does not say.
        changes: pairs of classes that differ, the most frequent first.
        differing: images on which artifact and fp32 pick different classes.
        disagreements: some of these images, those that fp32 was most sure of first.
        recipe: of the quantization, as a file; empty where it is not known.
    """

    errors: tuple[LayerError, ...] = ()
    costs: tuple[LayerCost, ...] = ()
    changes: tuple[ClassChange, ...] = ()
    differing: int = 0
    disagreements: tuple[Disagreement, ...] = ()
    recipe: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values, without the thumbnails."""
        made = asdict(self)
        for row in made["disagreements"]:
            del row["thumbnail"]
        return made
