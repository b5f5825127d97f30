"""Run a ``.tflite`` file in TensorFlow Lite Micro, in a process of its own.

Arguments: MODEL INPUTS.npz OUTPUTS.npz COUNT ARENA_BYTES.

Both archives hold ``arr_0`` and so on, in the file's order, (samples, ...). COUNT is of the outputs.

What the interpreter says of its memory goes to stdout. Needs numpy and tflite_micro, and nothing of edgecnn.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(model: str, inputs: str, outputs: str, count: str, arena_bytes: str) -> None:
    """Run one inference per sample."""
    import numpy as np
    from tflite_micro.python.tflite_micro import runtime  # type: ignore[import-untyped]

    os.dup2(1, 2)  # the interpreter speaks to stderr
    interpreter = runtime.Interpreter.from_bytes(Path(model).read_bytes(), arena_size=int(arena_bytes))
    with np.load(inputs) as archive:
        given = [archive[f"arr_{k}"] for k in range(len(archive.files))]
    made = []
    for k in range(len(given[0])):
        for index, array in enumerate(given):
            interpreter.set_input(array[k : k + 1], index)
        interpreter.invoke()
        made.append([interpreter.get_output(index) for index in range(int(count))])
    interpreter.print_allocations()
    np.savez(outputs, *(np.concatenate(arrays) for arrays in zip(*made, strict=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
