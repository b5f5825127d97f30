#!/usr/bin/env python3
"""Stands in for adb: files go to a folder that is the phone, and a few commands of its shell are known.

`FAKE_ADB` says how it fails: `none`, `several`, `unauthorized`, `offline`, `notool`, `crash`, `old`, `nothing`.
`FAKE_ADB_PHONE` is the folder. What it was called with is appended to `calls` in it, a line of JSON per call.
"""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

HOW = os.environ.get("FAKE_ADB", "")
PHONE = Path(os.environ["FAKE_ADB_PHONE"])
FAILS = {
    "none": "adb: no devices/emulators found",
    "several": "adb: more than one device/emulator",
    "unauthorized": "adb: device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set",
    "offline": "adb: device offline",
}
PROPERTIES = {"ro.product.model": "Fake 1", "ro.build.version.release": "14", "ro.product.cpu.abi": "arm64-v8a"}
# The output of benchmark_model, of tensorflow/lite/tools/benchmark at 2.16.
SAYS = """\
INFO: STARTING!
INFO: Graph: [{graph}]
INFO: Loaded model {graph}
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: Initialized session in 1.515ms.
INFO: Running benchmark for at least 10 iterations and at least 0.5 seconds but terminate if exceeding 150 seconds.
INFO: count=61 first=9112 curr=8629 min=8000 max=9112 avg=8147.4 std=114 p5=8010 median=8100 p95=8900

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 150 seconds.
INFO: count=120 first=8162 curr=8785 min=8088 max=9105 avg=8343.2 std=60 p5=8120 median=8291 p95=8628

INFO: Inference timings in us: Init: 1515, First inference: 9112, Warmup (avg): 8147.4, Inference (avg): 8343.2
INFO: Memory footprint delta from the start of the tool (MB): init=5.4 overall=7.1
"""


def place(path):
    """Return where a path of the phone is."""
    return PHONE / path.lstrip("/")


def shell(line):
    words = shlex.split(line.removesuffix(" 2>&1").removesuffix(" 2>/dev/null || true"))
    if words[0] == "taskset":
        words = words[2:]
    if words[0] == "mkdir":
        place(words[2]).mkdir(parents=True, exist_ok=True)
    elif words[0] == "rm":
        shutil.rmtree(place(words[2]), ignore_errors=True)
    elif words[0] == "getprop":
        sys.stdout.write(PROPERTIES[words[1]] + "\n")
    elif words[0] == "ls":
        sys.stdout.write("" if HOW == "notool" else f"{words[1]}\n")
    elif words[0].endswith("/benchmark_model"):
        graph = next(word for word in words if word.startswith("--graph=")).removeprefix("--graph=")
        assert place(graph).is_file()
        if HOW == "crash":
            sys.stdout.write("ERROR: Failed to construct interpreter\nSegmentation fault\n")
            return 139
        said = SAYS.format(graph=graph) if HOW != "nothing" else "INFO: STARTING!\n"
        sys.stdout.write(said.replace(" median=", " other=") if HOW == "old" else said)
    return 0


def main():
    with (PHONE / "calls").open("a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    if HOW in FAILS:
        sys.stderr.write(FAILS[HOW] + "\n")
        return 1
    words = sys.argv[3:] if sys.argv[1] == "-s" else sys.argv[1:]
    if words[0] == "get-state":
        sys.stdout.write("device\n")
    elif words[0] == "push":
        shutil.copyfile(words[1], place(words[2]))
    elif words[0] == "shell":
        return shell(words[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
