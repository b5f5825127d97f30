"""The peer's way to an int8 .tflite: litert-torch converts, ai-edge-quantizer quantizes. Same weights, same images.

Run by ``export.py`` in an environment of its own, as one cold process: weights, calibration folder, model, output.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_quantizer import quantizer, recipe

from edgecnn.data import open_images
from edgecnn.models import resolve
from edgecnn.models.checkpoint import load_weights


class ChannelsLast(torch.nn.Module):
    """NHWC at the outside, as a TFLite user feeds it."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(1, H, W, 3) to logits."""
        out: torch.Tensor = self.module(x.permute(0, 3, 1, 2))
        return out


def main() -> None:
    """Quantize and write."""
    weights, calibration, model, output = sys.argv[1:]
    start = time.perf_counter()
    module, source = load_weights(resolve(model), Path(weights))
    side = source.spec.resolution
    converted = litert_torch.convert(ChannelsLast(module).eval(), (torch.zeros(1, side, side, 3),))
    images = open_images(calibration, demo_split="calibration", labelled=False, limit=300, shuffle=0)
    fed = [
        {"args_0": source.preprocess.normalise(pixels).astype(np.float32)}
        for pixels, _ in images.batches(source.preprocess, 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        plain = str(Path(folder) / "float.tflite")
        converted.export(plain)
        worker = quantizer.Quantizer(plain)
        worker.load_quantization_recipe(recipe.static_wi8_ai8())
        result = worker.calibrate({"serving_default": fed})
        Path(output).unlink(missing_ok=True)
        worker.quantize(result).export_model(output)
    print(f"peer: {time.perf_counter() - start:.1f} s inside the process")


if __name__ == "__main__":
    main()
