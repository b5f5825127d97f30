"""Run by ``test_keras.py`` in a process of its own: a network of ``keras.applications`` with random weights.

    keras_witness.py NETWORK OPTIONS(JSON) IMAGES.npy WEIGHTS LOGITS.npy

IMAGES are NHWC, as the network takes them; LOGITS come out before the softmax. Batch norms get statistics of their
own, or half of the proof would be idle.
"""

from __future__ import annotations

import json
import sys

import keras
import numpy as np

network, options, images, weights, logits = sys.argv[1:]
model = getattr(keras.applications, network)(weights=None, classifier_activation=None, **json.loads(options))
rng = np.random.default_rng(0)
for layer in model.layers:
    values = layer.get_weights()
    if isinstance(layer, keras.layers.BatchNormalization):
        size = values[0].shape
        values = [
            rng.uniform(0.8, 1.2, size),
            rng.normal(0, 0.1, size),
            rng.normal(0, 0.1, size),
            rng.uniform(0.8, 1.2, size),
        ]
    elif isinstance(layer, keras.layers.Normalization):
        values = [rng.uniform(0.4, 0.5, values[0].shape), rng.uniform(0.2, 0.3, values[1].shape), values[2]]
    elif values:  # fan-in of He et al. 2015: activations keep their size through any depth
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        fan = np.prod(values[0].shape[:2] if depthwise else values[0].shape[:-1])
        values = [rng.normal(0, np.sqrt(2 / fan), values[0].shape), *(rng.normal(0, 0.1, v.shape) for v in values[1:])]
    layer.set_weights(values)
for layer in model.layers:
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()
(model.save_weights if weights.endswith(".weights.h5") else model.save)(weights)
np.save(logits, np.asarray(model(np.load(images), training=False)).reshape(len(np.load(images)), -1))
