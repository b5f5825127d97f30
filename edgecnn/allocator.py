"""The machine's memory: whether there is enough, and that what layers free is kept for the next layer."""

from __future__ import annotations

import ctypes
import os
import sys

from edgecnn.errors import UnsupportedError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
LARGEST = 2**30  # bytes


def require_memory(what: str, least: int) -> None:
    """Nothing, where the machine has so many bytes, used or not; before they are asked for, as systems kill who does.

    Raises:
        UnsupportedError: it has not; says how much it has. A system that does not tell is believed to have enough.
    """
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    have = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 0 < have < least:
        raise UnsupportedError(f"{what} needs at least {least / 2**30:.1f} GiB of memory; there are {have / 2**30:.1f}")


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
