"""The pipeline of post-training quantization: it runs the steps of a recipe, and gives each what it needs.

The list falls in three: steps before any image is read (``aligned``), steps on the float network that look at the first
images (``calibrated``, which then observes the ranges of all of them), and the rest (``quantize``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import EdgecnnError, InputError, unknown
from edgecnn.graph.ir import Graph
from edgecnn.quant.observers.gradient_sensitivity import channel_weights
from edgecnn.quant.observers.histogram import Calibration, calibrate, peek
from edgecnn.quant.recipe import Recipe
from edgecnn.quant.step import Stage, Step, Work, check_stage, matches
from edgecnn.quant.step_checkpoint import StepCheckpoint
from edgecnn.quant.steps.weights import Weights


def aligned(graph: Graph, recipe: Recipe, precision: str = "int8") -> Graph:
    """Run the steps that come before any image is read: they may change how images are fed.

    Args:
        graph: float.
        recipe: the steps.
        precision: ``int8`` or ``int16x8``.
    """
    work = Work(graph=graph, recipe=recipe, precision=precision)
    return _run(work, [step for step in recipe.steps if step.before == Stage.LOADED]).graph


def calibrated(
    graph: Graph, batches: Iterator[NDArray[np.float32]], recipe: Recipe, *, keep: int = 0
) -> tuple[Graph, Calibration]:
    """Run the steps on the float network, then observe the range of every activation, in bounded memory.

    Args:
        graph: float, ``aligned``.
        batches: (N, H, W, C) float32 network inputs, streamed once.
        recipe: the steps.
        keep: how many images to keep at least.

    Returns:
        The float graph that ``quantize`` takes, and what the images showed of it.

    Raises:
        InputError: no images, or an activation that is not finite; names the layer, or the step.
    """
    early = [step for step in recipe.steps if step.before == Stage.FLOAT]
    needs = [step.needs(graph) for step in recipe.steps]
    names = frozenset[str]().union(*(need.sensitivity for need in needs))
    weights: Mapping[str, NDArray[np.float64]] = {}
    if ahead := max((need.peek for need in needs), default=0):
        first, batches = peek(batches, ahead)
        if len(first):
            graph = _run(Work(graph=graph, recipe=recipe, images=first), early).graph
            looked = max(need.peek for need in needs if need.sensitivity) if names else 0
            weights = channel_weights(graph, names, first[:looked]) if names else {}
        del first  # they come again in the stream
    else:
        graph = _run(Work(graph=graph, recipe=recipe), early).graph
    kept = max(keep, images_needed(graph, recipe))
    return graph, calibrate(graph, batches, keep=kept, weights=weights)


def images_needed(graph: Graph, recipe: Recipe) -> int:
    """Return how many calibration images the steps of ``quantize`` look at again."""
    return max((step.needs(graph).images for step in recipe.steps), default=0)


def quantize(
    graph: Graph,
    calibration: Calibration,
    recipe: Recipe,
    precision: str = "int8",
    checkpoint: StepCheckpoint | None = None,
) -> Graph:
    """Return the integer graph: every activation has parameters, every constant integers.

    Args:
        graph: float, as ``calibrated`` returns it.
        calibration: of this graph, with ``images_needed`` images.
        recipe: the steps; those before calibration have run.
        precision: ``int8``, but for what the recipe promotes to int16, or ``int16x8``.
        checkpoint: of the step that takes minutes, what an earlier run has done.

    Raises:
        InputError: the graph is quantized already, or a step lacks what it needs; names the step.
        UnsupportedError: an op's scale contract cannot be met; names the node.
    """
    if graph.precision != "fp32":
        raise InputError(f"the graph is {graph.precision} already; quantize a float graph")
    if precision == "int16x8":
        recipe = recipe.with_settings("int16_promotion")
    fixed = [step.fixed_parameters(graph) for step in recipe.steps] if precision == "int8" else []
    work = Work(
        graph=graph,
        recipe=recipe,
        precision=precision,
        images=calibration.images,
        ranges=calibration.ranges,
        parameters={name: quant for each in fixed for name, quant in each.items()},
        checkpoint=checkpoint or StepCheckpoint(),
    )
    return _run(work, [step for step in recipe.steps if step.before >= Stage.CALIBRATED]).graph


def quantize_weights(graph: Graph, recipe: Recipe) -> Graph:
    """Return the graph with int8 weights only, by the recipe's step ``weights``; biases and activations stay float.

    Raises:
        InputError: the weights are quantized already.
    """
    step = recipe.step("weights")
    assert isinstance(step, Weights)  # a recipe without it is refused
    return step.quantize_weights(graph, recipe.weight_limit)


def _run(work: Work, sequence: list[Step]) -> Work:
    """Run steps one after another; an error names the step, and those that have run."""
    done: list[str] = []
    for step in sequence:
        try:
            for pattern in (*step.layers, *step.exclude):
                if not any(matches(node, (pattern,)) for node in work.graph):
                    raise InputError(unknown("layer", pattern, [node.output for node in work.graph]))
            work = step.apply(work)
            check_stage(step, work.graph)
        except Exception as error:  # whatever it is, it says which step it is of
            after = f" (steps already run: {', '.join(done)})" if done else ""
            if isinstance(error, EdgecnnError):
                raise type(error)(f"step {step.name}: {error}{after}") from error
            error.add_note(f"in quantization step {step.name}{after}")
            raise
        done.append(step.name)
    return work
