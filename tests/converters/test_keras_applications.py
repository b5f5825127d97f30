"""``keras.applications`` as a witness of the importer: whole networks, from both kinds of file, beside TensorFlow.

``benchmarks/keras_applications.py`` measures all of them; here is one of each family, ``EDGECNN_ALL_KERAS=1`` all.
"""

from __future__ import annotations

import os

import pytest

from benchmarks import keras_applications as script

pytestmark = pytest.mark.slow
ONE_OF_EACH = (
    "Xception", "VGG16", "ResNet50", "ResNet50V2", "InceptionV3", "InceptionResNetV2", "MobileNet", "MobileNetV2",
    "MobileNetV3Small", "DenseNet121", "NASNetMobile", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny",
)  # fmt: skip


@pytest.fixture(scope="module")
def ask():
    with script.witness() as ask:
        yield ask


@pytest.mark.parametrize("network", script.NETWORKS if "EDGECNN_ALL_KERAS" in os.environ else ONE_OF_EACH)
def test_a_network_of_keras_applications_computes_what_tensorflow_says(network, ask):
    _, _, apart = script.measured(ask, network, 96, [".keras", ".h5"])
    assert max(apart) <= script.LIMIT
