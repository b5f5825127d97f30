"""Run a ``.tflite`` file in TensorFlow Lite Micro, in a process of its own: MODEL INPUTS.npy OUTPUTS.npy ARENA_BYTES.

What the interpreter says of its memory goes to stdout. Needs numpy and tflite_micro, and nothing of edgecnn.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(model: str, inputs: str, outputs: str, arena_bytes: str) -> None:
    """Run one inference per image."""
    import numpy as np
    from tflite_micro.python.tflite_micro import runtime  # type: ignore[import-untyped]

    os.dup2(1, 2)  # the interpreter speaks to stderr
    interpreter = runtime.Interpreter.from_bytes(Path(model).read_bytes(), arena_size=int(arena_bytes))
    made = []
    for image in np.load(inputs):
        interpreter.set_input(image[None], 0)
        interpreter.invoke()
        made.append(interpreter.get_output(0)[0])
    interpreter.print_allocations()
    np.save(outputs, np.stack(made))


if __name__ == "__main__":
    main(*sys.argv[1:])
