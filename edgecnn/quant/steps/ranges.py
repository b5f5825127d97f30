"""Ranges: every activation gets the quantization parameters of what calibration saw of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from edgecnn.graph.contract import FIXED_OF, TANH
from edgecnn.graph.ir import Graph, QParams
from edgecnn.quant.scales.kernel_limits import raise_for_kernels
from edgecnn.quant.scales.qparams import (
    activation_qparams,
    groups_inside,
    scale_groups,
    with_parameters,
)
from edgecnn.quant.scales.separation import separated
from edgecnn.quant.step import Stage, Step, Work, setting

if TYPE_CHECKING:
    from edgecnn.quant.observers.histogram import ActivationStatistics, Range

SECOND_MARGIN = 1.1  # beyond the second largest logit of any image, above which two of another image could tie
NEIGHBOURS = 4  # positions at most over which the errors of clipped values have one sign, and add up in a sum
INPUT_MARGIN = 256 / 255  # of the input's range: pixels in 256 levels do not fall half way between two integers then


@dataclass(frozen=True, kw_only=True)
class Ranges(Step):
    """Choose the range of every activation; those that must share a scale get the same.

    Inputs are never clipped, and logits only by ``logits``. Where a swish or a sigmoid alone reads an activation,
    ``mse`` counts the error after that function. It does not cover what a sum with a ReLU cannot show. Clipped values
    count as often as sums behind them add up positions, whose clipping errors have one sign. Limited to layers, what
    other layers make gets ``minmax``.

    Sources: Krishnamoorthi 2018 and Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1
    (``mse``); Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 3.2 (``percentile``).
    """

    before, after, limitable = Stage.CALIBRATED, Stage.SCALED, True

    method: str = setting(
        "mse",
        "minmax (all that was seen), percentile, or mse (clipped where that lowers the squared error)",
        allowed=("mse", "minmax", "percentile"),
    )
    percentile: float = setting(
        99.99, "for percentile: values beyond it are left out at either end", low=90.0, high=100
    )
    sensitivity: str = setting(
        "swish",
        "for mse: channels count by their gradient sensitivity around a swish, everywhere, or none do",
        allowed=("swish", "everywhere", "none"),
    )
    sensitivity_images: int = setting(16, "calibration images on which gradients are taken", low=1)
    logits: str = setting(
        "minmax",
        "minmax, or mse: clipped, but above any image's second largest logit",
        allowed=("minmax", "mse"),
    )

    def images_needed(self, graph: Graph) -> int:
        """Return ``sensitivity_images`` where some activation's channels are weighted."""
        return self.sensitivity_images if self._weighted(graph) else 0

    def _weighted(self, graph: Graph) -> frozenset[str]:
        """Return the activations whose channels are weighted by sensitivity; of a scale group all or none."""
        from edgecnn.quant.scales.consumers import around_swishes

        groups = groups_inside(graph) if self.method == "mse" and self.sensitivity != "none" else []
        if self.sensitivity == "swish":
            swished = around_swishes(graph)
            groups = [group for group in groups if group & swished]
        if self.layers or self.exclude:
            groups = [group for group in groups if self._selects_any(graph, group)]
        return frozenset[str]().union(*groups)

    def _selects_any(self, graph: Graph, group: set[str]) -> bool:
        """Tell whether a selected layer makes one of the activations."""
        return any(node.output in group and self.selects(node) for node in graph)

    def plain(self) -> Step:
        """Return ranges that cover all that was seen."""
        return Ranges(method="minmax")

    def apply(self, work: Work) -> Work:
        """Give every activation its parameters, with which integer kernels can work."""
        from edgecnn.quant.observers.gradient_sensitivity import channel_weights

        fixed = {n.output for n in work.graph if n.spec.scale == "fixed"}
        graph, copies = separated(work.graph, fixed | set(work.parameters))
        statistics = {**work.statistics, **{copy: work.statistics[name] for copy, name in copies.items()}}
        counted = self._weighted(graph) if len(work.images) else frozenset[str]()
        weights = channel_weights(graph, counted, work.images[: self.sensitivity_images]) if counted else {}
        seen = {name: each.range(weights.get(name)) for name, each in statistics.items()}
        types = dict.fromkeys(graph.inputs, "int16" if work.precision == "int16x8" else "int8")
        for node in graph:
            read = next(types[i] for i in node.inputs if i in types)
            types[node.output] = str(node.attrs["to"]) if node.op == "requantize" else read
        tanh = {n.output for n in graph if n.op == "tanh"}
        passed_on = {n.output for n in graph if n.spec.scale == "same"}
        chosen: dict[str, QParams] = {}
        for group in scale_groups(graph):
            given = [work.parameters[name] for name in sorted(group) if name in work.parameters]
            if group & fixed:
                quant = FIXED_OF[types[min(group)]]
            elif not given and types[min(group)] == "int8" and group & tanh and group <= tanh | passed_on:
                quant = TANH
            else:
                quant = given[0] if given else self._parameters(graph, group, statistics, seen, types[min(group)])
            chosen.update(dict.fromkeys(group, quant))
        raise_for_kernels(graph, chosen)
        return replace(work, graph=with_parameters(graph, chosen), statistics=statistics)

    def _parameters(
        self,
        graph: Graph,
        group: set[str],
        statistics: Mapping[str, ActivationStatistics],
        ranges: Mapping[str, Range],
        dtype: str,
    ) -> QParams:
        from edgecnn.quant.observers.clipping import mse_range, percentile_range
        from edgecnn.quant.observers.histogram import union
        from edgecnn.quant.scales.consumers import positions_summed, saturating_consumer, visible

        seen = union([ranges[name] for name in sorted(group)])
        outputs = group & set(graph.outputs)
        if dtype == "int16":  # 32,767 steps cover all that was seen; clipping gains nothing
            return activation_qparams(seen.low, seen.high, dtype)
        selected = self._selects_any(graph, group)
        second = statistics[min(outputs)].second if len(outputs) == len(graph.outputs) == 1 else math.nan
        if selected and self.logits == "mse" and not math.isnan(second) and group.isdisjoint(graph.inputs):
            low, high = mse_range(seen)  # the largest logit of an image may be clipped: it stays the largest
            return activation_qparams(low, min(max(high, SECOND_MARGIN * second), seen.high))
        if outputs or not group.isdisjoint(graph.inputs) or self.method == "minmax" or not selected:
            margin = 1.0 if group.isdisjoint(graph.inputs) else INPUT_MARGIN
            return activation_qparams(seen.low * margin, seen.high * margin)
        if self.method == "percentile":
            return activation_qparams(*percentile_range(seen, self.percentile))
        clipped = 1.0 if seen.weighted else float(min(positions_summed(graph, group), NEIGHBOURS))
        if len(group) > 1:
            return activation_qparams(*mse_range(seen, clipped=clipped))
        (name,) = group
        seen = seen.within(*visible(graph, name, ranges))
        return activation_qparams(*mse_range(seen, saturating_consumer(graph, name), clipped=clipped))
