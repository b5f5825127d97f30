"""What `--preprocess` takes, and the preprocessing that torch modules carry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import pytest
from torch import nn

import edgecnn
from edgecnn.errors import InputError
from edgecnn.preprocess import MEAN, STD, Preprocess

SIZED = Preprocess(resize=(224, 224))
TIMM = {
    "input_size": (3, 224, 224), "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center",
    "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25),
}  # fmt: skip


class Interpolation(Enum):
    """torchvision's ``InterpolationMode``."""

    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


@dataclass
class ImageClassification:
    """The attributes of torchvision's ``transforms._presets.ImageClassification``."""

    interpolation: Interpolation = Interpolation.BICUBIC
    crop_size: tuple[int, ...] = (24,)
    resize_size: tuple[int, ...] = (32,)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)


def module(**carried):
    made = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    for name, value in carried.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torchvision", Preprocess(resize=(256,), crop=(224, 224), mean=MEAN, std=STD)),
        ("timm", Preprocess(resize=(256,), crop=(224, 224), interpolation="bicubic", mean=MEAN, std=STD)),
        ("keras", Preprocess(resize=(224, 224))),
        ("timm,crop=160x160", Preprocess(resize=(182,), crop=(160, 160), interpolation="bicubic", mean=MEAN, std=STD)),
        ("keras,mean=0,std=255", Preprocess(resize=(224, 224), mean=(0.0,) * 3, std=(255.0,) * 3)),
        ("torchvision,crop=96x192", Preprocess(resize=(109, 219), crop=(96, 192), mean=MEAN, std=STD)),
        ("mean=imagenet", Preprocess(resize=(224, 224), mean=MEAN, std=STD)),
        ("std=1,mean=imagenet", Preprocess(resize=(224, 224), mean=MEAN, std=(1.0,) * 3)),
        ("mean=0,std=imagenet", Preprocess(resize=(224, 224), mean=(0.0,) * 3, std=STD)),
    ],
)
def test_presets_and_numbers_of_imagenet(text, expected):
    assert SIZED.override(text) == expected


@pytest.mark.parametrize("fed", [SIZED, SIZED.override("timm"), Preprocess(mean=(1.5,), std=(2.0,))])
def test_a_preprocessing_prints_as_the_text_that_makes_it(fed):
    assert Preprocess().override(str(fed)) in (fed, Preprocess(mean=1.5, std=2.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [("timn", "expected KEY=VALUE .* or one of torchvision, timm, keras"), ("timm,keras", "'keras'")],
)
def test_a_misspelt_or_second_preset_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        SIZED.override(text)
    with pytest.raises(InputError, match="needs the network's input size: timm,crop="):
        Preprocess().override("timm")


def test_a_preset_feeds_a_module_at_the_size_that_is_given():
    network = edgecnn.load(module(), input_shape=(3, 48, 48), preprocess="torchvision")
    assert network.preprocess == Preprocess(resize=(54,), crop=(48, 48), mean=MEAN, std=STD)
    assert edgecnn.load(module(), preprocess="keras,resize=32x32").input_shape == (32, 32, 3)
    with pytest.raises(InputError, match="needs the network's input size"):
        edgecnn.load(module(), preprocess="torchvision")


def test_a_module_of_timm_says_how_it_is_fed():
    network = edgecnn.load(module(pretrained_cfg=TIMM))
    assert network.input_shape == (224, 224, 3)
    fed = Preprocess(resize=(235,), crop=(224, 224), interpolation="bicubic", mean=127.5, std=63.75)
    assert network.preprocess == fed
    smaller = edgecnn.load(module(pretrained_cfg=TIMM), input_shape=(3, 96, 96), preprocess="interpolation=bilinear")
    assert (smaller.preprocess.resize, smaller.preprocess.interpolation) == ((101,), "bilinear")
    squashed = edgecnn.load(module(pretrained_cfg={**TIMM, "crop_mode": "squash"}))
    assert squashed.preprocess.resize == (235, 235)
    own = Preprocess(resize=(64, 64), mean=0, std=255)
    assert edgecnn.load(module(pretrained_cfg=TIMM), preprocess=own).preprocess == own


def test_transforms_of_torchvision_are_taken_from_the_module_or_the_caller():
    fed = Preprocess(resize=(32,), crop=(24, 24), interpolation="bicubic", mean=MEAN, std=STD)
    assert edgecnn.load(module(transforms=ImageClassification())).preprocess == fed
    network = edgecnn.load(module(), preprocess=ImageClassification())
    assert (network.preprocess, network.input_shape) == (fed, (24, 24, 3))
    with pytest.raises(InputError, match="interpolates by 'lanczos'"):
        edgecnn.load(module(), preprocess=ImageClassification(interpolation=Interpolation.LANCZOS))
    with pytest.raises(InputError, match=r"preprocess is a int; give .*weights.transforms\(\)"):
        edgecnn.load(module(), preprocess=3)
