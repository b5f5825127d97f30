"""What ``edgecnn.child.Child`` calls in tests: a function that works, and native code that does not."""

from __future__ import annotations

import os
import sys
import time

import numpy as np

from edgecnn.errors import UnsupportedError
from edgecnn.serving import limit


def doubled(state, given, arrays):
    state["calls"] = state.get("calls", 0) + 1
    return {"calls": state["calls"], **given}, {name: 2 * array for name, array in arrays.items()}


def refuse(state, given, arrays):
    raise UnsupportedError("no such op")


def wrong(state, given, arrays):
    raise KeyError("gone")


def abort(state, given, arrays):
    sys.stderr.write("F0000 kernel.cc:7] Check failed: x > 0 in CONV_2D\n")
    sys.stderr.flush()
    os.abort()


def hang(state, given, arrays):
    time.sleep(600)


def fill(state, given, arrays):
    limit(state["memory"])
    return {}, {"x": np.zeros(2**33, np.uint8)}
