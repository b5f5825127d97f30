"""Tell what instruction sets this CPU has, and where int8 kernels saturate: x86 without VNNI adds bytes in 16 bits.

Without VNNI, an x86 kernel multiplies unsigned by signed bytes with ``pmaddubsw``, which adds two neighbouring products
in 16 bits and clips the sum (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, "PMADDUBSW").
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn_targets.interface import Saturation

SAFE_WEIGHT = 32767 // (2 * 255)  # 64: two products with the largest unsigned byte just fit
VNNI = {"avx_vnni": "AVX-VNNI", "avx512_vnni": "AVX-512 VNNI"}
FLAGS = {"avx2": "AVX2", **VNNI, "asimddp": "Arm dot product", "i8mm": "Arm int8 matrix multiplication"}
"""Linux's flags of a CPU that int8 kernels are chosen by, and what their makers call them."""


def cpu_flags() -> frozenset[str]:
    """Return Linux's flags of this CPU; none on another system."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    found = (line.partition(":") for line in lines)
    return frozenset(word for key, _, words in found if key.strip() in ("flags", "Features") for word in words.split())


def has_vnni() -> bool:
    """Return whether this CPU multiplies and adds bytes in 32 bits; true on anything but x86."""
    flags = cpu_flags()
    return "sse2" not in flags or not flags.isdisjoint(VNNI)


def instruction_set() -> str:
    """Return this CPU's, of ``interface.INSTRUCTION_SETS``."""
    if "avx2" not in cpu_flags():
        return "other"
    return "vnni" if has_vnni() else "avx2"


def can_saturate(weights: Iterable[NDArray[Any]], *, vnni: bool) -> bool:
    """Return whether int8 weights are so large that a sum of two products can be clipped, where there is no VNNI."""
    return not vnni and any(np.abs(w.astype(np.int16)).max(initial=0) > SAFE_WEIGHT for w in weights)


def warning(runtime: str) -> Saturation:
    """Return what a user must know where it can saturate."""
    return Saturation(
        f"this CPU has no VNNI: {runtime}'s int8 kernels add pairs of products in 16 bits, which saturates with 8-bit "
        "weights; accuracy here is not that of a CPU with VNNI. For such CPUs export with --reduce-range; to check the "
        "artifact as a CPU with VNNI would run it, use --exact-kernels"
    )
