"""A captured module's calls are made again one by one, whatever the strides of what they are given."""

from __future__ import annotations

import torch
from torch import nn

import edgecnn


class Windows(nn.Module):
    """Attention in windows, whose scaled queries torch views as matrices when they are traced."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(3, 24)

    def forward(self, x):
        rows = self.project(x.permute(0, 2, 3, 1).reshape(4, 16, 3))
        query, key, value = rows.reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
        made = ((query * 0.5) @ key.transpose(-2, -1)).softmax(-1) @ value
        return made.transpose(1, 2).reshape(1, -1)


def test_views_are_made_again_of_tensors_with_other_strides():
    torch.manual_seed(0)
    preprocess = edgecnn.Preprocess(mean=(0, 0, 0), std=(1, 1, 1))
    network = edgecnn.load(Windows().eval(), input_shape=(3, 8, 8), preprocess=preprocess)
    assert any(node.op == "batch_matmul" for node in network.graph)
