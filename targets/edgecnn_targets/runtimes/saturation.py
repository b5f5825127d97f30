"""Tell where int8 kernels saturate: x86 without VNNI adds products of bytes in 16 bits.

Without VNNI, an x86 kernel multiplies unsigned by signed bytes with ``pmaddubsw``, which adds two neighbouring products
in 16 bits and clips the sum (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, "PMADDUBSW").
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAFE_WEIGHT = 32767 // (2 * 255)  # 64: two products with the largest unsigned byte just fit


def has_vnni() -> bool:
    """Return whether this CPU multiplies and adds bytes in 32 bits; true on anything but x86."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text("utf-8") if info.exists() else ""
    return "avx2" not in flags or "avx512_vnni" in flags or "avx_vnni" in flags


def can_saturate(weights: Iterable[NDArray[Any]], *, vnni: bool) -> bool:
    """Return whether int8 weights are so large that a sum of two products can be clipped, where there is no VNNI."""
    return not vnni and any(np.abs(w.astype(np.int16)).max(initial=0) > SAFE_WEIGHT for w in weights)


def warning(runtime: str) -> str:
    """Return what a user must know where it can saturate."""
    return (
        f"this CPU has no VNNI: {runtime}'s int8 kernels add pairs of products in 16 bits, which saturates with 8-bit "
        "weights; accuracy here is not that of a CPU with VNNI. For such CPUs export with --reduce-range; to check the "
        "artifact as a CPU with VNNI would run it, use --exact-kernels"
    )
