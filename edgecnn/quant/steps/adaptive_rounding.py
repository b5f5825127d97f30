"""Adaptive rounding: each layer's integers and bias are chosen for what they make of the images, not one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from edgecnn.graph.ir import Graph, Node
from edgecnn.progress import track
from edgecnn.quant.step import Stage, Step, Work, setting
from edgecnn.quant.steps.bias_correction import VALUE_BYTES, BiasCorrection, correct_bias

MEMORY = 7 << 28  # bytes that the activations of both networks may take: all of MobileNetV2 is to fit in 4 GiB
HALF_BYTES = 2  # of a float16 value
FEWEST = 16  # images


@dataclass(frozen=True, kw_only=True)
class AdaptiveRounding(Step):
    """Round each weight up or down so that its layer's output stays closest to float.

    The float network and the quantized one run side by side, layer after layer; each layer's integers are those of a
    least-squares problem (``rounding_solver``). Its bias is found too, so bias correction is no further step.

    The problem grows with the square of a sum's inputs, so layers with more than ``taps`` keep their integers, and
    their biases are corrected.

    Sources: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization" (the problem: section 3;
    input and target: section 4); Frantar et al. 2022, "GPTQ" (the columns: section 3, algorithm 1).
    """

    before, after = Stage.INTEGER, Stage.CORRECTED
    limitable = True

    images: int = setting(256, "calibration images; fewer where their activations would not fit in 1.75 GiB", low=1)
    gmacs: float = setting(0.0, "fewer images, but 16, where they take more than so many 1e9 MACs; 0: all", low=0.0)

    taps: int = setting(4608, "layers whose sums have more inputs keep their integers; biases are corrected", low=1)

    def apply(self, work: Work) -> Work:
        """Solve the layers that are selected, each kept in the checkpoint; a channel with few taps gets a scale too."""
        import torch

        from edgecnn.quant import rounding_solver
        from edgecnn.quant.executor import SideBySide, affordable

        def solve(node: Node) -> None:
            next(progress)
            if node.output in solvable:
                given = partial(rounding_solver.solve_layer, node, both, limit)
                both.tensors.update({t.name: t for t in work.checkpoint.step(node.output, both.tensors, given)})

        graph, limit = work.graph, work.recipe.weight_limit
        images = work.images[: self._count(graph)]
        count = affordable(graph, len(images), lambda t: HALF_BYTES + (2 if graph.is_wide(t.name) else 1), MEMORY)
        if count < len(images):  # else they would be copied
            images = images[np.arange(count) * len(images) // count]
        compact = affordable(graph, len(images), lambda _: VALUE_BYTES, MEMORY) < len(images)
        chosen = {node.output: node for node in graph if node.weighted and self.selects(node)}
        solvable = [name for name, node in chosen.items() if self._taps(graph, node) <= self.taps]
        how = repr((limit, solvable, torch.__version__, torch.get_num_threads())).encode()
        given = [np.ascontiguousarray(array).view(np.uint8).reshape(-1).data for array in images.arrays.values()]
        work.checkpoint.begin(graph, *given, how)
        progress = iter(track(graph.nodes, "adaptive rounding", len(graph.nodes), unit="layers"))
        with torch.inference_mode():
            both = SideBySide(graph, images, compact=compact)
            large = chosen.keys() - set(solvable)
            solved = both.run(before=solve, sums=partial(correct_bias, both), summed=lambda n: n.output in large)
        next(progress, None)
        return replace(work, graph=solved)

    def images_needed(self, graph: Graph) -> int:
        """Return how many images it looks at: no more than ``gmacs`` allows."""
        return self._count(graph)

    @staticmethod
    def _taps(graph: Graph, node: Node) -> int:
        return math.prod(graph.tensors[node.inputs[1]].shape[1:])

    def _count(self, graph: Graph) -> int:
        if not self.gmacs:
            return self.images
        from edgecnn.quant.executor import cost

        return min(self.images, max(FEWEST, int(self.gmacs * 1e9 / cost(graph))))

    def quick(self) -> Step:
        """Return bias correction, which takes seconds."""
        return BiasCorrection(layers=self.layers, exclude=self.exclude)
