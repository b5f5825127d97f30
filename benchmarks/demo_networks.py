"""Train the small networks of ``zoo.py`` on the demo data: `python benchmarks/demo_networks.py --out FOLDER`.

Each run is one `edgecnn train` in one thread. The same version of torch on the same kind of CPU writes the same bytes.
A network whose file is in the folder is left as it is, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

NETWORKS = {  # model name: options of `edgecnn train`
    "mobilenet_v3_small_0.5_64": "--images 8000 --epochs 20 --lr 0.015 --drop-connect 0",  # hard swish, squeeze-excite
    "efficientnet_b0_0.25x0.25_64": "--images 8000 --epochs 16 --lr 0.01 --drop-connect 0",  # swish, squeeze-excite
    "mobilenet_v1_0.25_64": "--images 8000 --epochs 12 --lr 0.01",  # ReLU6, no residual
}


def weights_of(name: str, folder: Path) -> Path:
    """Return the place of the network's trained weights."""
    return folder / f"{name}.safetensors"


def train(name: str, folder: Path, seed: int = 0) -> None:
    """Train one network in a process of its own, and end with its status if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "edgecnn", "train", name, "--data", "demo", "--seed", str(seed)]
    words += [*NETWORKS[name].split(), "-o", str(weights_of(name, folder))]
    if status := subprocess.run(words, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode:
        raise SystemExit(status)


def main() -> None:
    """Train what is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="takes NAME.safetensors")
    parser.add_argument("--networks", default=",".join(NETWORKS), metavar="A,B", help="default: all")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    names = options.networks.split(",")
    if strange := [name for name in names if name not in NETWORKS]:
        parser.error(f"--networks {','.join(strange)}: allowed: {', '.join(NETWORKS)}")
    for name in names:
        if not weights_of(name, options.out).exists():
            train(name, options.out, options.seed)


if __name__ == "__main__":
    main()
