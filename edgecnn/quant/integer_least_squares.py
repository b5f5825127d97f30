"""Integer least squares: the weights of a layer, each one of the two neighbours of its float value.

It is solved as GPTQ does, column by column, each column's rounding error spread over those that follow; what a block of
columns does to the others is one matrix product. Rows of no more than ``FEW`` taps, where the order of the columns
tells, are improved by coordinate descent, up to ``SWEEPS`` times over all weights, from there and from rounding to
nearest. No row is further from its aim than rounded to nearest.

Source: Frantar et al. 2022, "GPTQ", section 3 and algorithm 1.
"""

from __future__ import annotations

import torch

SWEEPS = 2
FEW = 128
BLOCK = 64  # columns
SHARES = (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)


def round_rows(
    covariance: torch.Tensor, cross: torch.Tensor, weights: torch.Tensor, scales: torch.Tensor, limit: int
) -> torch.Tensor:
    """Return integers ``(groups, rows, taps)``, each a neighbour of its float weight, of least squared error.

    Args:
        covariance: of the inputs, ``(groups, taps, taps)`` float64, symmetric; positive definite but for rounding.
        cross: covariance of inputs and wanted outputs, ``(groups, rows, taps)`` float64.
        weights: float64, the shape of the result.
        scales: float64, ``(groups, rows, 1)``.
        limit: the largest magnitude.
    """
    inverse, spread = _inverted(covariance)
    exact, aim = (weights / scales).mT, (cross / scales).mT  # in steps of the grid, a tap in each row
    low, high = (x.clamp(-limit, limit).float().contiguous() for x in (exact.floor(), exact.ceil()))
    found = [_spread_out(spread.float(), (inverse @ aim).float().contiguous(), low, high)]
    found.append(exact.round().clamp(-limit, limit).float().contiguous())
    coarse, wanted = covariance.float(), aim.float()
    for start in found if exact.shape[1] <= FEW else ():
        gradient = (aim - covariance @ start.double()).float().contiguous()
        _descend(coarse, gradient, start, low, high)
    first, second = (((coarse @ x - 2 * wanted) * x).sum(1, keepdim=True) for x in found)
    return torch.where(first <= second, found[0], found[1]).mT.double()


def _inverted(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the inverse and the upper Cholesky factor of it.

    Sums of products in float32 leave a matrix that is positive definite by little, or not at all. Then a share of its
    diagonal is added, the smallest of ``SHARES`` that makes it so. Source: Nocedal and Wright 2006, algorithm 3.3.

    Raises:
        ValueError: no share does, because the matrix is not finite.
    """
    diagonal = torch.diag_embed(covariance.diagonal(dim1=1, dim2=2))
    for share in SHARES:
        factor, faults = torch.linalg.cholesky_ex(covariance + share * diagonal if share else covariance)
        if not faults.any():
            inverse = torch.cholesky_inverse(factor)
            spread, faults = torch.linalg.cholesky_ex(inverse, upper=True)
            if not faults.any():
                return inverse, spread
    raise ValueError("the covariance of a layer's inputs is not finite")


def _spread_out(spread: torch.Tensor, wanted: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Round tap by tap; the error of each moves what is wanted of those behind it. ``wanted`` changes."""
    integers, taps = torch.empty_like(wanted), wanted.shape[1]
    for start in range(0, taps, BLOCK):
        stop = min(start + BLOCK, taps)
        errors = torch.empty_like(wanted[:, start:stop])
        for k in range(start, stop):
            torch.round(wanted[:, k], out=integers[:, k])
            integers[:, k].clamp_(low[:, k], high[:, k])
            error = (wanted[:, k] - integers[:, k]) / spread[:, k, k, None]
            wanted[:, k + 1 : stop] -= spread[:, k, k + 1 : stop, None] * error[:, None]
            errors[:, k - start] = error
        wanted[:, stop:] -= spread[:, start:stop, stop:].mT @ errors
    return integers


def _descend(
    covariance: torch.Tensor, gradient: torch.Tensor, integers: torch.Tensor, low: torch.Tensor, high: torch.Tensor
) -> None:
    """Move single integers while that lowers the error; ``integers`` and ``gradient`` change."""
    taps = integers.shape[1]
    for _ in range(SWEEPS):
        moved = False
        for start in range(0, taps, BLOCK):
            stop = min(start + BLOCK, taps)
            inside, before = gradient[:, start:stop].clone(), integers[:, start:stop].clone()
            for k in range(start, stop):
                better = (inside[:, k - start] / covariance[:, k, k, None]).add_(integers[:, k]).round_()
                better.clamp_(low[:, k], high[:, k])
                step = better - integers[:, k]
                inside -= covariance[:, start:stop, k, None] * step[:, None]
                integers[:, k] = better
            steps = integers[:, start:stop] - before
            if steps.any():
                gradient -= covariance[:, :, start:stop] @ steps
                moved = True
        if not moved:
            return
