"""Verdicts that need no limit: an integer artifact far from fp32, and an fp32 that is wrong itself.

All thresholds stand here, each with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.artifact import INTEGER_PRECISIONS
from edgecnn.errors import InputError
from edgecnn.evaluation.limits import Limits
from edgecnn.graph.ir import Graph, Metadata
from edgecnn.loading import RANDOM
from edgecnn.models import resolve
from edgecnn.preprocess import Preprocess
from edgecnn.progress import say
from edgecnn.report.record import Accuracy, Finding
from edgecnn_targets.accuracy_meter import Z_95

MIN_SQNR_DB = 10.0
"""Below, noise has more than a tenth of the outputs' power. Networks measured below lost up to 22 points of top-1."""
MIN_AGREEMENT = 90.0
"""Percent. Below, int8 answers otherwise on one image in ten, and may lose ten points; sound ones are above 93 %."""
PROBABILITY_POWER = 0.25
"""Signal of a probability is at least that of 1/2. Where nothing that a network looks for is in the images, all its
probabilities are near 0, and a step of 1/256 is as large as they are; a threshold of 1/2 tells the same. An error of
0.16 (root of the mean square) fails."""
NEAR_ZERO = 2.0
"""Percent. A network that was trained is right more often, on as many as 1,000 classes; most wrong inputs give less."""
USEFUL = 0.25
"""Share of the way from chance to all right. A top-1 that may lie above, by its interval, is not called chance."""
FAR_BETTER = 10.0
"""Points that another offset or preprocessing must gain: more than resizing or another crop ever does."""
TRIED, TRIED_BYTES = 100, 2**26
"""Images that other preprocessing is tried on, and their bytes; enough for ten points, in a second or few."""

