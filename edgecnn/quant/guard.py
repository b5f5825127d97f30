"""The guard: images that decide nothing else judge every step, and a step that does harm is halved or left out.

Plain rounding to nearest over all that was seen comes first. Then the steps of the recipe are tried one after another,
the ranges first; each stays only if the network's outputs on the judging images are no further from float than before,
but for what chance explains. All calibration images serve the statistics of channels and ranges: a judging image moves
them by no more than any other does. What corrects weights and biases sees the others only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgecnn.graph.batch import Batch
from edgecnn.graph.interpreter import TorchGraph, tensors
from edgecnn.graph.ir import Graph, QuantizedConstant
from edgecnn.quant.executor import CHUNK, FakeQuantizedGraph, cost
from edgecnn.quant.scales.qparams import quantize_bias
from edgecnn.quant.step import Stage, Step, Work

MOST, LEAST = 256, 8  # judging images: of a small network, and of a large one
WORK = 8e9  # that one look at the judging images may cost: 10 images of MobileNetV2
MEANS = 2  # chunks of other images by which the means of what layers read are known
LUCK = 0.5  # dB that the same step may lose or win with weights that round another way
CERTAIN = 2.0  # standard errors by which the error has to grow: chance alone does that once in forty times
LIKELY = 1.0  # standard errors by which the whole recipe has to be worse than what was kept of it
SHARE, ENOUGH = 4, 64  # one image in so many may judge, up to so many; half of all where no step looks at more
ALL = "all steps"  # of a recipe, where they are worse than plain rounding
FEWEST = 4  # judging images, below which nothing is judged

Errors = NDArray[np.float64]
Run = Callable[[Work, Sequence[Step]], list[Work]]


@dataclass(frozen=True)
class Harm:
    """Say what a step would have done on the judging images, and what was done about it.

    Attributes:
        step: its name, or ``all steps`` where the whole was worse than plain rounding to nearest.
        decibels: by which the error of the output would have grown.
        uncertainty: the standard error of that, over the images.
        images: how many.
        instead: what stands in for it: the step with half of its strength, its plain form, or nothing.
        halved: it is the first.
    """

    step: str
    decibels: float
    uncertainty: float
    images: int
    instead: Step | None = None
    halved: bool = False

    def __str__(self) -> str:
        plainly = "is left out" if self.instead is None else "does as plain rounding does"
        done = "works with half of its strength" if self.halved else plainly
        return (
            f"{self.step} {done}: in full it makes the output's error {self.decibels:.1f} dB larger (standard error "
            f"{self.uncertainty:.1f}) on {self.images} calibration images that are kept to judge"
        )


def judging_images(graph: Graph, given: int = 1 << 30, needed: int = 0) -> int:
    """Return how many of some calibration images judge; 0 where there are too few to tell anything.

    Args:
        graph: float.
        given: images.
        needed: how many of them the steps look at where they can.
    """
    if given // SHARE < FEWEST:
        return 0
    spare = max(min(given // SHARE, ENOUGH), given - max(needed, given // 2))
    return min(max(int(WORK / cost(graph)), LEAST), MOST, spare)


def guarded(work: Work, steps: Sequence[Step], images: Batch, run: Run) -> tuple[Work, list[Step], list[Harm]]:
    """Run the steps that do no harm; return the work, the steps that made it, and what was done about the others.

    Args:
        work: calibrated, without the judging images.
        steps: from ``Stage.CALIBRATED`` on.
        images: network inputs, which judge.
        run: runs steps, and returns the work after each.
    """
    judge, kept = _Judge(work.graph, images, work.images), [step.plain() for step in steps]
    works = [work, *run(work, [step for step in kept if step is not None])]
    plain, harms = works[-1], list[Harm]()
    errors = plain_errors = judge.errors(works, centred=True)
    for at in sorted(range(len(steps)), key=lambda at: kept[at] is None):  # what is never left out comes first
        before = sum(step is not None for step in kept[:at])
        rest = [step for step in kept[at + 1 :] if step is not None]
        full, harm, corrected = steps[at], None, _corrects(kept)
        for trial in (full, full.damped()) if full != kept[at] else ():
            if trial is None:
                break
            made = [*works[: before + 1], *run(works[before], [trial, *rest])]
            corrects = corrected or _corrects([trial])
            after = judge.errors(made, centred=not corrects)
            grown, uncertainty = grown_by(errors, after)
            if _harmful(grown, uncertainty) and corrects and not corrected:  # beside what would be made without it
                grown, uncertainty = grown_by(judge.errors(works, centred=False), after)
            if not _harmful(grown, uncertainty):
                works, errors, kept[at] = made, after, trial
                harm = harm and replace(harm, instead=trial, halved=True)
                break
            if harm is None:
                harm = Harm(full.name, grown, uncertainty, len(images), instead=kept[at])
        harms += [harm] if harm is not None else []
    if not _corrects(kept):
        errors = judge.errors(works, centred=False)  # of what would be made, as it is
    if harms:  # what harms alone may help together with what comes later
        made = run(work, steps)
        after = judge.errors(made, centred=False)
        grown, uncertainty = grown_by(errors, after)
        if grown <= LIKELY * uncertainty:
            works, errors, harms, kept = made, after, [], list(steps)
    grown, uncertainty = grown_by(plain_errors, errors)
    if _harmful(grown, uncertainty):
        grown, uncertainty = grown_by(judge.errors([plain], centred=False), errors)
    if _harmful(grown, uncertainty):
        plainly = [each for step in steps if (each := step.plain()) is not None]
        return plain, plainly, [*harms, Harm(ALL, grown, uncertainty, len(images))]
    return works[-1], [step for step in kept if step is not None], harms


def _harmful(grown: float, uncertainty: float) -> bool:
    return grown > max(CERTAIN * uncertainty, LUCK)


def _corrects(steps: Sequence[Step | None]) -> bool:
    return any(step is not None and step.after == Stage.CORRECTED for step in steps)


def grown_by(before: Errors, after: Errors) -> tuple[float, float]:
    """Return by how many dB the sum of errors grew, and the standard error of that by the jackknife over images.

    Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 11.5 (the jackknife).
    """
    tiny = 1e-30
    ratio = 10 * np.log10((after.sum() + tiny) / (before.sum() + tiny))
    without = 10 * np.log10((after.sum() - after + tiny) / (before.sum() - before + tiny))
    count = len(before)
    return float(ratio), float(math.sqrt((count - 1) / count * np.square(without - without.mean()).sum()))


class _Judge:
    """Measure the squared error of a quantized graph's outputs on each judging image.

    Of each output it is the share of that output's power over all of them, and the shares are summed: so the scores of
    a detector count as much as its boxes, whose numbers are larger, and no step may pay for one with the other.
    """

    def __init__(self, graph: Graph, images: Batch, others: Batch) -> None:
        self._chunks = [tensors(chunk) for chunk in images.chunks(CHUNK)]
        self._others = [tensors(chunk) for chunk in others[: MEANS * CHUNK].chunks(CHUNK)]
        run = TorchGraph(graph)
        self._wanted = [run.run(chunk) for chunk in self._chunks]
        self._power = {
            name: max(sum(float(made[name].double().square().sum()) for made in self._wanted), 1e-30)
            for name in graph.outputs
        }

    def errors(self, works: Sequence[Work], *, centred: bool) -> Errors:
        """Return the squared errors of the last of some works: float64 ``(images,)``.

        Args:
            works: after each step; the last is integer.
            centred: correct its biases first, to first order, by the mean of what the layers read in images that do
                not judge. A later step corrects them; the mean error that rounding leaves would hide what an earlier
                one does.
        """
        graph, found = works[-1].graph, []
        if centred:
            rounded = next(work.graph for work in works if _is_rounded(work.graph))
            graph = _centred(graph, rounded, self._others)
        run = FakeQuantizedGraph(graph)
        for chunk, wanted in zip(self._chunks, self._wanted, strict=True):
            made = run.run(chunk)
            shares = [
                (made[name] - wanted[name]).double().square().flatten(1).sum(1) / power
                for name, power in self._power.items()
            ]
            found.append(torch.stack(shares).sum(0))
        return np.asarray(torch.cat(found).numpy(), np.float64)


def _is_rounded(graph: Graph) -> bool:
    return all(isinstance(tensor, QuantizedConstant) for tensor in graph.constants())


def _centred(graph: Graph, rounded: Graph, chunks: Sequence[Mapping[str, torch.Tensor]]) -> Graph:
    """Return the graph with biases that make up for what the rounding of weights adds on average.

    Args:
        graph: integer.
        rounded: the same when its weights were rounded: later, float activations may have an offset that integers take
            back (``zero_point_placement``).
        chunks: of images.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2.
    """
    sums: dict[str, torch.Tensor] = {}

    def observe(name: str, value: torch.Tensor) -> None:
        if name not in read:
            return
        mean = value.mean((0, 2, 3)) if value.ndim == 4 else value.mean(0)
        sums[name] = sums.get(name, torch.zeros(())) + mean / len(chunks)

    run, changed, read = TorchGraph(rounded), [], {node.inputs[0] for node in graph if node.weighted}
    for chunk in chunks:
        run.run(chunk, observe)
    for node in graph:
        if node.weighted:
            weight, bias = (QuantizedConstant.of(graph.tensors[i]) for i in node.inputs[1:])
            error = weight.quant.dequantize(weight.integers) - weight.value
            attrs: Mapping[str, Any] = node.attrs
            groups = attrs.get("groups", 1)
            taps = error.reshape(groups, len(error) // groups, -1, error.shape[-1]).sum(axis=2)
            added = np.einsum("goc,gc->go", taps, sums[node.inputs[0]].numpy().reshape(groups, -1)).reshape(-1)
            found = bias.quant.dequantize(bias.integers) - added
            changed.append(quantize_bias(bias, bias.quant.scale, found, bias.quant.dtype))
    return graph.with_tensors(*changed)
