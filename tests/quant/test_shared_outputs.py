"""An output that joins parts of very different ranges is a finding: its SQNR does not show what is lost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import edgecnn


class Detector(nn.Module):
    """Boxes up to hundreds, and scores up to 1."""

    def __init__(self, joined, size):
        super().__init__()
        self.boxes, self.scores, self.joined, self.size = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 2, 3), joined, size

    def forward(self, x):
        boxes, scores = self.size * self.boxes(x).sigmoid().flatten(2), self.scores(x).sigmoid().flatten(2)
        return torch.cat([boxes, scores], 1) if self.joined else (boxes, scores)


@pytest.mark.parametrize(("joined", "size", "warned"), [(True, 320.0, True), (True, 4.0, False), (False, 320.0, False)])
def test_boxes_and_scores_in_one_output(joined, size, warned):
    torch.manual_seed(0)
    network = edgecnn.load(Detector(joined, size).eval(), input_shape=(3, 8, 8), preprocess="mean=0,std=255")
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    texts = [f.text for f in edgecnn.quantize(network, images).findings if f.code == "crowded_output"]
    assert bool(texts) == warned
    if warned:
        assert "joins parts of very different ranges" in texts[0]
        assert "return them as two outputs" in texts[0]


class Pooled(nn.Module):
    """Slices of what no layer makes: they share its scale."""

    def forward(self, x):
        y = nn.functional.max_pool2d(x * torch.tensor([0.01, 1.0, 1.0]).reshape(1, 3, 1, 1), 2)
        return y[:, :1], y[:, 1:]


def test_outputs_that_share_a_scale():
    network = edgecnn.load(Pooled().eval(), input_shape=(3, 8, 8), preprocess="mean=0,std=255")
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3), np.uint8)
    (text,) = [f.text for f in edgecnn.quantize(network, images).findings if f.code == "crowded_output"]
    assert text.startswith("outputs 'output' and 'output_1' are slices of very different ranges")