SIGMOIDS = ("sigmoid", "hard_sigmoid")
OFFSETS = (0, -1, 1)  # beside the label offset in use
RANGES = (  # mean and std, in levels
    ("mean=0,std=255", 0.0, 255.0),
    ("mean=127.5,std=127.5", 127.5, 127.5),
    ("mean=0,std=1", 0.0, 1.0),
    ("mean=123.675/116.28/103.53,std=58.395/57.12/57.375", (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
)
SWAP = "blue and red swapped (edgecnn feeds RGB: swap the input channels of the first layer)"

Classes = NDArray[np.integer[Any]]  # (n,)


def interval(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share, from 0 to 1 (Wilson 1927, "Probable inference")."""
    z2 = Z_95**2
    centre, reach = right + z2 / 2, Z_95 * math.sqrt(right * (n - right) / n + z2 / 4)
    return (centre - reach) / (n + z2), (centre + reach) / (n + z2)


def signal_floors(graph: Graph) -> tuple[float, ...]:
    """Return, for each output of a graph, the least signal of one of its values: 0 where it is no probability or place.

    Outputs of a sigmoid are probabilities of their own; those of a softmax, one distribution over the last dimension.
    """
    floors: dict[str, float] = {}
    for node in graph:
        if node.op in SIGMOIDS:
            floors[node.output] = PROBABILITY_POWER
        elif node.op == "softmax":
            floors[node.output] = PROBABILITY_POWER / graph.tensors[node.output].shape[-1]
        elif node.op == "argmax":  # a place has no power
            floors[node.output] = math.inf
        elif node.op == "requantize" or node.spec.scale == "same":  # moves values, or averages them
            floors[node.output] = min(floors.get(name, 0.0) for name in node.inputs)
    return tuple(floors.get(name, 0.0) for name in graph.outputs)


def quantization_loss(
    precision: str,
    accuracy: Accuracy,
    metadata: Metadata,
    limits: Limits,
    allow_loss: bool,
    judged: Mapping[str, float] | None = None,
) -> Iterator[Finding]:
    """Yield a finding where an integer artifact is far from fp32; of severity ``error`` where that is a failure.

    Agreement counts where the upper end of its interval is too low. It decides where outputs are known to be classes:
    by class names, labels, or a registered model. Else they may be an embedding, and it is a warning. A limit that the
    user gave on SQNR or agreement takes the place of the one here.

    Args:
        accuracy: beside fp32.
        limits: that the user gave.
        allow_loss: whether the user accepts it.
        judged: SQNR of each output in dB, with ``signal_floors``; by default the one of ``accuracy``.
    """
    agreement, n = accuracy.agreement, accuracy.n
    if precision not in INTEGER_PRECISIONS or accuracy.sqnr_db is None:
        return
    decibels = judged or {"": accuracy.sqnr_db}
    output = min(decibels, key=lambda name: decibels[name])
    sqnr, whose = decibels[output], f" of output {output!r}" if len(decibels) > 1 else ""
    counts = agreement is not None and limits.min_agreement is None
    differs = agreement is not None and counts and 100 * interval(round(agreement * n / 100), n)[1] < MIN_AGREEMENT
    known = metadata.labels is not None or accuracy.top1 is not None or _is_registered(metadata.model)
    said = (
        [f"SQNR{whose} {sqnr:.1f} dB, below {MIN_SQNR_DB:g}"] if sqnr < MIN_SQNR_DB and limits.min_sqnr is None else []
    )
    if differs and known:
        said.append(f"agreement {agreement:.1f} %, below {MIN_AGREEMENT:g}")
    if said:
        excuse, severity = _excuse(metadata, allow_loss)
        wider = " or --quantize int16x8 (tflite)" if precision == "int8" else ""
        text = (
            f"{precision} is far from fp32 on {n:,} images ({'; '.join(said)}): calibrate on 100 or more images like "
            f"those of use, try --recipe best{wider}{excuse}"
        )
        yield Finding(code="quantization_loss", text=text, severity=severity)
    elif differs:
        assert agreement is not None
        text = (
            f"the largest output is another than fp32's on {100 - agreement:.0f} % of {n:,} images: if outputs are "
            "classes, this is a loss (labelled images, or class names, make it a failure)"
        )
        yield Finding(code="quantization_loss", text=text)


def _is_registered(model: str) -> bool:
    """Whether the name is a registered model's, all of which are classifiers."""
    try:
        return bool(resolve(model))
    except InputError:
        return False


def _excuse(metadata: Metadata, allow_loss: bool) -> tuple[str, str]:
    """Return what to add to a finding, and its severity."""
    if metadata.weights_sha256 == RANDOM:
        return "; weights are random, so this is no failure", "warning"
    return ("; accepted", "warning") if allow_loss else (", or accept it with --allow-loss", "error")


@dataclass(frozen=True)
class _Try:
    """How the images may be fed instead; without words, as they are."""

    words: tuple[str, ...]
    preprocess: Preprocess
    swapped: bool = False

    def feed(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.preprocess.normalise(pixels[..., ::-1] if self.swapped else pixels)


class ReferenceMeter:
    """Count how often fp32 is right, also under other label offsets; ``finding`` says where that is suspicious.

    Args:
        metadata: of the network.
        total: images to come, or 0 where that is not known.
    """

    def __init__(self, metadata: Metadata, total: int) -> None:
        self._metadata, self._every = metadata, max(math.ceil(total / TRIED), 1)
        self._n = self._bytes = 0
        self._right = dict.fromkeys(OFFSETS, 0)
        self._classes, self._lowest, self._highest = 1, math.inf, -math.inf
        self._kept: list[tuple[NDArray[Any], Any]] = []  # images for trying, spread over the set, and their logits

    def update(self, pixels: NDArray[Any], labels: Classes, outputs: NDArray[np.float32]) -> None:
        """Count a batch.

        Args:
            pixels: (n, H, W, C) before normalisation.
            labels: data classes, (n,).
            outputs: fp32's, (n, classes).
        """
        logits = labels + self._metadata.label_offset
        for offset in OFFSETS:
            self._right[offset] += _right(outputs, logits + offset)
        self._classes = outputs.shape[1]
        self._lowest, self._highest = min(self._lowest, logits.min()), max(self._highest, logits.max())
        for k, image in enumerate(pixels, self._n):
            if k % self._every == 0 and len(self._kept) < TRIED and self._bytes + image.nbytes <= TRIED_BYTES:
                self._bytes += image.nbytes
                self._kept.append((image.copy(), logits[k - self._n]))
        self._n += len(pixels)

    def finding(
        self, reference: Callable[[NDArray[np.float32]], NDArray[np.float32]], *, void: bool, allow_loss: bool
    ) -> Iterator[Finding]:
        """Yield a finding where fp32 is no better than chance, or far better under another label offset.

        Args:
            reference: fp32 logits ``(n, classes)`` of images, NHWC, to try other preprocessing where it is at chance.
            void: whether a limit was given that means nothing then; it makes the finding an error.
            allow_loss: whether the user accepts that.
        """
        if self._n == 0 or self._classes < 2:
            return
        right, n = self._right[0], self._n
        said = f"fp32 is right on {_percent(right, n)} of {n:,} images"
        offset = max(OFFSETS, key=lambda k: self._right[k])
        if self._far_better(self._right[offset], right, n):
            said += f"; with {self._offset(offset)} it would be {_percent(self._right[offset], n)}"
        elif self._at_chance(right, n):
            said += f", of {self._classes:,} classes no more than chance: {self._other_preprocessing(reference)}"
        else:
            return
        if not void:
            yield Finding(code="fp32_wrong", text=said)
            return
        excuse, severity = _excuse(self._metadata, allow_loss)
        text = f"{said}. --max-drop means nothing beside it{excuse}"
        yield Finding(code="fp32_wrong", text=text, severity=severity)

    def _at_chance(self, right: int, n: int) -> bool:
        low, high = interval(right, n)
        chance = 1 / self._classes
        return (low <= chance or 100 * right <= NEAR_ZERO * n) and high < chance + USEFUL * (1 - chance)

    def _far_better(self, right: int, now: int, n: int) -> bool:
        low = interval(right, n)[0]
        gained = 100 * (right - now) >= FAR_BETTER * n
        return gained and low > max(interval(now, n)[1], 1 / self._classes)

    def _offset(self, offset: int) -> str:
        """The option for an offset; where some class of the data would have no logit, the labels must move."""
        if self._lowest + offset >= 0 and self._highest + offset < self._classes:
            return f"--label-offset {self._metadata.label_offset + offset}"
        return f"labels moved by {offset:+d}"

    def _other_preprocessing(self, reference: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> str:
        """Say which other preprocessing makes fp32 right most often, if one is far better."""
        used = self._metadata.preprocess
        if self._metadata.weights_sha256 == RANDOM:
            return "weights are random"
        if used is None or used.as_given or not self._kept or self._kept[0][0].shape[-1] != 3:
            return "check labels and weights"
        say("validate: fp32 is at chance; other channel orders and input ranges are tried")
        pixels, logits = (np.array(part) for part in zip(*self._kept, strict=True))
        n, found = len(pixels), []
        for way in _ways(used):
            outputs = np.concatenate([reference(way.feed(pixels[i : i + 10])) for i in range(0, n, 10)])
            for offset in OFFSETS:
                words = (*way.words, self._offset(offset)) if offset else way.words
                found.append((_right(outputs, logits + offset), words))
        best, words = max(found, key=lambda way: (way[0], -len(way[1])))
        if words and self._far_better(best, found[0][0], n):
            return f"with {' and '.join(words)} it would be {_percent(best, n)} of {n} images"
        return "no other label offset, channel order or input range mends it; check labels, weights and --preprocess"


def _ways(used: Preprocess) -> Iterator[_Try]:
    """The preprocessing in use, then others: channel orders by input ranges."""
    ranges = [("", used.mean, used.std), *RANGES]
    for swapped, (words, mean, std) in product((False, True), ranges):
        fed = Preprocess(mean=mean, std=std)  # type: ignore[arg-type]  # one number serves all channels
        if not words or (fed.mean, fed.std) != (used.mean, used.std):
            said = ((SWAP,) if swapped else ()) + ((f"--preprocess {words}",) if words else ())
            yield _Try(said, fed, swapped)


def _right(outputs: NDArray[np.float32], logits: Classes) -> int:
    return int(np.count_nonzero(outputs.argmax(axis=1) == logits))


def _percent(right: int, n: int) -> str:
    return f"{100 * right / n:.3g} %"
