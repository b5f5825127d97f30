"""``keras.applications`` as a witness of the importer: whole networks, from both kinds of file, beside TensorFlow.

``benchmarks/keras_applications.py`` measures all of them; here is one of each family, ``EDGECNN_ALL_KERAS=1`` all.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "keras_applications.py"
ONE_OF_EACH = (
    "Xception", "VGG16", "ResNet50", "ResNet50V2", "InceptionV3", "InceptionResNetV2", "MobileNet", "MobileNetV2",
    "MobileNetV3Small", "DenseNet121", "NASNetMobile", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny",
)  # fmt: skip


@pytest.mark.parametrize("networks", ["*"] if "EDGECNN_ALL_KERAS" in os.environ else ONE_OF_EACH)
def test_a_network_of_keras_applications_computes_what_tensorflow_says(networks):
    done = subprocess.run([sys.executable, str(SCRIPT), "--networks", networks], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
