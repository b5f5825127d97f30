"""Make graph nodes of the aten ops of layers: convolutions, linear layers, batch norm, pools, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecnn.graph import layers, reductions
from edgecnn.graph.aten.arguments import Handler, arguments
from edgecnn.graph.aten.reducing import product
from edgecnn.graph.aten_translation import Translation
from edgecnn.graph.meta_kernels import pair, windows
from edgecnn.graph.node_builder import Value
from edgecnn.graph.ops import need
from edgecnn.graph.traced import Call


def _convolution(t: Translation, call: Call) -> Value:
    x, weight, bias, stride, padding, dilation, transposed, extra, groups = call.args[:9]
    value, kernel, shift = t.value(x), t.array(weight), None if bias is None else t.array(bias)
    need(kernel.ndim in (3, 4), f"a convolution of {kernel.ndim - 2} dimensions; 1 and 2 are supported")

    def sides(given: Any, missing: int) -> tuple[int, int]:
        return pair(given) if kernel.ndim == 4 else (missing, int(given[0]))

    (ph, pw), row = sides(padding, 0), kernel if kernel.ndim == 4 else kernel[:, :, None]
    window: dict[str, Any] = {
        "stride": sides(stride, 1),
        "padding": (ph, ph, pw, pw),
        "dilation": sides(dilation, 1),
        "groups": int(groups),
    }
    if transposed:
        return layers.conv_transpose(t, value, row.transpose(1, 2, 3, 0), shift, extra=sides(extra, 0), **window)
    return layers.conv(t, value, row.transpose(0, 2, 3, 1), shift, **window)


def _linear(t: Translation, call: Call) -> Value:
    """addmm(bias, x, weight.T), or mm(x, weight.T) without bias; of two activations, a product of matrices."""
    bias, x, weight = call.args if len(call.args) == 3 else (None, *call.args)
    alpha, beta = call.kwargs.get("alpha", 1), call.kwargs.get("beta", 1)
    if weight.constant is None or alpha != 1 or beta != 1 or (bias is not None and bias.constant is None):
        return product(t, x, weight, bias, alpha, beta)
    value, shift = t.value(x), None if bias is None else t.array(bias)
    matrix = t.array(weight).T
    if shift is not None:
        need(shift.shape == matrix.shape[:1], f"a bias of shape {shift.shape} for {len(matrix)} outputs")
    return layers.linear(t, value, matrix, shift)


def _batch_norm(t: Translation, call: Call) -> Value:
    """In float64."""
    x, weight, bias, mean, var, training, _, eps = call.args
    if training or mean is None or var is None:  # an instance norm, as torch makes it: a batch of 1 with all channels
        need(not call.layer.startswith("BatchNorm"), "batch norm without running statistics")
        factor, term = (None if p is None else t.array(p) for p in (weight, bias))
        return reductions.group_norm(t, t.value(x), x.shape[1], factor, term, float(eps))
    mu, sigma2 = (np.asarray(t.array(a), np.float64) for a in (mean, var))
    gamma = np.ones_like(mu) if weight is None else np.asarray(t.array(weight), np.float64)
    beta = np.zeros_like(mu) if bias is None else np.asarray(t.array(bias), np.float64)
    scale = gamma / np.sqrt(sigma2 + float(eps))
    return layers.batch_norm(t, t.value(x), scale, beta - mu * scale, alone=t.alone(x))


def _end_padding(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> tuple[int, int]:
    """Padding (before, after) that gives torch's output size."""
    last = (windows(size, kernel, stride, pad, ceil=ceil) - 1) * stride + kernel
    return pad, max(pad, last - size - pad) if ceil else pad


def _window(call: Call, kernel: Any, stride: Any, padding: Any, ceil: bool) -> dict[str, Any]:
    """Return kernel, stride and padding of a pool as the graph has them; of one dimension, of one row."""
    height, width = call.args[0].shape[-2:]
    (kh, kw), (ph, pw) = pair(kernel), pair(padding)
    sh, sw = pair(stride) if stride else (kh, kw)
    pad = (*_end_padding(height, kh, sh, ph, ceil), *_end_padding(width, kw, sw, pw, ceil))
    return {"kernel": (kh, kw), "stride": (sh, sw), "padding": pad}


def _max_pool(t: Translation, call: Call) -> Value:
    x, kernel, stride, padding, dilation, ceil = arguments(
        call, input=None, kernel_size=1, stride=None, padding=0, dilation=1, ceil_mode=False
    )
    value = t.value(x)
    if pair(dilation) != (1, 1):
        need(x not in t.unpadded, "a dilated max pool of what is padded by minus infinity")
        return _dilated_max_pool(t, call, value, kernel, stride, padding, dilation)
    window = _window(call, kernel, stride, padding, bool(ceil))
    if x in t.unpadded:
        value, sides = t.unpadded[x]
        need(not any(map(any, sides[:-2])), "a max pool of what is padded outside height and width")
        outer = (*sides[-2], *sides[-1])
        window["padding"] = tuple(a + b for a, b in zip(outer, window["padding"], strict=True))
    return layers.max_pool(t, value, **window)


