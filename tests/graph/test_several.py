"""Modules of several inputs and outputs, of any rank, exported and traced ones, and the check of what was captured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from user_modules import GOOD, Function
from wide_modules import WIDE

from edgecnn.errors import InputError
from edgecnn.graph import capture as capturing
from edgecnn.graph.capture import capture, imported
from edgecnn.graph.interpreter import TorchGraph
from edgecnn.graph.ir import Metadata
from edgecnn.import_check import check_import, random_inputs

SHAPE = (3, 12, 10)


class Found(NamedTuple):
    boxes: torch.Tensor
    scores: torch.Tensor


class Two(nn.Module):
    """Take an image and a vector."""

    def __init__(self, made):
        super().__init__()
        self.c, self.fc, self.made = nn.Conv2d(4, 6, 3), nn.Linear(5, 6), made

    def forward(self, image, meta):
        x = self.c(image) + self.fc(meta)[:, :, None, None]
        return self.made(x)


RETURNS = {
    "tuple": (lambda x: (x.relu(), x.mean((2, 3))), ["output", "output_1"]),
    "list": (lambda x: [x.relu(), (x + 1, x - 1)], ["output", "output_1", "output_2"]),
    "dict": (lambda x: {"boxes": x.relu(), "scores": x.mean((2, 3)).sigmoid()}, ["boxes", "scores"]),
    "named tuple": (lambda x: Found(x.relu(), x.amax(1)), ["boxes", "scores"]),
    "nested": (lambda x: {"a": [x + 1, x + 2], "b": {"c": x * 3}}, ["a", "a_1", "b_c"]),
}


@pytest.mark.parametrize(
    "shapes", [[(4, 8, 7), (5,)], {"image": (4, 8, 7), "meta": (5,)}, {"meta": (5,), "image": (4, 8, 7)}]
)
@pytest.mark.parametrize("name", RETURNS)
def test_several_inputs_and_outputs_have_names(name, shapes):
    made, names = RETURNS[name]
    module = Two(made).eval()
    graph = capture(module, shapes, Metadata())
    assert set(graph.inputs) == {"image", "meta"}
    assert list(graph.outputs) == names
    image, meta = torch.randn(1, 4, 8, 7), torch.randn(1, 5)
    with torch.no_grad():
        want = torch.utils._pytree.tree_leaves(module(image, meta))
    got = TorchGraph(graph).run({"image": image.permute(0, 2, 3, 1), "meta": meta})
    for name, value in zip(names, want, strict=True):
        value = value.permute(0, 2, 3, 1) if value.ndim == 4 else value
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (lambda: nn.Sequential(nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 2)), (7,)),
        (
            lambda: nn.Sequential(nn.Conv1d(2, 4, 5, 2, 2), nn.BatchNorm1d(4), nn.GELU(), nn.AdaptiveAvgPool1d(1)),
            (2, 40),
        ),
        (lambda: Function(lambda m, x: m.c(x[:, None]).amax(2), c=nn.Conv1d(1, 3, 8, 4)), (64,)),
        (lambda: nn.Conv2d(1, 4, 3), (1, 9, 8)),
        (lambda: nn.Conv2d(5, 4, 3, padding=1), (5, 9, 8)),
        (lambda: Function(lambda m, x: x.mean(1) * 2 + x[:, 0], c=nn.Identity()), (2, 3, 6, 5)),
    ],
)
def test_inputs_of_any_rank_and_any_number_of_channels(module, shape):
    torch.manual_seed(0)
    module, x = module().eval(), torch.randn(1, *shape)
    graph = capture(module, shape, Metadata())
    with torch.no_grad():
        want = module(x)
    got = TorchGraph(graph)(x.permute(0, 2, 3, 1) if x.ndim == 4 else x)
    torch.testing.assert_close(got, want.permute(0, 2, 3, 1) if want.ndim == 4 else want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 0, 4), "input 'input' has shape"),
        ((1, 2, 3, 4, 5), "1 to 4 numbers above 0, without the batch"),
        ([], "input .input. has shape"),
        ({}, "no input has a shape"),
        ({"image": "large"}, "input 'image' has shape 'large'"),
    ],
)
def test_a_shape_that_is_none_is_one_line(shape, message):
    with pytest.raises(InputError, match=message):
        capture(GOOD["residual"]().eval(), shape, Metadata())


PROGRAMS = (
    "conv_bn_relu6",
    "squeeze_excite",
    "in_place",
    "channel_shuffle",
    "attention",
    "up_bilinear",
    "positions",
    "splits",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["exported", "traced"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_torch_are_captured(name, kind):
    torch.manual_seed(0)
    module, x = {**GOOD, **WIDE}[name]().eval(), torch.randn(1, *SHAPE)
    with torch.no_grad():
        want = module(x)
    program = torch.export.export(module, (x,)) if kind == "exported" else torch.jit.trace(module, x)
    got = TorchGraph(capture(program, SHAPE, Metadata()))(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(got, want.permute(0, 2, 3, 1) if want.ndim == 4 else want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["residual", "in_place_chain", "attention", "windows", "batch_of_windows", "splits"])
def test_every_tensor_of_a_graph_is_compared_with_the_module(name):
    torch.manual_seed(0)
    made = imported({**GOOD, **WIDE}[name]().eval(), SHAPE, Metadata())
    assert made.reference is not None
    shown = made.reference(random_inputs(made.graph))
    for tensor in made.graph.activations():
        assert tensor.name not in shown or shown[tensor.name].shape == tensor.shape
    assert set(made.graph.outputs) <= set(shown)
    checked = check_import(made, capturing.simplified(made.graph))
    assert max(checked.differences.values()) < 1e-5


def test_a_graph_that_parts_from_its_module_is_refused_with_the_first_tensor():
    made = imported(GOOD["conv_bn_relu6"]().eval(), SHAPE, Metadata())
    weight = made.graph.constant("4.weight" if "4.weight" in made.graph.tensors else made.graph.nodes[0].inputs[1])
    wrong = made.graph.with_tensors(type(weight)(name=weight.name, value=np.asarray(weight.value * 1.1, np.float32)))
    with pytest.raises(InputError, match="The first tensor that parts is of "):
        check_import(type(made)(graph=wrong, reference=made.reference), capturing.simplified(wrong))
