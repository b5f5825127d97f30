"""Networks of one TFLite op each, as functions that add it to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from tflite_files import TfliteFile

SAME, VALID = 0, 1
RELU, RELU_N1_TO_1, RELU6, TANH = 1, 2, 3, 4

Body = Callable[[TfliteFile, int], int]


def _pointwise(**fields: int) -> Body:
    return lambda f, x: f.conv(x, f.normal(5, 1, 1, 4), f.normal(5), **fields)


def _averaged(f: TfliteFile, x: int) -> int:
    return f.op("MEAN", [x, f.constant([1, 2])], "ReducerOptionsT", keepDims=True)


def _pooled(builtin: str, padding: int, **more: int) -> Body:
    options = {"padding": padding, "strideH": 2, "strideW": 2, "filterHeight": 3, "filterWidth": 2, **more}
    return lambda f, x: f.op(builtin, [x], "Pool2DOptionsT", **options)


def _two(builtin: str, options: str, *shape: int, turned: bool = False, **fields: int) -> Body:
    """An op of the input and a constant of a shape; of the input and its mirror image without one."""

    def body(f: TfliteFile, x: int) -> int:
        other = f.normal(*shape) if shape else f.op("REVERSE_V2", [x, f.constant([2])])
        return f.op(builtin, [other, x] if turned else [x, other], options, **fields)

    return body


def _with(builtin: str, value: object, options: str = "", **fields: object) -> Body:
    """An op of the input and a constant."""
    return lambda f, x: f.op(builtin, [x, f.constant(value)], options, **fields)


def _unary(builtin: str, options: str = "", **fields: object) -> Body:
    return lambda f, x: f.op(builtin, [x], options, **fields)


def _positive(builtin: str, options: str = "", **fields: object) -> Body:
    return lambda f, x: f.op(builtin, [f.op("ADD", [x, f.constant([3.0])], "AddOptionsT")], options, **fields)


def _split(f: TfliteFile, x: int) -> int:
    parts = f.op("SPLIT", [f.constant(3), x], "SplitOptionsT", numSplits=2, outputs=2)
    return f.op("SUB", [parts, parts + 1], "SubOptionsT")


def _split_v(f: TfliteFile, x: int) -> int:
    parts = f.op("SPLIT_V", [x, f.constant([1, -1]), f.constant(1)], "SplitVOptionsT", numSplits=2, outputs=2)
    return f.op("ADD", [parts, parts + 1], "AddOptionsT")


def _unpacked(f: TfliteFile, x: int) -> int:
    parts = f.op("UNPACK", [x], "UnpackOptionsT", num=4, axis=-1, outputs=4)
    return f.op("PACK", [parts + 2, parts, parts + 1], "PackOptionsT", valuesCount=3, axis=1)


def _strided(index: list[int], end: list[int], step: list[int], **masks: int) -> Body:
    return lambda f, x: f.op(
        "STRIDED_SLICE", [x, f.constant(index), f.constant(end), f.constant(step)], "StridedSliceOptionsT", **masks
    )


def _transposed(stride: int, padding: int, kernel: int, size: int, bias: bool, **more: int) -> Body:
    def body(f: TfliteFile, x: int) -> int:
        rest = [f.normal(5)] if bias else []
        inputs = [f.constant([1, size, size, 5]), f.normal(5, kernel, kernel, 4), x, *rest]
        fields = {"strideH": stride, "strideW": stride, "padding": padding, **more}
        return f.op(
            "TRANSPOSE_CONV", inputs, "TransposeConvOptionsT", version=4 if more else 3 if bias else 1, **fields
        )

    return body


def _dilated(f: TfliteFile, x: int) -> int:
    """As TensorFlow 1 wrote a dilation of 2: 6x6 padded by 2 on each side."""
    blocks = f.op("SPACE_TO_BATCH_ND", [x, f.constant([2, 2]), f.constant([[2, 2], [2, 2]])], "SpaceToBatchNDOptionsT")
    made = f.conv(blocks, f.normal(3, 3, 3, 4), f.normal(3), padding=VALID, fusedActivationFunction=RELU)
    return f.op("BATCH_TO_SPACE_ND", [made, f.constant([2, 2]), f.constant([[0, 0], [0, 0]])], "BatchToSpaceNDOptionsT")


def _dilated_same(f: TfliteFile, x: int) -> int:
    """Padded to a multiple of the block, and cropped again."""
    blocks = f.op("SPACE_TO_BATCH_ND", [x, f.constant([4, 4]), f.constant([[0, 2], [0, 2]])], "SpaceToBatchNDOptionsT")
    made = f.conv(blocks, f.normal(1, 3, 3, 4), f.normal(4), "DEPTHWISE_CONV_2D", padding=SAME)
    return f.op("BATCH_TO_SPACE_ND", [made, f.constant([4, 4]), f.constant([[0, 2], [0, 2]])], "BatchToSpaceNDOptionsT")


def computed_shape(f: TfliteFile, x: int) -> int:
    """A flattening as TensorFlow writes it for an open batch: the shape is computed."""
    shape = f.op("SHAPE", [x], "ShapeOptionsT", made="int32", outType=2)
    batch = f.op(
        "STRIDED_SLICE", [shape, f.constant([0]), f.constant([1]), f.constant([1])],
        "StridedSliceOptionsT", made="int32", shrinkAxisMask=1,
    )  # fmt: skip
    wanted = f.op("PACK", [batch, f.constant(np.int32(-1))], "PackOptionsT", made="int32", valuesCount=2, axis=0)
    return f.op("RESHAPE", [x, wanted], "ReshapeOptionsT")


def _folded(f: TfliteFile, x: int) -> int:
    """A weight in float16, and a bias that is computed from constants."""
    weight = f.constant(f.rng.normal(size=(3, 1, 1, 4)), "float16")
    weight = f.op("DEQUANTIZE", [weight], "DequantizeOptionsT", version=3)
    bias = f.op("EXP", [f.op("MUL", [f.normal(3), f.normal(1)], "MulOptionsT")])
    return f.conv(x, weight, bias)


def _int8_weights(f: TfliteFile, x: int) -> int:
    """Weight-only quantization: int8 behind DEQUANTIZE."""
    from tflite_files import grid

    stored = f.rng.integers(-127, 128, (3, 1, 1, 4))
    weight = f.constant(stored, "int8", quant=grid([0.1, 0.2, 0.3], axis=0))
    return f.conv(x, f.op("DEQUANTIZE", [weight], "DequantizeOptionsT", version=5), f.normal(3))


def _linear(keep: bool, *shape: int, activation: int = 0) -> Body:
    def body(f: TfliteFile, x: int) -> int:
        source = f.op("RESHAPE", [x, f.constant(list(shape))], "ReshapeOptionsT")
        inputs = [source, f.normal(5, shape[-1]), f.normal(5)]
        return f.op("FULLY_CONNECTED", inputs, "FullyConnectedOptionsT", version=5 if keep else 1, keepNumDims=keep,
                    fusedActivationFunction=activation)  # fmt: skip

    return body


def _matmul(left_constant: bool, adjoint: int) -> Body:
    def body(f: TfliteFile, x: int) -> int:
        rows = f.op("RESHAPE", [x, f.constant([1, 36, 4])], "ReshapeOptionsT")
        other = f.normal(36, 5) if left_constant else f.op("TRANSPOSE", [rows, f.constant([0, 2, 1])])
        if left_constant:
            return f.op("BATCH_MATMUL", [other, rows], "BatchMatMulOptionsT", adjX=True)
        inputs = [rows, rows] if adjoint else [rows, other]
        return f.op("BATCH_MATMUL", inputs, "BatchMatMulOptionsT", adjY=bool(adjoint))

    return body


def _select(f: TfliteFile, x: int) -> int:
    mask = f.constant(f.rng.integers(0, 2, (1, 6, 6, 4)), "bool")
    return f.op("SELECT_V2", [mask, x, f.constant([0.5])], "SelectV2OptionsT")


def _joined(f: TfliteFile, x: int) -> int:
    parts = [f.normal(1, 6, 6, 2), x, f.normal(1, 6, 6, 1), f.op("ABS", [x])]
    return f.op("CONCATENATION", parts, "ConcatenationOptionsT", axis=3)


def _lowest(f: TfliteFile, x: int) -> int:
    """As edgecnn writes a max pool with a padding of its own."""
    widths, low = f.constant([[0, 0], [1, 1], [1, 0], [0, 0]]), f.constant([np.finfo(np.float32).min])
    padded = f.op("PADV2", [x, widths, low], "PadV2OptionsT")
    return _pooled("MAX_POOL_2D", VALID)(f, padded)


def _reduced(builtin: str, axes: list[int], keep: bool) -> Body:
    return lambda f, x: f.op(builtin, [x, f.constant(axes)], "ReducerOptionsT", keepDims=keep)


def _resized(builtin: str, aligned: bool, half: bool) -> Body:
    return lambda f, x: f.op(
        builtin, [x, f.constant([9, 13])], builtin.title().replace("_", "") + "OptionsT",
        alignCorners=aligned, halfPixelCenters=half, version=3,
    )  # fmt: skip


BODIES: Mapping[str, Body] = {
    "conv same": lambda f, x: f.conv(x, f.normal(5, 3, 3, 4), f.normal(5), padding=SAME, strideH=2, strideW=2),
    "conv valid": lambda f, x: f.conv(x, f.normal(5, 3, 2, 4), f.normal(5), padding=VALID, dilationHFactor=2),
    "conv in groups": lambda f, x: f.conv(x, f.normal(6, 3, 3, 2), f.normal(6), padding=SAME),
    "conv relu6": _pointwise(fusedActivationFunction=RELU6),
    "conv relu_n1_to_1": _pointwise(fusedActivationFunction=RELU_N1_TO_1),
    "conv tanh": lambda f, x: f.op("TANH", [_pointwise()(f, x)]),
    "depthwise": lambda f, x: f.conv(x, f.normal(1, 3, 3, 4), f.normal(4), "DEPTHWISE_CONV_2D", padding=SAME),
    "depthwise of two": lambda f, x: f.conv(
        x, f.normal(1, 3, 3, 8), f.normal(8), "DEPTHWISE_CONV_2D", depthMultiplier=2, strideH=2, strideW=2
    ),
    "transposed conv same": _transposed(2, SAME, 3, 12, bias=False),
    "transposed conv odd": _transposed(2, SAME, 4, 11, bias=True),
    "transposed conv valid": _transposed(3, VALID, 2, 18, bias=True),
    "transposed conv relu": _transposed(2, VALID, 3, 13, bias=True, fusedActivationFunction=RELU),
    "dilation by blocks": _dilated,
    "dilation by blocks, cropped": _dilated_same,
    "linear": _linear(False, 1, 144),
    "linear of rows": _linear(False, 1, 36, 4),
    "linear, dimensions kept": _linear(True, 1, 36, 4, activation=RELU),
    "linear, four dimensions kept": _linear(True, 1, 6, 6, 4),
    "matmul": _matmul(False, 0),
    "matmul, turned": _matmul(False, 1),
    "matmul of a constant": _matmul(True, 0),
    "add": _two("ADD", "AddOptionsT", fusedActivationFunction=RELU),
    "add of a constant": _two("ADD", "AddOptionsT", 1, 1, 1, 4),
    "add of a vector": _two("ADD", "AddOptionsT", 4, fusedActivationFunction=RELU_N1_TO_1),
    "add of zero": lambda f, x: f.op(
        "ADD", [_pointwise()(f, x), f.constant([0.0])], "AddOptionsT", fusedActivationFunction=RELU
    ),
    "sub": _two("SUB", "SubOptionsT"),
    "sub from a constant": _two("SUB", "SubOptionsT", 6, 4, turned=True),
    "mul": _two("MUL", "MulOptionsT", fusedActivationFunction=RELU6),
    "mul by a column": _two("MUL", "MulOptionsT", 6, 1, 1),
    "div": lambda f, x: f.op("DIV", [x, _positive("EXP")(f, x)], "DivOptionsT"),
    "div by a constant": _two("DIV", "DivOptionsT", 4),
    "minimum": _two("MINIMUM", "MaximumMinimumOptionsT"),
    "maximum of a number": _two("MAXIMUM", "MaximumMinimumOptionsT", 1),
    "pow": lambda f, x: f.op("POW", [_positive("ABS")(f, x), f.constant([1.5])], "PowOptionsT"),
    "squared difference": _two("SQUARED_DIFFERENCE", "SquaredDifferenceOptionsT", 4),
    "select": _select,
    **{name: _unary(name) for name in ("ABS", "ELU", "EXP", "HARD_SWISH", "LOGISTIC", "NEG", "SQUARE", "TANH")},
    **{name: _unary(name) for name in ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LOG_SOFTMAX")},
    **{name: _positive(name) for name in ("LOG", "SQRT", "RSQRT")},
    "leaky_relu": _unary("LEAKY_RELU", "LeakyReluOptionsT", alpha=0.3),
    "gelu": _unary("GELU", "GeluOptionsT", approximate=False),
    "gelu by tanh": _unary("GELU", "GeluOptionsT", approximate=True),
    "prelu": lambda f, x: f.op("PRELU", [x, f.normal(1, 1, 4)]),
    "prelu of one slope": lambda f, x: f.op("PRELU", [x, f.constant(np.full((1, 1, 4), 0.25))]),
    "prelu of every place": lambda f, x: f.op("PRELU", [x, f.normal(6, 6, 4)]),
    "softmax": _unary("SOFTMAX", "SoftmaxOptionsT", beta=1.0),
    "softmax of beta": _unary("SOFTMAX", "SoftmaxOptionsT", beta=0.5),
    "l2 norm": _unary("L2_NORMALIZATION", "L2NormOptionsT"),
    "max pool": _pooled("MAX_POOL_2D", SAME),
    "max pool of lowest": _lowest,
    "average pool": _pooled("AVERAGE_POOL_2D", SAME, fusedActivationFunction=RELU),
    "average pool valid": _pooled("AVERAGE_POOL_2D", VALID),
    **{
        f"{builtin} of {axes}{' kept' if keep else ''}": _reduced(builtin, axes, keep)
        for builtin in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN")
        for axes, keep in (([1, 2], False), ([1, 2], True), ([3], False), ([-3], True), ([1, 2, 3], False))
    },
    "concat": _two("CONCATENATION", "ConcatenationOptionsT", axis=-1),
    "concat of constants": _joined,
    "pad": _with("PAD", [[0, 0], [1, 2], [0, 1], [0, 0]]),
    "pad of channels": _with("PAD", [[0, 0], [0, 0], [0, 0], [1, 2]]),
    "pad of a number": lambda f, x: f.op(
        "PADV2", [x, f.constant([[0, 0], [1, 1], [1, 1], [0, 0]]), f.constant([0.5])], "PadV2OptionsT"
    ),
    "mirror, reflected": _with("MIRROR_PAD", [[0, 0], [2, 1], [0, 3], [0, 0]], "MirrorPadOptionsT", mode=0),
    "mirror, symmetric": _with("MIRROR_PAD", [[0, 0], [2, 1], [0, 3], [1, 0]], "MirrorPadOptionsT", mode=1),
    "reshape": _with("RESHAPE", [1, -1, 8], "ReshapeOptionsT"),
    "reshape without a batch": _with("RESHAPE", [12, 12], "ReshapeOptionsT"),
    "reshape to a computed shape": computed_shape,
    "squeeze": lambda f, x: f.op("SQUEEZE", [_averaged(f, x)], "SqueezeOptionsT", squeezeDims=[1, 2]),
    "expand": _with("EXPAND_DIMS", [2], "ExpandDimsOptionsT"),
    "transpose": _with("TRANSPOSE", [0, 3, 1, 2], "TransposeOptionsT"),
    "transpose, conv": lambda f, x: _pointwise()(f, f.op("TRANSPOSE", [x, f.constant([0, 2, 1, 3])])),
    "slice": lambda f, x: f.op("SLICE", [x, f.constant([0, 1, 2, 0]), f.constant([1, 3, -1, 2])], "SliceOptionsT"),
    "strided slice": _strided([0, 1, 0, 0], [1, 6, 6, 4], [1, 2, 3, 1]),
    "strided slice, no options": lambda f, x: f.op(
        "STRIDED_SLICE", [x, f.constant([0, 1, 0, 0]), f.constant([1, 6, 6, 4]), f.constant([1, 2, 3, 1])]
    ),
    "strided slice, masks": _strided([0, 1, -3], [0, 9, 0], [1, 2, 1], endMask=5, beginMask=1),
    "strided slice, backwards": _strided([0, 5, 0, 3], [1, 0, 0, 0], [1, -1, 1, -1], endMask=5 + 8, beginMask=1 + 8),
    "strided slice, one row": _strided([0, 2], [0, 0], [1, 1], shrinkAxisMask=2, beginMask=1, endMask=1),
    "strided slice, new axis": _strided(
        [0, 0, 0, 1], [0, 0, 0, 3], [1, 1, 1, 1], newAxisMask=2, ellipsisMask=4, endMask=1
    ),
    "split": _split,
    "split of sizes": _split_v,
    "unpack, pack": _unpacked,
    "gather": lambda f, x: f.op("GATHER", [x, f.constant([3, 0, 0])], "GatherOptionsT", axis=2),
    "gather of a table": lambda f, x: f.op("GATHER", [x, f.constant([[3, 0], [1, 1]])], "GatherOptionsT", axis=3),
    "reverse": _with("REVERSE_V2", [2], "ReverseV2OptionsT"),
    "tile": _with("TILE", [1, 2, 1, 3], "TileOptionsT"),
    "broadcast": lambda f, x: f.op(
        "BROADCAST_TO", [_averaged(f, x), f.constant([1, 3, 5, 4])], "BroadcastToOptionsT", version=2
    ),
    **{
        f"{builtin} {aligned} {half}": _resized(builtin, aligned, half)
        for builtin in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
        for aligned, half in ((False, False), (True, False), (False, True))
    },
    "depth to space": _unary("DEPTH_TO_SPACE", "DepthToSpaceOptionsT", blockSize=2),
    "space to depth": _unary("SPACE_TO_DEPTH", "SpaceToDepthOptionsT", blockSize=2),
    "folded constants": _folded,
    "int8 weights alone": _int8_weights,
}  # fmt: skip
