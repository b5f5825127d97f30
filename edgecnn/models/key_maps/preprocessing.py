"""Preprocessing of each library's checkpoints, by resolution and by what the weight file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from edgecnn.preprocess import MEAN, STD, Preprocess

Tensors = Mapping[str, torch.Tensor]


def scaled(resolution: int, tensors: Tensors) -> Preprocess:
    """Resize the whole image to the model's side, pixels to -1..1."""
    return Preprocess(resize=(resolution, resolution))


def imagenet(resolution: int, tensors: Tensors) -> Preprocess:
    """Take the centre 87.5 %, ImageNet's mean and standard deviation (torchvision's and timm's evaluation)."""
    return replace(centred(resolution, tensors), mean=MEAN, std=STD)


def efficientnet(resolution: int, tensors: Tensors) -> Preprocess:
    """Do as torchvision with its EfficientNets, by their resolutions; others with a border of 16 pixels, as timm."""
    sides = {224: 256, 240: 256, 288: 288, 300: 320, 380: 384, 456: 456, 528: 528, 600: 600}
    return replace(bordered(resolution, tensors), resize=(sides.get(resolution, resolution + 32),))


def bordered(resolution: int, tensors: Tensors) -> Preprocess:
    """Leave out a border of 16 pixels, bicubic, ImageNet's mean and standard deviation (timm's EfficientNets)."""
    plain = imagenet(resolution, tensors)
    return replace(plain, resize=(resolution + 32,), interpolation="bicubic")


def shorter_side(resolution: int, tensors: Tensors) -> Preprocess:
    """Resize the shorter side to the model's, bicubic, ImageNet's mean and deviation (efficientnet_pytorch)."""
    return replace(bordered(resolution, tensors), resize=(resolution,))


def bordered_scaled(resolution: int, tensors: Tensors) -> Preprocess:
    """Leave out a border of 16 pixels, bicubic, pixels to -1..1 (timm's Lite and MobileNetV3 from TensorFlow)."""
    return Preprocess(resize=(resolution + 32,), crop=(resolution, resolution), interpolation="bicubic")


def centred(resolution: int, tensors: Tensors) -> Preprocess:
    """Take the centre 87.5 %, pixels to -1..1 (torchvision's GoogLeNet, whose ``transform_input`` does the latter)."""
    return Preprocess(resize=(round(resolution / 0.875),), crop=(resolution, resolution))


def cifar(resolution: int, tensors: Tensors) -> Preprocess:
    """Resize the whole image; ImageNet's mean and standard deviation (pytorch_resnet_cifar10)."""
    return Preprocess(resize=(resolution, resolution), mean=MEAN, std=STD)


def caffe(resolution: int, tensors: Tensors) -> Preprocess:
    """Resize the whole image, less ImageNet's mean (``keras.applications.imagenet_utils``, mode ``caffe``)."""
    return Preprocess(resize=(resolution, resolution), mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0))


def inside(resolution: int, tensors: Tensors) -> Preprocess:
    """Do as Keras' EfficientNets inside: pixels over 255, less the file's mean, over the root of its variance.

    The published weights hold ImageNet's standard deviation in place of the variance, and the network divides by its
    root once more (``keras.applications.efficientnet``: ``Rescaling(1 / sqrt(IMAGENET_STDDEV_RGB))``), so the file says
    which it is.
    """
    mean = tensors["normalization/mean"].double().flatten()
    variance = tensors["normalization/variance"].double().flatten()
    published = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)
    std = variance if torch.allclose(variance, published, rtol=1e-5, atol=0) else variance.sqrt()
    values: list[tuple[float, ...]] = [tuple(float(v) for v in t * 255) for t in (mean, std)]
    return Preprocess(resize=(resolution, resolution), mean=values[0], std=values[1])
