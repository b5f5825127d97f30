"""torchvision, timm, efficientnet_pytorch as witnesses: their state dicts, loaded by name, give their logits.

They are needed for nothing else, so are not installed with the package: `pip install torchvision timm`, of the
kind of torch that is there (CPU or CUDA). ``pytest -m slow`` has one network of each kind, ``EDGECNN_ALL_TORCH=1`` all.
"""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from edgecnn.models import resolve
from edgecnn.models.checkpoint import load_weights

pytestmark = pytest.mark.slow
EVERY = "EDGECNN_ALL_TORCH" in os.environ
SAME = 1e-5  # largest difference over the largest logit: float32's rounding, in another order
FEW = {
    "alexnet",
    "googlenet",
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "efficientnet-b0",
}
FEW |= {"efficientnet_lite0"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network of theirs and of ours; ``convention`` where their names do not say it; ``size`` in pixels."""

    library: str
    theirs: str
    ours: str
    convention: str | None = None
    size: int = 96

    def __str__(self) -> str:
        return f"{self.library}-{self.theirs}"


EFFICIENTNETS = tuple(f"efficientnet_b{n}" for n in range(8))
LITES = tuple(f"efficientnet_lite{n}" for n in range(5))
VGGS = tuple(f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn"))
OTHERS = ("googlenet", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large")
CASES = (
    *(
        Case(library="torchvision", theirs=name, ours=name)
        for name in (*OTHERS, *(f"resnet{n}" for n in (18, 34, 50, 101, 152)), *EFFICIENTNETS)
    ),
    *(Case(library="torchvision", theirs=name, ours=name, size=224) for name in ("alexnet", *VGGS)),
    *(Case(library="efficientnet_pytorch", theirs=name.replace("_", "-"), ours=name) for name in EFFICIENTNETS),
    *(
        Case(library="timm", theirs=f"{kind}{theirs}", ours=ours, convention="timm-tf" if kind else "timm")
        for kind in ("", "tf_")
        for theirs, ours in (
            *((name, name) for name in (*EFFICIENTNETS, *LITES)),
            *((f"mobilenetv3_{size}_100", f"mobilenet_v3_{size}") for size in ("small", "large")),
        )
    ),
)


def network(case: Case) -> nn.Module:
    """Theirs, without weights."""
    try:
        library = importlib.import_module({"torchvision": "torchvision.models"}.get(case.library, case.library))
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another kind of torch
        pytest.skip(f"{case.library} is not installed, or not for this torch: {error}")
    if case.library == "efficientnet_pytorch":
        return library.EfficientNet.from_name(case.theirs, image_size=case.size)
    if case.library == "timm":
        return library.create_model(case.theirs, pretrained=False)
    options = {"init_weights": False} if case.theirs.startswith(("vgg", "googlenet")) else {}
    return getattr(library, case.theirs)(weights=None, **options)


def filled(module: nn.Module) -> nn.Module:
    """Random weights of He et al. 2015, and batch norms with statistics of their own, or half of the proof would be
    idle."""
    random = torch.Generator().manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.running_var):
                tensor.uniform_(0.8, 1.2, generator=random)
            for tensor in (layer.bias.data, layer.running_mean):
                tensor.normal_(0, 0.1, generator=random)
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight.data.normal_(0, (2 / layer.weight[0].numel()) ** 0.5, generator=random)
            if layer.bias is not None:
                layer.bias.data.normal_(0, 0.1, generator=random)
    return module.eval()


@pytest.mark.parametrize("case", [c for c in CASES if EVERY or c.ours in FEW], ids=str)
def test_a_state_dict_gives_the_logits_of_its_library(case, tmp_path):
    theirs = filled(network(case))
    torch.save(theirs.state_dict(), tmp_path / "w.pt")
    ours, _ = load_weights(resolve(f"{case.ours}_{case.size}"), tmp_path / "w.pt", convention=case.convention)
    x = torch.randn(1, 3, case.size, case.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        want, got = theirs(x), ours.eval()(x)
    assert want.shape == got.shape
    difference = float((want - got).abs().max() / want.abs().max())
    assert difference < SAME, f"{difference:.2g} of the largest logit apart"
