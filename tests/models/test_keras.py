"""keras.applications as an independent witness: the same weights give the same logits, to float rounding.

The whole list takes an hour of two cores; ``pytest -m slow`` has one network of each kind, ``EDGECNN_ALL_KERAS=1`` all.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from golden_files import golden

from benchmarks.keras_applications import witness
from edgecnn.models import resolve
from edgecnn.models.checkpoint import load_weights

pytestmark = pytest.mark.slow
LIMITS = golden("weights")["keras"]
EVERY = "EDGECNN_ALL_KERAS" in os.environ


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network of ours and of theirs; ``suffix`` of the weight file; ``blue_first``: theirs takes BGR."""

    ours: str
    network: str
    suffix: str = ".weights.h5"
    options: dict[str, Any] = field(default_factory=dict)
    blue_first: bool = False
    always: bool = False

    def __str__(self) -> str:
        return f"{self.network}{self.suffix}"


CASES = (
    Case(ours="mobilenet_v1_0.5_96", network="MobileNet", suffix=".h5", options={"alpha": 0.5}, always=True),
    Case(ours="mobilenet_v2_0.5_96", network="MobileNetV2", suffix=".keras", options={"alpha": 0.5}, always=True),
    Case(
        ours="mobilenet_v3_small_224", network="MobileNetV3Small", options={"include_preprocessing": False}, always=True
    ),
    Case(ours="mobilenet_v3_large_224", network="MobileNetV3Large", options={"include_preprocessing": False}),
    Case(ours="resnet50_64", network="ResNet50", suffix=".keras", blue_first=True, always=True),
    Case(ours="resnet101_64", network="ResNet101", blue_first=True),
    Case(ours="resnet152_64", network="ResNet152", blue_first=True),
    Case(ours="vgg16_32", network="VGG16", blue_first=True, always=True),
    Case(ours="vgg19_32", network="VGG19", blue_first=True),
    Case(ours="efficientnet_b0_96", network="EfficientNetB0", suffix=".keras", always=True),
    *(Case(ours=f"efficientnet_b{n}_96", network=f"EfficientNetB{n}") for n in range(1, 8)),
)


@pytest.fixture(scope="module")
def ask():
    with witness() as ask:
        yield ask


@pytest.mark.parametrize("case", [c for c in CASES if c.always or EVERY], ids=str)
def test_the_weights_of_keras_give_its_logits(case, ask, tmp_path):
    spec = resolve(case.ours)
    rng = np.random.default_rng(1)
    within = case.network.startswith("EfficientNet")  # normalises inside, so it takes pixels
    pixels = rng.integers(0, 256, (2, spec.resolution, spec.resolution, 3)).astype(np.float32)
    given = pixels if within else (pixels - 127.5) / 127.5
    weights = tmp_path / f"w{case.suffix}"
    want = ask(case.network, given[..., ::-1] if case.blue_first else given, [weights], **case.options)
    module, source = load_weights(spec, weights)
    x = source.preprocess.normalise(pixels) if within else given
    with torch.inference_mode():
        got = module(torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))).numpy()
    worst = float(np.abs(got - want).max() / np.abs(want).max())
    assert worst < LIMITS["max_relative"], f"largest difference {worst:.1e} of the largest logit"
    assert want.std(axis=1).min() > 0.01 * np.abs(want).max(), "the logits tell nothing apart: the proof would be empty"
