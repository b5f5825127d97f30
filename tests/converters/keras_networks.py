"""Run by ``test_keras_importer.py`` in a process of its own: small networks of Keras, saved, and what they compute.

    keras_networks.py FOLDER [tf_keras]

For each network: ``NAME.keras`` and ``NAME.h5``, and ``NAME.npz`` with its inputs ``in0`` … and outputs ``out0`` …
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

if sys.argv[2:] == ["tf_keras"]:
    import tf_keras as keras
else:
    import keras

L = keras.layers
THREE = keras.__version__.startswith("3")


def convolutions(x):
    x = L.Conv2D(6, 3, strides=2, padding="same", use_bias=False)(x)
    x = L.BatchNormalization()(x)
    x = L.ReLU(6.0)(x)
    x = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, activation="relu")(x)
    x = L.SeparableConv2D(8, 3, dilation_rate=2, padding="same")(x)
    x = L.Conv2D(8, (3, 1), groups=2, activation="swish")(x)
    x = L.BatchNormalization(scale=False)(x)
    x = L.Conv2DTranspose(5, 3, strides=2, padding="same", activation="tanh")(x)
    return L.Conv2DTranspose(4, (2, 4), strides=(3, 1))(x)


def transposed(x):
    return [
        L.Conv2DTranspose(3, kernel, strides=stride, padding=padding)(x)
        for kernel in (2, 3, 4)
        for stride in (1, 2, 3)
        for padding in ("same", "valid")
    ]


def rows(x):
    x = L.Conv1D(6, 3, padding="causal", activation="relu")(x)
    x = L.BatchNormalization()(x)
    x = L.Conv1D(8, 3, strides=2, padding="same")(x)
    x = L.BatchNormalization()(x)
    x = L.MaxPooling1D(2)(x)
    x = L.SeparableConv1D(8, 3, padding="same")(x)
    x = L.ZeroPadding1D((1, 2))(x)
    x = L.AveragePooling1D(3, strides=1, padding="same")(x)
    x = L.UpSampling1D(2)(x)
    x = L.Cropping1D((1, 0))(x)
    x = L.Conv1DTranspose(4, 3, strides=2)(x)
    return L.GlobalMaxPooling1D()(x), L.GlobalAveragePooling1D()(x)


def activations(x):
    names = [
        "linear", "relu", "elu", "selu", "gelu", "softplus", "softsign", "swish", "mish", "tanh", "sigmoid",
        "exponential", "hard_sigmoid", "softmax",
    ]  # fmt: skip
    if THREE:
        names += [
            "relu6", "leaky_relu", "celu", "squareplus", "soft_shrink", "sparse_plus", "silu", "glu", "tanh_shrink",
            "sparse_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "log_softmax", "log_sigmoid",
        ]  # fmt: skip
    made = [L.Activation(name)(x) for name in names]
    made += [L.ReLU(max_value=1.0, negative_slope=0.1)(x), L.ELU(0.7)(x), L.Softmax(axis=1)(x)]
    made += [L.LeakyReLU(0.3)(x), L.PReLU(alpha_initializer="glorot_uniform", shared_axes=[1, 2])(x)]
    return [*made, L.PReLU(alpha_initializer="glorot_uniform")(x)]


def norms(x):
    made = [L.LayerNormalization()(x), L.LayerNormalization(axis=[1, 2, 3], center=False)(x)]
    made += [L.GroupNormalization(2)(x), L.GroupNormalization(-1)(x), L.UnitNormalization()(x)]
    made += [L.BatchNormalization(axis=1)(x), L.BatchNormalization(center=False)(x)]
    made += [L.Normalization(mean=[0.5, 0.2, 0.1, 0.3], variance=[1.0, 2.0, 3.0, 4.0])(x)]
    made += [L.Rescaling(2.0, offset=-1.0)(x), L.LayerNormalization()(L.Flatten()(x))]
    return made


def shapes(x):
    made = [L.ZeroPadding2D(((1, 0), (2, 1)))(x), L.ZeroPadding2D(2)(x), L.Cropping2D(((1, 2), (0, 1)))(x)]
    made += [L.UpSampling2D((2, 3))(x), L.UpSampling2D(2, interpolation="bilinear")(x), L.Resizing(5, 11)(x)]
    made += [L.Resizing(5, 11, interpolation="nearest")(x), L.Permute((3, 1, 2))(x), L.Reshape((-1, 8))(x)]
    made += [L.MaxPooling2D(3, strides=2, padding="same")(x), L.AveragePooling2D((2, 3), padding="same")(x)]
    made += [L.GlobalMaxPooling2D(keepdims=True)(x), L.GlobalAveragePooling2D(keepdims=True)(x)]
    flat = L.GlobalAveragePooling2D()(x)
    made += [L.RepeatVector(3)(flat), L.Dense(3, activation="relu")(x), L.Dense(2)(L.Reshape((6, 32))(x))]
    made += [L.CenterCrop(3, 4)(x), L.Dense(7)(L.Flatten()(x)), L.GaussianNoise(0.1)(L.Dropout(0.5)(flat))]
    return made


def merges(x, y):
    x, y = L.Conv2D(4, 3, padding="same")(x), L.Conv2D(4, 3, padding="same")(y)
    made = [kind()([x, y]) for kind in (L.Add, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Subtract)]
    gate = L.Dense(4, activation="sigmoid")(L.GlobalAveragePooling2D()(x))
    made += [L.Multiply()([x, gate]), L.Concatenate()([x, y]), L.Concatenate(axis=1)([x, y])]
    return [*made, L.Add()([x, y, x])]


def first_channels(x):
    x = L.Conv2D(5, 3, strides=2, padding="same", data_format="channels_first")(x)
    x = L.BatchNormalization(axis=1)(x)
    x = L.MaxPooling2D(2, data_format="channels_first")(x)
    x = L.Activation("relu")(x)
    pooled = L.GlobalAveragePooling2D(data_format="channels_first")(x)
    return L.Dense(4)(L.Flatten(data_format="channels_first")(x)), L.Dense(3)(L.Flatten()(x)), pooled


def nested(x):
    """Models in models, twice, and layers used several times."""
    given = keras.Input((8, 8, 4))
    core = keras.Model(
        given, L.BatchNormalization(name="bn")(L.Conv2D(4, 3, padding="same", name="c1")(given)), name="core"
    )
    middle = keras.Sequential([keras.Input((8, 8, 4)), core, L.ReLU(), L.Conv2D(4, 1, name="c2")], name="middle")
    shared = L.Conv2D(4, 1, name="shared")
    other = keras.Input((8, 8, 4), name="a"), keras.Input((8, 8, 4), name="b")
    two = keras.Model(other, [L.Add()([*other]), L.Conv2D(2, 1, name="c1")(other[1])], name="two")
    x = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="c1")(x)
    x = shared(middle(shared(x)))
    a, b = two([x, middle(x)])
    return a, b, middle(a)


def operations(x):
    ops = keras.ops
    y = 1.0 - x * 2.0 + 0.5
    y = ops.relu(y) / 3.0
    y = ops.concatenate([y, x], axis=-1)
    parts = ops.split(y, 2, axis=-1)
    z = ops.transpose(y[:, 1:5, ::2, :], (0, 3, 1, 2))
    scores = ops.matmul(ops.reshape(x, (1, 64, 4)), ops.transpose(ops.reshape(x, (1, 64, 4)), (0, 2, 1)))
    made = [parts[0] * parts[1], z, ops.mean(y, axis=[1, 2]), ops.max(y, axis=-1, keepdims=True)]
    made += [ops.softmax(scores), ops.sqrt(ops.abs(y) + 1.0), ops.clip(y, -0.5, 0.5), ops.gelu(y), ops.sum(y, axis=1)]
    made += [ops.pad(y, ((0, 0), (1, 2), (0, 0), (0, 0))), ops.expand_dims(y[:, 0], 1), ops.maximum(x, 0.1)]
    return [*made, ops.stack([x, -x], axis=1)[:, 1], ops.image.resize(x, (4, 6)), ops.power(ops.abs(x) + 1.0, 1.5)]


def attention(x):
    return L.MultiHeadAttention(2, 3)(x, x), L.MultiHeadAttention(2, 3, value_dim=5, use_bias=False)(x, x[:, :4])


def functions(x):
    import tensorflow as tf

    y = tf.nn.relu(1.0 - x * 2.0 + 0.5) / 3.0
    y = tf.concat([y, x], axis=-1)
    first, second = tf.split(y, 2, axis=-1)
    made = [first * second, tf.transpose(y[:, 1:5, ::2, :], (0, 3, 1, 2)), tf.reduce_mean(y, axis=[1, 2])]
    made += [
        tf.image.resize(x, (4, 6)),
        tf.nn.depth_to_space(x, 2),
        tf.nn.space_to_depth(x, 2),
        tf.sqrt(tf.abs(y) + 1.0),
    ]
    return [*made, tf.pad(y, [[0, 0], [1, 2], [0, 0], [0, 0]]), tf.maximum(x, 0.1), tf.clip_by_value(x, -0.5, 0.5)]


def chain(keras):
    rows = [L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(5, activation="softmax")]
    return keras.Sequential([keras.Input((8, 8, 3)), *rows], name="chain")


NETWORKS = {
    "convolutions": (convolutions, [(15, 13, 4)]),
    "transposed": (transposed, [(5, 4, 2)]),
    "rows": (rows, [(24, 3)]),
    "activations": (activations, [(4, 5, 6)]),
    "norms": (norms, [(6, 5, 4)]),
    "shapes": (shapes, [(8, 6, 4)]),
    "merges": (merges, [(6, 6, 3), (6, 6, 2)]),
    "first_channels": (first_channels, [(3, 16, 12)]),
    "nested": (nested, [(16, 16, 3)]),
    "attention": (attention, [(10, 6)]),
    **({"operations": (operations, [(8, 8, 4)])} if THREE else {"functions": (functions, [(8, 8, 4)])}),
}


def randomized(model, rng):
    """Give every weight a value that tells it from others; variances are positive."""
    for weight in model.weights:
        shape = tuple(weight.shape)
        fan = max(int(np.prod(shape[:-1])), 1)
        value = rng.normal(0, 1 / np.sqrt(fan), shape) if len(shape) > 1 else rng.uniform(0.4, 1.6, shape)
        if len(shape) and "int" not in str(weight.dtype):
            weight.assign(value.astype(np.float32))


def main(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for name, (build, shapes_of) in {**NETWORKS, "chain": (None, [(8, 8, 3)])}.items():
        if build is None:
            model = chain(keras)
        else:
            inputs = [keras.Input(shape, name=f"in{k}") for k, shape in enumerate(shapes_of)]
            outputs = build(*inputs)
            model = keras.Model(inputs, [*outputs] if isinstance(outputs, (list, tuple)) else outputs, name=name)
        randomized(model, rng)
        given = [rng.standard_normal((1, *shape)).astype(np.float32) for shape in shapes_of]
        arrays = {f"in{k}": v for k, v in enumerate(given)}
        if THREE or name != "first_channels":  # TensorFlow by itself has no kernels for channels first on a CPU
            made = model(given if len(given) > 1 else given[0], training=False)
            made = made if isinstance(made, (list, tuple)) else [made]
            arrays |= {f"out{k}": keras.ops.convert_to_numpy(v) if THREE else np.asarray(v) for k, v in enumerate(made)}
        np.savez(folder / f"{name}.npz", **arrays)
        model.save(folder / f"{name}.keras")
        if name != "operations":  # Keras itself cannot read those
            model.save(folder / f"{name}.h5")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
