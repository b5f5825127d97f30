"""Compare an artifact with fp32, image by image, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import InputError
from edgecnn.report.record import SQNR_CEILING_DB, Accuracy, Parity

Values = Mapping[str, NDArray[np.float32]]
"""Output to its real values, ``(n, ...)``."""
Z_95 = 1.959963984540054
"""The 97.5 % point of the normal distribution: two-sided 95 %."""


class AccuracyMeter:
    """Count over batches of logits; ``result`` returns the metrics so far.

    Every ``update`` gives labels or none does, and likewise the reference. Equal logits rank in class order, the
    lowest index first, as ``argmax`` has it: integer logits do tie.

    Args:
        label_offset: data class ``k`` is logit ``k + label_offset``.
    """

    def __init__(self, label_offset: int = 0) -> None:
        self._offset = label_offset
        self._n = self._labelled = self._compared = 0
        self._right = np.zeros(2, np.int64)  # top-1 and top-5, the artifact's
        self._fp32_right = np.zeros(2, np.int64)
        self._lost = self._won = self._agreed = 0
        self._signal = self._noise = 0.0

    def update(
        self,
        logits: NDArray[np.float32],
        labels: NDArray[np.integer[Any]] | None = None,
        reference: NDArray[np.float32] | None = None,
    ) -> None:
        """Count a batch.

        Args:
            logits: the artifact's, ``(n, classes)``, decoded to real values.
            labels: data classes, ``(n,)``.
            reference: fp32's logits on the same images, ``(n, classes)``.

        Raises:
            InputError: logits are not finite, the reference has other classes, or a label has no logit.
        """
        _require_finite(logits, "the artifact")
        self._n += len(logits)
        hits = None if labels is None else self._hits(logits, labels)
        if hits is not None:
            self._labelled += len(logits)
            self._right += hits.sum(axis=1)
        if reference is None:
            return
        if reference.shape != logits.shape:
            raise InputError(f"fp32 has logits {reference.shape}, the artifact {logits.shape}: not the same network")
        _require_finite(reference, "fp32")
        self._compared += len(logits)
        self._agreed += int(np.count_nonzero(logits.argmax(axis=1) == reference.argmax(axis=1)))
        wide = reference.astype(np.float64)
        self._signal += float(np.square(wide).sum())
        self._noise += float(np.square(logits - wide).sum())
        if labels is not None and hits is not None:
            fp32_hits = self._hits(reference, labels)
            self._fp32_right += fp32_hits.sum(axis=1)
            self._lost += int(np.count_nonzero(fp32_hits[0] & ~hits[0]))
            self._won += int(np.count_nonzero(hits[0] & ~fp32_hits[0]))

    def result(self) -> Accuracy:
        """Return the metrics of all batches so far; what was not given is ``None``."""
        if self._labelled not in (0, self._n) or self._compared not in (0, self._n):
            raise ValueError("labels, or the reference, were given for some of the batches only")
        labelled, compared = self._labelled > 0, self._compared > 0
        paired = labelled and compared
        return Accuracy(
            n=self._n,
            fp32_top1=self._percent(self._fp32_right[0]) if paired else None,
            top1=self._percent(self._right[0]) if labelled else None,
            drop=self._percent(self._lost - self._won) if paired else None,
            drop_ci95=paired_interval(self._lost, self._won, self._n) if paired else None,
            fp32_top5=self._percent(self._fp32_right[1]) if paired else None,
            top5=self._percent(self._right[1]) if labelled else None,
            agreement=self._percent(self._agreed) if compared else None,
            sqnr_db=sqnr_db(self._signal, self._noise) if compared else None,
        )

    def _percent(self, count: int) -> float:
        return 100 * int(count) / self._n

    def _hits(self, logits: NDArray[np.float32], labels: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
        """Return ``(2, n)``: whether the label is first, and whether it is among the first five."""
        classes, index = logits.shape[1], labels + self._offset
        outside = labels[(index < 0) | (index >= classes)]
        if outside.size:
            raise InputError(
                f"class {outside[0]} of the data has no logit: the artifact has {classes}, and the label offset is "
                f"{self._offset}; the data's classes must be the network's (see --label-offset)"
            )
        own = np.take_along_axis(logits, index[:, None], axis=1)
        earlier = np.arange(classes) < index[:, None]
        rank = np.count_nonzero((logits > own) | ((logits == own) & earlier), axis=1)
        return np.stack([rank < 1, rank < 5])


class OutputMeter:
    """Count over batches of all outputs; of one vector, what ``AccuracyMeter`` counts too.

    Args:
        label_offset: data class ``k`` is logit ``k + label_offset``.
    """

    def __init__(self, label_offset: int = 0) -> None:
        self._classes = AccuracyMeter(label_offset)
        self._power: dict[str, list[float]] = {}  # signal, noise and number of values of each output
        self._n = 0
        self._vector = False

    def update(self, outputs: Values, labels: NDArray[np.integer[Any]] | None, reference: Values | None) -> None:
        """Count a batch.

        Args:
            outputs: of the artifact, real values, ``(n, ...)`` each.
            labels: data classes, ``(n,)``; they count where there is one vector of logits.
            reference: fp32's outputs in the same order.

        Raises:
            InputError: values are not finite, the reference has other outputs, or a label has no logit.
        """
        exact = None if reference is None else list(reference.values())
        if exact is not None and [x.size for x in exact] != [x.size for x in outputs.values()]:
            shapes, own = ([x.shape for x in each] for each in (exact, outputs.values()))
            raise InputError(f"fp32 has outputs of {shapes}, the artifact of {own}: not the same network")
        self._n += len(next(iter(outputs.values())))
        self._vector = is_vector(outputs)
        for k, (name, values) in enumerate(outputs.items()):
            _require_finite(values, "the artifact")
            if exact is not None:
                wide = exact[k].astype(np.float64).reshape(values.shape)
                _require_finite(wide, "fp32")
                held = self._power.setdefault(name, [0.0, 0.0, 0.0])
                held[0] += float(np.square(wide).sum())
                held[1] += float(np.square(values - wide).sum())
                held[2] += values.size
        if self._vector:
            ours, theirs = (None if x is None else x.reshape(len(x), -1) for x in (first(outputs), first(reference)))
            assert ours is not None
            self._classes.update(ours, labels, theirs)

    def result(self) -> Accuracy:
        """Return the figures of all batches so far; what was not given is ``None``."""
        if self._vector:
            return self._classes.result()
        return Accuracy(n=self._n, sqnr_db=min(self.sqnr_db().values(), default=None))

    def sqnr_db(self, floors: Sequence[float] = ()) -> dict[str, float]:
        """Return the SQNR of each output; none without a reference.

        Args:
            floors: the least signal of one value of each output; none by default.
        """
        least = floors if floors and self._power else [0.0] * len(self._power)
        each = zip(self._power.items(), least, strict=True)
        return {name: sqnr_db(max(signal, count * floor), noise) for (name, (signal, noise, count)), floor in each}


def is_vector(outputs: Values) -> bool:
    """Whether there is one output, and it is a vector of more than one number: what may be logits of classes."""
    shapes = [values.shape[1:] for values in outputs.values()]
    return len(shapes) == 1 and max(shapes[0]) == math.prod(shapes[0]) > 1


def first(outputs: Values | None) -> NDArray[Any] | None:
    """Return the first output."""
    return None if outputs is None else next(iter(outputs.values()))


def paired_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """Return the 95 % confidence interval on the drop in top-1, in points, from the pairing of the images.

    The adjusted Wald interval of Bonett and Price 2012, "Adjusted Wald Confidence Interval for a Difference of Binomial
    Proportions Based on Paired Data" (Journal of Educational and Behavioral Statistics 37(4), 479-488), which
    Fagerland, Lydersen and Laake 2014 recommend (Statistics in Medicine 33(16), 2850-2875). It adds one image to each
    of the two discordant counts, so that it stays honest for few images and where no image changed sides.

    Args:
        lost: images that fp32 has right and the artifact wrong.
        won: images that the artifact has right and fp32 wrong.
        n: all images.
    """
    p_lost, p_won = (lost + 1) / (n + 2), (won + 1) / (n + 2)
    centre = p_lost - p_won
    reach = Z_95 * math.sqrt((p_lost + p_won - centre**2) / (n + 2))
    return 100 * max(centre - reach, -1.0), 100 * min(centre + reach, 1.0)


def sqnr_db(signal: float, noise: float) -> float:
    """Return the SQNR, ``10 log10(sum ref^2 / sum (ref - got)^2)``, in dB, at most ``SQNR_CEILING_DB``."""
    if noise == 0:
        return SQNR_CEILING_DB
    floor = 10 ** (-SQNR_CEILING_DB / 10)
    return min(10 * math.log10(max(signal / noise, floor)), SQNR_CEILING_DB)


def parity(got: NDArray[Any], oracle: NDArray[Any]) -> Parity:
    """Return how far two integer arrays of one scale and zero point are apart, in LSB.

    Raises:
        InputError: they differ in shape or type, or are not integers.
    """
    if got.shape != oracle.shape or got.dtype != oracle.dtype or not np.issubdtype(got.dtype, np.integer):
        raise InputError(
            f"outputs {got.dtype} {got.shape} and {oracle.dtype} {oracle.shape} cannot be compared in LSB; "
            "both must be the same integers"
        )
    apart = np.abs(got.astype(np.int64) - oracle.astype(np.int64))
    return Parity(max_lsb=int(apart.max(initial=0)), mean_lsb=float(apart.mean()) if apart.size else 0.0)


def _require_finite(logits: NDArray[Any], whose: str) -> None:
    if not np.isfinite(logits).all():
        raise InputError(f"{whose} returns NaN or infinite values; its weights or its input are broken")
