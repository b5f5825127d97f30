"""The pipeline of post-training quantization: it runs the steps of a recipe, and gives each what it needs.

The list falls in three: steps before any image is read (``aligned``), steps on the float network (``calibrated``, which
then runs it over all images and observes its activations), and the rest (``quantize``).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from edgecnn.errors import EdgecnnError, InputError, unknown
from edgecnn.graph.batch import Fed
from edgecnn.graph.ir import Graph
from edgecnn.progress import detail
from edgecnn.quant.guard import Harm, guarded
from edgecnn.quant.observers.histogram import Calibration, calibrate
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
    return [work, *_run(work, [step for step in recipe.steps if step.before == Stage.LOADED])][-1].graph


def calibrated(
    graph: Graph, batches: Iterator[Fed], recipe: Recipe, *, keep: int = 0, judging: int = 0
) -> tuple[Graph, Calibration]:
    """Run the steps on the float network, then observe every activation, in bounded memory.

    Args:
        graph: float, ``aligned``.
        batches: float32 network inputs, streamed once.
        recipe: the steps.
        keep: how many images to keep at least.
        judging: how many to keep beside those that steps look at.

    Returns:
        The float graph that ``quantize`` takes, and what the images showed of it.

    Raises:
        InputError: no images, or an activation that is not finite; names the layer, or the step.
    """
    work = Work(graph=graph, recipe=recipe)
    graph = [work, *_run(work, [step for step in recipe.steps if step.before == Stage.FLOAT])][-1].graph
    return graph, calibrate(graph, batches, keep=max(keep, images_needed(graph, recipe) + judging))


def images_needed(graph: Graph, recipe: Recipe) -> int:
    """Return how many calibration images the steps of ``quantize`` look at again."""
    return max((step.images_needed(graph) for step in recipe.steps), default=0)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Hold an integer graph, and how it came about.

    Attributes:
        graph: every activation has parameters, every constant integers.
        recipe: what was done: without the steps that would have done harm.
        harms: of those steps.
    """

    graph: Graph
    recipe: Recipe
    harms: tuple[Harm, ...] = ()


def quantize(
    graph: Graph,
    calibration: Calibration,
    recipe: Recipe,
    precision: str = "int8",
    checkpoint: StepCheckpoint | None = None,
    *,
    judging: int = 0,
) -> Outcome:
    """Quantize a graph.

    Args:
        graph: float, as ``calibrated`` returns it.
        calibration: of this graph, with ``images_needed`` images and those that judge.
        recipe: the steps; those before calibration have run.
        precision: ``int8``, but for what the recipe promotes to int16, or ``int16x8``.
        checkpoint: of the step that takes minutes, what an earlier run has done.
        judging: so many of the images, the last ones, decide nothing but whether a step does harm; 0: every step stays.

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
        images=calibration.images[: len(calibration.images) - judging],
        statistics=calibration.statistics,
        parameters={name: quant for each in fixed for name, quant in each.items()},
        checkpoint=checkpoint or StepCheckpoint(),
    )
    steps = [step for step in recipe.steps if step.before >= Stage.CALIBRATED]
    if not judging or all(step == step.plain() for step in steps):
        return Outcome(graph=_run(work, steps)[-1].graph, recipe=recipe)
    made, kept, harms = guarded(work, steps, calibration.images[-judging:], _run)
    early = [step for step in recipe.steps if step.before < Stage.CALIBRATED]
    done = replace(recipe, steps=(*early, *kept)) if harms else recipe
    return Outcome(graph=made.graph, recipe=done, harms=tuple(harms))


def quantize_weights(graph: Graph, recipe: Recipe) -> Graph:
    """Return the graph with int8 weights only, by the recipe's step ``weights``; biases and activations stay float.

    Raises:
        InputError: the weights are quantized already.
    """
    step = recipe.step("weights")
    assert isinstance(step, Weights)  # a recipe without it is refused
    return step.quantize_weights(graph, recipe.weight_limit)


def _run(work: Work, sequence: Sequence[Step]) -> list[Work]:
    """Run steps one after another, and return the work after each; an error names the step, and those that have run."""
    works: list[Work] = []
    for step in sequence:
        try:
            for pattern in (*step.layers, *step.exclude):
                if not any(matches(node, (pattern,)) for node in work.graph):
                    raise InputError(unknown("layer", pattern, [node.output for node in work.graph]))
            start = time.perf_counter()
            work = step.apply(work)
            check_stage(step, work.graph)
            detail(f"step      {time.perf_counter() - start:7.2f} s  {step.name}")
        except Exception as error:  # whatever it is, it says which step it is of
            done = ", ".join(each.name for each in sequence[: len(works)])
            after = f" (steps already run: {done})" if done else ""
            if isinstance(error, EdgecnnError):
                raise type(error)(f"step {step.name}: {error}{after}") from error
            error.add_note(f"in quantization step {step.name}{after}")
            raise
        works.append(work)
    return works