def _dilated_max_pool(
    t: Translation, call: Call, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> Value:
    """Gather the pixels of each window side by side, rows first. A pixel outside is one inside of the same window."""
    for dim, side in ((-2, 0), (-1, 1)):
        size, taps, step = call.args[0].shape[dim], pair(kernel)[side], pair(stride or kernel)[side]
        count, dim = call.output.shape[dim], dim % len(call.output.shape)
        places = np.arange(count)[:, None] * step - pair(padding)[side] + np.arange(taps) * pair(dilation)[side]
        inside = (places >= 0) & (places < size)
        some = places[np.arange(count), inside.argmax(1)]
        x = t.gather(x, dim, np.where(inside, places, some[:, None]).reshape(-1).tolist())
        window = (taps, 1) if side == 0 else (1, taps)
        x = layers.max_pool(t, x, window, window)
    return x


def _avg_pool(t: Translation, call: Call) -> Value:
    x, kernel, stride, padding, ceil, count_padding, divisor = arguments(
        call, input=None, kernel_size=1, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor=None
    )
    counted = count_padding and pair(padding) != (0, 0)
    odd = "average pooling with divisor_override, or ceil_mode that counts padding"
    need(divisor is None and not (ceil and counted), odd)
    window = _window(call, kernel, stride, padding, bool(ceil))
    return layers.avg_pool(t, t.value(x), **window, outside_counts=bool(counted))


def _avg_pool_of_planes(t: Translation, call: Call) -> Value:
    """Average neighbouring planes alone, a step at a time, as ``local_response_norm`` does: a 1x1 convolution."""
    x, kernel, stride, padding, _, _, divisor = arguments(
        call, input=None, kernel_size=1, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor=None
    )
    (size, *flat), steps = ((list(given) * 3)[:3] for given in (kernel, stride or kernel))
    plain = flat == [1, 1] and steps == [1, 1, 1] and not np.any(padding) and divisor is None
    *batch, planes, height, width = x.shape
    need(plain and batch in ([1], [1, 1]), "average pooling over three dimensions; over two it is supported")
    read = np.arange(planes) - np.arange(planes - size + 1)[:, None]  # the place in its window of each plane
    weight = np.where((read >= 0) & (read < size), 1 / size, 0).astype(np.float32)[:, None, None]
    made = layers.conv(t, t.reshape(t.value(x), (1, planes, height, width)), weight, None)
    return t.reshape(made, call.output.shape)


def _adaptive_pool(t: Translation, call: Call) -> Value:
    """Average to a size other than (1, 1), which torch makes a mean."""
    largest = "max" in call.name
    if largest and call.output.shape[-2:] == (1, 1):
        return reductions.largest(t, t.value(call.args[0]), (-2, -1), keepdims=True)
    return layers.adaptive_pool(t, t.value(call.args[0]), pair(call.args[1]), largest=largest)


def _resize(t: Translation, call: Call) -> Value:
    """upsample_nearest and upsample_bilinear. A scale that does not divide the sizes samples at places of its own."""
    x, out = call.args[0], call.output.shape
    bilinear = "linear" in call.name
    corners, scales = (bool(call.args[2]), call.args[3:]) if bilinear else (False, call.args[2:])
    half = (bilinear and not corners) or "exact" in call.name
    value, have, want = t.value(x), x.shape[2:], out[2:]
    steps = [h / w if not s else 1 / s for h, w, s in zip(have, want, (*scales, *[None] * len(have)), strict=False)]
    if corners or all(abs(step * w - h) < 1e-6 * h for step, w, h in zip(steps, want, have, strict=True)):
        size = (want[0], want[1]) if len(want) == 2 else (1, want[0])
        mode = "bilinear" if bilinear else "nearest"
        return layers.resize(t, value, size, mode, align_corners=corners, half_pixel=half)
    for dim, (size, step, made) in enumerate(zip(have, steps, want, strict=True), 2):
        places = np.maximum((np.arange(made) + 0.5 * half) * step - 0.5 * (half and bilinear), 0)
        low = np.minimum(places.astype(int), size - 1)
        below = t.gather(value, dim, low.tolist())
        if not bilinear:
            value = below
            continue
        share = (places - low).astype(np.float32).reshape([-1 if k == dim else 1 for k in range(len(out))])
        above = t.gather(value, dim, np.minimum(low + 1, size - 1).tolist())
        value = t.binary("add", t.binary("mul", below, 1 - share), t.binary("mul", above, share))
    return value


def _resample(t: Translation, call: Call) -> Value:
    """Bicubic and antialiased resizing: a product with a matrix along each side, which torch itself says."""
    import torch

    x, value = call.args[0], t.value(call.args[0])
    op = torch.nn.functional.interpolate
    mode = "bicubic" if "bicubic" in call.name else "bilinear"
    _, size, corners, *scales = call.args
    for dim, side in ((2, 0), (3, 1)):
        have, want = x.shape[dim], int(size[side])
        scale = scales[side] if len(scales) > side else None
        need(
            scale is None or abs(scale * have - want) < 1e-6 * want, "a scale that does not divide the size; give size"
        )
        unit = torch.eye(have).reshape(1, have, have, 1).repeat(1, 1, 1, 2)
        columns = op(unit, (want, 2), mode=mode, align_corners=bool(corners), antialias=call.name.endswith("aa"))
        matrix = np.ascontiguousarray(columns[0, :, :, 0].numpy().T)  # (want, have)
        turned = t.transpose(value, [0, 1, *((2, 3) if dim == 3 else (3, 2))])
        made = layers.linear(t, turned, matrix, None)
        value = t.transpose(made, [0, 1, *((2, 3) if dim == 3 else (3, 2))])
    return value


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d"), _convolution),
    "linear": _linear,
    "batch_norm": _batch_norm,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "avg_pool3d": _avg_pool_of_planes,
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), _adaptive_pool),
    **dict.fromkeys(
        (
            *(f"upsample_{exact}{n}d" for exact in ("nearest", "nearest_exact") for n in (1, 2)),
            "upsample_linear1d",
            "upsample_bilinear2d",
        ),
        _resize,
    ),
    **dict.fromkeys(("upsample_bicubic2d", "upsample_bilinear2d_aa", "upsample_bicubic2d_aa"), _resample),
}
