"""Bring your own ``nn.Module``: quantize it once, write three artifacts, and check each against the float network.

    python examples/own_module.py [FOLDER]

The module learns to tell the direction of stripes, from images that are drawn here. It needs no download, takes some
seconds, and leaves the artifacts in FOLDER (``out``).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

import edgecnn

SIZE = 32  # pixels, both sides
CLASSES = ("horizontal", "vertical", "rising", "falling")


class Residual(nn.Module):
    """A depthwise separable block beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, C, H, W), the shape of the input."""
        return x + self.layers(x)


def network() -> nn.Module:
    """Return the module, with random weights: (N, 3, 32, 32) to (N, 4) logits."""
    stem = [nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, len(CLASSES))]
    return nn.Sequential(*stem, Residual(16), *head)


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images of noisy stripes, uint8 (N, 32, 32, 3), and the class of each, (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, len(CLASSES), count)
    y, x = np.mgrid[:SIZE, :SIZE]
    along = np.stack([y, x, y + x, y - x])[labels]
    waves = np.sin(along * rng.uniform(0.5, 1.2, (count, 1, 1)) + rng.uniform(0, 6, (count, 1, 1)))
    pixels = (
        127.5
        + 90 * waves[..., None] * rng.uniform(0.3, 1, (count, 1, 1, 3))
        + rng.normal(0, 40, (count, SIZE, SIZE, 3))
    )
    return np.clip(pixels, 0, 255).astype(np.uint8), labels


def train(module: nn.Module, pixels: np.ndarray, labels: np.ndarray, steps: int = 120) -> None:
    """Train for some seconds; an image is fed as (pixel - 127.5) / 127.5, channels first."""
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().sub(127.5).div(127.5)
    targets = torch.from_numpy(labels)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for step in range(steps):
        batch = torch.arange(step * 32, step * 32 + 32) % len(inputs)
        loss = nn.functional.cross_entropy(module(inputs[batch]), targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main(folder: Path) -> edgecnn.Report:
    """Train, quantize, write and check; return the last report."""
    torch.manual_seed(0)
    module = network()
    train(module, *stripes(1024, seed=0))
    net = edgecnn.load(
        module.eval(),
        input_shape=(3, SIZE, SIZE),
        preprocess=edgecnn.Preprocess(mean=127.5, std=127.5),
        labels=CLASSES,
        name="stripes",
    )
    print(net)

    calibration, _ = stripes(100, seed=1)
    int8 = edgecnn.quantize(net, calibration, reduce_range=True)  # 7-bit weights: exact on x86 without VNNI too
    print(int8)

    pixels, labels = stripes(400, seed=2)
    limits = edgecnn.Limits(max_drop=2, min_agreement=97, max_lsb=1)
    for target in ("tflite", "onnx", "openvino"):
        artifact = edgecnn.convert(int8, target).save(folder)
        report = edgecnn.validate(artifact, pixels, labels=labels, limits=limits)
        print(report)
        assert report.passed, report.failures
    return report


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
