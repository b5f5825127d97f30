"""Four ways from N channels to N channels: what each costs, beside what theory says, and on a device.

Sources: depthwise separable, Howard et al. 2017 (arXiv:1704.04861, section 3.1: the ratio 1/N + 1/k**2); bottleneck,
He et al. 2016 (arXiv:1512.03385, fig. 5 right); inverted residual, Sandler et al. 2018 (arXiv:1801.04381, table 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from edgecnn.converting import convert
from edgecnn.errors import InputError
from edgecnn.evaluation.validate import validate
from edgecnn.loading import load
from edgecnn.preprocess import Preprocess
from edgecnn.progress import Progress
from edgecnn.quantizing import quantize
from edgecnn_targets.devices import device
from edgecnn_targets.registry import kind_of, require

REDUCTION = 4  # of a bottleneck's channels


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Set what all four blocks have in common.

    Attributes:
        channels: of the input and the output; a multiple of 4.
        side: of the map, in pixels.
        kernel: odd.
        expand: of the inverted residual.

    Raises:
        InputError: a value that is not allowed.
    """

    channels: int = 64
    side: int = 28
    kernel: int = 3
    expand: int = 6

    def __post_init__(self) -> None:
        if self.channels % REDUCTION:
            raise InputError(f"{self.channels} channels: the bottleneck needs a multiple of {REDUCTION}")
        if self.kernel % 2 == 0:
            raise InputError(f"kernel {self.kernel}: an even one has no middle; take an odd one")


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One block.

    Attributes:
        block: its name.
        parameters: weights of its convolutions (batch norm folds away).
        macs: multiply-accumulates for one map.
        ratio: its MACs over those of the standard convolution.
        theory: the same, from the formula.
        formula: of the ratio; N channels, kernel k, expansion t.
        instructions: of one int8 inference on the device; ``None`` without one.
        instruction_ratio: over those of the standard convolution.
    """

    block: str
    parameters: int
    macs: int
    ratio: float
    theory: float
    formula: str
    instructions: int | None = None
    instruction_ratio: float | None = None


class _Shortcut(nn.Sequential):
    """Layers in a row, plus the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same."""
        out: torch.Tensor = x + super().forward(x)  # type: ignore[no-untyped-call]  # torch's stub
        return out


def _conv(inputs: int, outputs: int, kernel: int, *, depthwise: bool = False, act: bool = True) -> nn.Sequential:
    groups = inputs if depthwise else 1
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, *([nn.ReLU6()] if act else []))


def blocks(setting: Setting) -> dict[str, tuple[nn.Module, float, str]]:
    """Map names to module, the theoretical ratio of MACs to a standard convolution's, and its formula."""
    n, k, t = setting.channels, setting.kernel, setting.expand
    inner, hidden = n // REDUCTION, n * t
    return {
        "standard": (nn.Sequential(_conv(n, n, k)), 1.0, "1"),
        "depthwise separable": (
            nn.Sequential(_conv(n, n, k, depthwise=True), _conv(n, n, 1)),
            1 / n + 1 / k**2, "1/N + 1/k^2",
        ),
        "bottleneck": (
            _Shortcut(_conv(n, inner, 1), _conv(inner, inner, k), _conv(inner, n, 1, act=False)),
            2 / (REDUCTION * k**2) + 1 / REDUCTION**2, f"2/({REDUCTION}k^2) + 1/{REDUCTION}^2",
        ),
        "inverted residual": (
            _Shortcut(_conv(n, hidden, 1), _conv(hidden, hidden, k, depthwise=True), _conv(hidden, n, 1, act=False)),
            2 * t / k**2 + t / n, "2t/k^2 + t/N",
        ),
    }  # fmt: skip


def costs(setting: Setting, place: str | None = None) -> list[Cost]:
    """Return each block's cost; with the name of a device, instructions of its int8 form there too.

    Raises:
        InputError: no such device, or it counts no instructions.
        MissingDependencyError: it is not set up.
    """
    if place is not None:
        _require(place)
    shape = (setting.channels, setting.side, setting.side)
    torch.manual_seed(0)
    made = blocks(setting)
    weights = {name: sum(p.numel() for p in module.parameters()) for name, (module, _, _) in made.items()}
    counted = {name: _instructions(module, shape, place) for name, (module, _, _) in made.items()} if place else {}
    first = counted.get("standard")
    return [
        Cost(
            block=name, parameters=weights[name],
            macs=weights[name] * setting.side**2,  # no biases, and the map keeps its size
            ratio=weights[name] / weights["standard"], theory=theory, formula=formula, instructions=counted.get(name),
            instruction_ratio=count / first if (count := counted.get(name)) and first else None,
        )
        for name, (_, theory, formula) in made.items()
    ]  # fmt: skip


def _require(name: str) -> None:
    place = device(name)
    if "instructions" not in kind_of(place).figures:
        raise InputError(f"{name} counts no instructions; it finds out: {', '.join(kind_of(place).figures)}")
    require(place, place.targets[0])


def _instructions(module: nn.Module, shape: tuple[int, int, int], name: str) -> int | None:
    """Count the instructions of one int8 inference, with weights and input of noise: counts do not depend on them."""
    block = load(module.eval(), input_shape=shape, preprocess=Preprocess.as_is(), name="block")
    noise = np.random.default_rng(0).standard_normal((4, *shape[1:], shape[0]), np.float32)
    silent = Progress()
    int8 = convert(quantize(block, noise, progress=silent), device(name).targets[0])
    report = validate(int8, devices=name, reference="none", progress=silent)
    return report.entries[0].latency.instructions
