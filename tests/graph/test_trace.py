"""The tracer: the shapes it gives itself are torch's, it leaves a module as it was, and it starts nothing heavy."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from bad_modules import BAD
from torch import nn
from user_modules import GOOD, Function, conv

from edgecnn.errors import InputError
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
from edgecnn.graph.meta_kernels import KERNELS, meta_result
from edgecnn.graph.trace import trace

SHAPE = (3, 12, 10)
SHAPES = {"input": SHAPE}
LIGHT = """
import sys
import torch
from edgecnn.graph.capture import capture
from edgecnn.graph.ir import Metadata
from edgecnn.models import resolve
from edgecnn.models.checkpoint import demo_weights, random_weights

modules = [random_weights(resolve(name))[0] for name in {names}]
for module in (*modules, demo_weights(resolve("mobilenet_v2_0.35_96"))[0]):
    capture(module, (3, 64, 64), Metadata())
print(*(name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules))
"""


ASKED = {  # what is left to torch: transposed and one-dimensional convolutions, limits that are tensors
    "convolution": (lambda args: args[6], lambda args: args[0].ndim != 4),
    "clamp": (lambda args: isinstance(args[1], torch.Tensor),),
}


def meta(*shape):
    return torch.empty(shape, device="meta")


X, WIDE, ROW = meta(1, 6, 12, 9), meta(1, 4, 12, 9), meta(1, 6)
CALLS = [  # the aten op, its overload, arguments
    *((name, "default", (X,)) for name in ("relu", "hardtanh", "sigmoid", "hardswish", "hardsigmoid", "silu")),
    ("clamp", "default", (X, 0, 6)),
    ("clamp", "Tensor", (X, meta(9), meta(2, 1, 1, 1))),
    ("clamp_min", "default", (X, 0)),
    ("_softmax", "default", (ROW, 1, False)),
    *(
        (name, "Tensor", (X, other))
        for name in ("add", "mul")
        for other in (X, meta(6, 1, 1), meta(3, 6, 12, 1), meta())
    ),
    ("add", "Tensor", (X, 2)),
    *(
        ("convolution", "default", (X, meta(4, 6 // groups, k, 3), bias, stride, pad, dilation, False, [0, 0], groups))
        for k, groups, bias, stride, pad, dilation in (
            (1, 1, None, [1, 1], [0, 0], [1, 1]),
            (3, 2, meta(4), [2, 2], [1, 1], [1, 1]),
            (5, 1, meta(4), [3, 2], [2, 0], [1, 2]),
            (2, 2, None, [2, 1], [0, 1], [3, 1]),
        )
    ),
    ("convolution", "default", (X, meta(6, 4, 3, 3), None, [2, 2], [1, 1], [1, 1], True, [1, 1], 1)),
    ("convolution", "default", (meta(1, 3, 9), meta(4, 3, 3), None, [1], [0], [1], False, [0], 1)),
    ("native_batch_norm", "default", (X, meta(6), None, meta(6), meta(6), False, 0.1, 1e-5)),
    ("native_batch_norm", "default", (ROW, meta(6), meta(6), meta(6), meta(6), False, 0.1, 1e-5)),
    *(
        ("max_pool2d_with_indices", "default", (X, kernel, stride, pad, dilation, ceil))
        for ceil in (False, True)
        for kernel, stride, pad, dilation in (
            ([2, 2], [], [0, 0], [1, 1]),
            ([3, 3], [2, 2], [1, 1], [1, 1]),
            ([2, 3], [3, 4], [1, 0], [1, 1]),
            ([3, 2], [1, 2], [0, 1], [2, 3]),
        )
    ),
    *(
        ("avg_pool2d", "default", (X, kernel, stride, pad, ceil))
        for ceil in (False, True)
        for kernel, stride, pad in (([2, 2], [], [0, 0]), ([3, 3], [2, 2], [1, 1]), ([4, 2], [3, 5], [2, 1]))
    ),
    ("_adaptive_avg_pool2d", "default", (X, [3, 5])),
    *(("mean", "dim", (X, dims, keep)) for dims in ([2, 3], [-1], [-2, -1], [0, 2]) for keep in (False, True)),
    ("cat", "default", ([X, WIDE, X], 1)),
    ("cat", "default", ([X, X], -1)),
    ("cat", "default", ([X, X],)),
    ("addmm", "default", (meta(5), ROW, meta(6, 5))),
    ("mm", "default", (ROW, meta(6, 5))),
]
WRONG = [
    ("add", "Tensor", (X, meta(4))),
    ("convolution", "default", (X, meta(4, 3, 3, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    ("convolution", "default", (X, meta(4, 6, 13, 3), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    ("convolution", "default", (X, meta(4, 6, 3, 3), meta(3), [1, 1], [0, 0], [1, 1], False, [0, 0], 1)),
    ("max_pool2d_with_indices", "default", (X, [3, 3], [1, 1], [2, 2])),
    ("max_pool2d_with_indices", "default", (X, [13, 3], [1, 1])),
    ("avg_pool2d", "default", (X, [3, 3], [1, 1], [2, 2])),
    ("mean", "dim", (X, [4])),
    ("mean", "dim", (X, [1, -3])),
    ("cat", "default", ([X, WIDE], 2)),
    ("cat", "default", ([X, X], 4)),
    ("addmm", "default", (meta(5), ROW, meta(5, 5))),
    ("mm", "default", (X, meta(6, 5))),
]


def outline(made):
    made = (made,) if isinstance(made, torch.Tensor) else made
    return [(tuple(t.shape), t.dtype, t.device.type) for t in made]


@pytest.mark.parametrize(("name", "overload", "args"), CALLS)
def test_shapes_are_those_of_torch(name, overload, args):
    made = meta_result(name, args)
    if any(asked(args) for asked in ASKED.get(name, ())):
        assert made is None
    else:
        assert outline(made) == outline(getattr(getattr(torch.ops.aten, name), overload)(*args))


def test_every_shape_is_compared_with_torch():
    assert {name for name, *_ in CALLS} == set(KERNELS)


@pytest.mark.parametrize(("name", "overload", "args"), WRONG)
def test_what_torch_refuses_is_left_to_torch(name, overload, args):
    assert meta_result(name, args) is None
    if name != "convolution" or args[2] is None:  # torch's meta kernel takes a bias of any length
        with pytest.raises((RuntimeError, IndexError, ValueError)):
            getattr(getattr(torch.ops.aten, name), overload)(*args)


def state(module):
    """Every attribute of every part, by identity, and what its dictionaries hold: parameters, buffers, hooks, parts."""
    held = [(path, k, v) for path, part in module.named_modules() for k, v in vars(part).items()]
    inner = [(path, k, name, id(v)) for path, k, d in held if isinstance(d, dict) for name, v in d.items()]
    return [(path, k, id(v)) for path, k, v in held], inner


@pytest.mark.parametrize("name", [*GOOD, *(name for name in BAD if name != "half")])
def test_a_module_is_as_it_was_whether_it_is_captured_or_refused(name):
    factory = GOOD[name] if name in GOOD else BAD[name][0]
    module = factory().eval()
    before, values = state(module), copy.deepcopy(module.state_dict())
    if name in GOOD:
        trace(module, SHAPES)
    else:
        with pytest.raises(InputError):
            capture(module, SHAPE, Metadata())
    assert state(module) == before
    assert all(torch.equal(values[k], v) for k, v in module.state_dict().items())


def test_a_result_that_the_module_kept_is_gone():
    module = GOOD["keeps_a_result"]()
    trace(module.eval(), SHAPES)
    assert not hasattr(module, "last")


def test_nothing_is_recorded_after_the_run():
    module = nn.Sequential(conv(), nn.ReLU()).eval()
    calls = trace(module, SHAPES).calls
    with torch.inference_mode():
        assert module(torch.ones(2, *SHAPE)).shape == (2, *SHAPE)
    assert [c.name for c in calls] == ["conv2d", "relu"]
    assert [(c.path, c.layer) for c in calls] == [("0", "Conv2d"), ("1", "ReLU")]


def test_a_shared_module_goes_by_the_path_it_was_called_on():
    calls = trace(GOOD["two_names"]().eval(), SHAPES).calls
    assert [c.path for c in calls] == ["0.0", "0.1", "1.0", "1.1"]


def test_a_module_made_in_the_run_goes_by_the_path_of_its_maker():
    inner = Function(lambda m, x: nn.ReLU()(m.c(x)), c=conv())
    calls = trace(nn.Sequential(inner).eval(), SHAPES).calls
    assert [(c.path, c.layer) for c in calls] == [("0.c", "Conv2d"), ("0", "")]


def test_the_line_is_the_user_s():
    module = Function(lambda m, x: nn.functional.relu(x)).eval()
    file, _, line = trace(module, SHAPES).calls[0].line.rpartition(":")
    assert file == __file__
    assert int(line) == module.function.__code__.co_firstlineno


def test_a_capture_imports_no_compiler():
    names = ("mobilenet_v2_0.35_64", "mobilenet_v3_small_0.5_64", "efficientnet_b0_64", "googlenet_64", "resnet18_64")
    code = LIGHT.format(names=names)
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
