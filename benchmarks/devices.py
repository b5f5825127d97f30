"""Artifacts on devices, side by side: a Markdown table of accuracy, distance from the integer reference,
instructions or cycles, time and memory.

    python benchmarks/devices.py --device cortex-a53,cortex-a76 --data DIR --limit 100 out/mobilenet_v2.tflite

Any device of `edgecnn devices` that is ready serves. Each row is one `edgecnn validate`, whose command is printed below
the table; the exit status is 1 where a check failed.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

HEADINGS = (
    "artifact", "device", "images", "top-1 (fp32)", "agreement", "LSB", "instructions", "cycles", "ms", "estimated ms",
    "heap KiB", "SRAM KiB", "flash KiB", "CPU s",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--device", required=True, help="names, with commas")
    parser.add_argument("--data", required=True, help="labelled images, or demo")
    parser.add_argument("--limit", default="100", help="images (default 100)")
    options = parser.parse_args()
    status, commands = 0, []
    print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    for artifact in options.artifacts:
        for device in options.device.split(","):
            words = ["validate", str(artifact), "--device", device, "--data", options.data, "--limit", options.limit]
            commands.append(f"edgecnn {' '.join(words)}")
            before = _children_s()
            done = subprocess.run(
                [sys.executable, "-m", "edgecnn", *words, "--json"], stdout=subprocess.PIPE, check=False
            )
            status = max(status, done.returncode)
            for entry in json.loads(done.stdout or b'{"entries": []}')["entries"]:
                print(f"| {' | '.join(_row(entry, _children_s() - before))} |", flush=True)
    print("\n" + "\n".join(f"    {command}" for command in commands))
    return status


def _children_s() -> float:
    """CPU seconds of user code in every process that has ended so far, emulators included."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


def _row(entry: dict[str, Any], seconds: float) -> tuple[str, ...]:
    accuracy, latency, resources = entry["accuracy"], entry["latency"], entry["resources"]
    return (
        f"{entry['model']} {entry['target']} {entry['precision']}",
        entry["device"],
        str(accuracy["n"]),
        f"{_shown(accuracy['top1'], '.2f')} ({_shown(accuracy['fp32_top1'], '.2f')})",
        _shown(accuracy["agreement"], ".2f"),
        _shown(entry["parity"]["max_lsb"], "g"),
        _shown(latency["instructions"], ","),
        _shown(resources["cycles"], ","),
        _shown(latency["median_ms"], ".2f"),
        _shown(resources["estimated_ms"], ".2f"),
        _shown(resources["heap_kib"], ",.0f"),
        _shown(resources["sram_kib"], ".0f"),
        _shown(resources["flash_kib"], ".0f"),
        f"{seconds:.1f}",
    )


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    raise SystemExit(main())
