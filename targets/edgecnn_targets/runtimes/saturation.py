"""Tell what instruction sets this CPU has, and where int8 kernels saturate: x86 without VNNI adds bytes in 16 bits.

Without VNNI, an x86 kernel multiplies unsigned by signed bytes with ``pmaddubsw``, which adds two neighbouring products
in 16 bits and clips the sum (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, "PMADDUBSW").
"""

from __future__ import annotations

import os
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
ONEDNN_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""Environment variable with the highest instruction set that oneDNN, and so OpenVINO, uses (oneDNN, "CPU Dispatcher
Control")."""
NO_VNNI, AVX_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE"), ("AVX2_VNNI", "AVX2_VNNI_2")  # of its values
EXACT = "exact: int8 sums have 32 bits"
UNKNOWN = "not known: this system does not list its CPU's instruction sets"


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


def onednn_has_vnni() -> bool:
    """Return ``has_vnni`` as OpenVINO sees it: the environment may limit its instruction sets."""
    limit = os.environ.get(ONEDNN_LIMIT, "").upper()
    if limit in AVX_VNNI and "sse2" in cpu_flags():
        return "avx_vnni" in cpu_flags()
    return has_vnni() and limit not in NO_VNNI


def kernels() -> dict[str, str]:
    """Return, by target, whether the fastest int8 kernels of this CPU are exact, and what helps where not."""
    if not cpu_flags():
        return {"tflite": EXACT, "onnx": UNKNOWN, "openvino": UNKNOWN, "c": EXACT}
    clipped = "may saturate with 8-bit weights: export with --reduce-range, or check with --exact-kernels"
    onnx = EXACT if has_vnni() else f"{clipped}, which are slower"
    openvino = EXACT if onednn_has_vnni() else f"{clipped}, which compute in float32"
    return {"tflite": EXACT, "onnx": onnx, "openvino": openvino, "c": EXACT}


def instruction_set() -> str:
    """Return this CPU's, of ``interface.INSTRUCTION_SETS``."""
    if "avx2" not in cpu_flags():
        return "other"
    return "vnni" if has_vnni() else "avx2"


def can_saturate(weights: Iterable[NDArray[Any]], *, vnni: bool) -> bool:
    """Return whether int8 weights are so large that a sum of two products can be clipped, where there is no VNNI."""
    return not vnni and any(np.abs(w.astype(np.int16)).max(initial=0) > SAFE_WEIGHT for w in weights)


def warning(runtime: str, why: str = "this CPU has no VNNI") -> Saturation:
    """Return what a user must know where it can saturate."""
    return Saturation(
        f"{why}: {runtime}'s int8 kernels add pairs of products in 16 bits, which saturates with 8-bit "
        "weights; accuracy here is not that of a CPU with VNNI. For such CPUs export with --reduce-range; to check the "
        "artifact as a CPU with VNNI would run it, use --exact-kernels"
    )


def onednn_warning() -> Saturation:
    """Return the warning of OpenVINO, which names the environment variable where that is the reason."""
    if has_vnni():
        return warning("OpenVINO", f"{ONEDNN_LIMIT}={os.environ.get(ONEDNN_LIMIT)} leaves VNNI out")
    return warning("OpenVINO")
