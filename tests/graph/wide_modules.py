"""Modules of everything that users of torch write beside plain convolutions, which must be captured; batch 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from user_modules import Function, conv


def of(function, **parts):
    """Make a factory of a module whose convolution comes first."""
    return lambda: Function(lambda m, x: function(m, m.c(x)), c=conv(), **parts)


def layer(*made):
    """Make a factory of layers in a row, a convolution first."""
    return lambda: nn.Sequential(conv(), *(make() for make in made))


def tokens(x):
    """(N, C, H, W) to (N, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def windows(m, x):
    """Swin's: (N, H, W, C) to windows of 3 x 5 pixels, attention, and back."""
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).roll((1, 2), (1, 2)).view(n, h // 3, 3, w // 5, 5, c).transpose(2, 3).reshape(-1, 15, c)
    q, k, v = (y @ m.w).chunk(3, -1)
    y = torch.softmax(q @ k.transpose(-2, -1) / 2 + m.b, -1) @ v
    y = y.view(n, h // 3, w // 5, 3, 5, c).transpose(2, 3).reshape(n, h, w, c)
    return y.permute(0, 3, 1, 2) + x


def heads(m, x):
    q, k, v = (part.unflatten(2, (1, 3)).transpose(1, 2) for part in m.qkv(tokens(x)).chunk(3, -1))
    made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    return m.out(made).transpose(1, 2).reshape(x.shape)


def channel_shuffle(m, x):
    y = m.wide(x)
    n, c, h, w = y.shape
    return y.view(n, 3, c // 3, h, w).transpose(1, 2).reshape(n, c, h, w)


def split_sums(m, x):
    a, b, c = x.split([1, 1, 1], 1)
    d, e = x[:, :, ::2].chunk(2, 3)
    return torch.stack([a + b, b * c], 2).flatten(1).sum(1, keepdim=True) + (d - e).abs().amax((1, 2, 3))[:, None]


def positions(m, x):
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.linspace(-1, 1, 10), indexing="ij")
    return x + (rows / 12 + columns) * torch.full((1,), 0.3)


def standardised(m, x):
    w = m.d.weight
    w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
    return F.conv2d(x, w, m.d.bias)


def class_token(m, x):
    return torch.cat([m.token.expand(1, -1, -1), tokens(x)], 1)[:, 0] + torch.cat([tokens(x), m.token], 1).mean(1)


def layer_norm_by_hand(m, x):
    mean = x.mean(1, keepdim=True)
    return (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6) * m.g[:, None, None]


def einsums(m, x):
    return torch.einsum("bchw,bchv->bcwv", x, x) + torch.einsum("bchw,cd->bdhw", x, m.k)[:, :, :10]


def audio(m, x):
    y = F.max_pool1d(F.conv1d(x.mean(2), m.w, padding=2), 2)
    return F.avg_pool1d(F.conv_transpose1d(y, m.w.transpose(0, 1)[:, :, :4], stride=2), 3)


def shifted_in_place(m, x):
    """Lin et al. 2019, temporal shift, along the height."""
    y = torch.zeros_like(x)
    y[:, :1, :-1] = x[:, :1, 1:]
    y[:, 1:2, 1:] = x[:, 1:2, :-1]
    y[:, 2:] = x[:, 2:]
    return y * 2


def assigned(m, x):
    y = torch.tanh(x)
    y[:, 0] = x[:, 1] * 2
    y[:, 1:, 3:5, 2:-1].mul_(3)
    return y + 1


def written_constant(m, x):
    """A mask that is made in place."""
    mask = torch.zeros(1, 1, 12, 10)
    mask[:, :, 2:9, 3:] = 1
    y = x * mask
    mask += 1
    return y + mask


SQUARE = {"w": nn.Parameter(torch.randn(3, 9)), "b": nn.Parameter(torch.randn(15, 15))}
ACTIVATIONS = {
    **{name.lower(): layer(getattr(nn, name)) for name in (
        "LeakyReLU", "PReLU", "ELU", "SELU", "CELU", "Tanh", "GELU", "Softplus", "Mish", "Hardswish", "Hardsigmoid",
        "SiLU", "LogSigmoid", "Softsign", "Hardtanh", "Softshrink", "Tanhshrink", "RReLU",
    )},
    "celu_2": layer(lambda: nn.CELU(2.0)),
    "elu_2": layer(lambda: nn.ELU(0.5)),
    "gelu_tanh": layer(lambda: nn.GELU("tanh")),
    "prelu_3": of(lambda m, x: F.prelu(x, m.a), a=nn.Parameter(torch.tensor([0.1, 0.2, -0.3]))),
    "softplus_2": layer(lambda: nn.Softplus(2)),
    "clamps": of(lambda m, x: x.clamp(-0.5, 0.25) + x.clamp_min(-1) * x.clamp_max(0.5)),
    "glu": of(lambda m, x: F.glu(x, 3)),
    "log_softmax": of(lambda m, x: F.log_softmax(x, 1)),
    "softmax_2d": layer(nn.Softmax2d),
    "argmax": of(lambda m, x: x.argmax(1)),
    "argmax_of_rows": of(lambda m, x: x.argmax(-1, keepdim=True)),
}  # fmt: skip
ARITHMETIC = {
    "sub": of(lambda m, x: 2 - x - 0.5 * x.mul(3).sub(x, alpha=2)),
    "rsub": of(lambda m, x: torch.rsub(x, 2, alpha=3)),
    "div": of(lambda m, x: x / 2 + x / (x.abs() + 1) + 1 / (x * x + 1)),
    "powers": of(lambda m, x: x**2 + x**3 + (x.square() + 1).sqrt() + (x.abs() + 1).rsqrt() + (x * x + 2).pow(-0.5)),
    "extremes": of(lambda m, x: torch.maximum(x, x.flip(3)) - torch.minimum(x, x * 2)),
    "exp_log": of(lambda m, x: torch.log1p(x.exp()) + torch.expm1(-x.abs()) + 2 ** (x / 4)),
    "addcmul": of(lambda m, x: torch.addcmul(x, x, x, value=0.5) + torch.lerp(x, x * 2, 0.3)),
    "where": of(lambda m, x: torch.where(m.k > 1, x, -x).masked_fill(m.k == 0, 0.5), k=torch.arange(10) % 3),
    "written_constant": of(written_constant),
}
MOVES = {
    "permutes": of(lambda m, x: x.permute(0, 2, 3, 1).movedim(1, 2).transpose(1, 2).permute(0, 3, 1, 2) + 1),
    "views": of(lambda m, x: x.view(1, 3, 3, 4, 10).permute(0, 3, 1, 2, 4).reshape(1, 12, 3, 10) * 2),
    "unflatten": of(lambda m, x: x.flatten(1).unflatten(1, (9, 40)).squeeze(0).unsqueeze(1).mT.reshape(9, 40)[None]),
    "slices": of(lambda m, x: x[:, 1:, ::2, -5:] + x[:, :2, 1::2].narrow(3, 0, 5)),
    "selects": of(lambda m, x: torch.stack([*x.unbind(1)], 3) * x[:, 0, :, :, None]),
    "splits": of(split_sums),
    "pads": of(lambda m, x: F.pad(F.pad(x, (1, 2, 3, 0), "reflect"), (2, 1, 0, 1), "replicate")),
    "pad_value": of(lambda m, x: F.pad(x, (1, -1, 0, 2), value=0.5)),
    "roll_flip": of(lambda m, x: x.roll(3, 2).roll((1, -2), (1, 3)).flip(2, 1)),
    "repeat": of(lambda m, x: x.repeat(1, 2, 1, 1) + x.repeat_interleave(2, 1)),
    "expand": of(lambda m, x: x * x.mean((2, 3), keepdim=True).expand_as(x)),
    "index": of(lambda m, x: x[:, [2, 0, 1]].index_select(3, m.k), k=torch.tensor([3, 1, 1, 9])),
    "pixel_shuffle": of(lambda m, x: F.pixel_shuffle(F.pixel_unshuffle(x, 2).flip(1), 2)),
    "pixel_shuffle_by_hand": of(
        lambda m, x: x.view(1, 3, 6, 2, 5, 2).permute(0, 1, 3, 5, 2, 4).reshape(1, 12, 6, 5) + 1
    ),
    "channel_shuffle": of(channel_shuffle, wide=nn.Conv2d(3, 6, 1)),
    "nn_channel_shuffle": layer(lambda: nn.Conv2d(3, 6, 1), lambda: nn.ChannelShuffle(3)),
    "nn_unfold": of(lambda m, x: F.unfold(x, (3, 2), dilation=2, padding=1, stride=(2, 3))),
    "fold": of(lambda m, x: F.fold(F.unfold(x, (3, 2), stride=(3, 2)) * 2, (12, 10), (3, 2), stride=(3, 2))),
    "circular": layer(
        lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), lambda: nn.CircularPad2d((1, 2, 0, 3))
    ),
    "shifted_in_place": of(shifted_in_place),
    "assigned": of(assigned),
    "unfold": of(lambda m, x: x.unfold(2, 4, 4).unfold(3, 5, 5).flatten(2)),
    "class_token": of(class_token, token=nn.Parameter(torch.randn(1, 1, 3))),
    "focus": of(
        lambda m, x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1)
    ),
}
LAYERS = {
    "up_nearest": of(lambda m, x: F.interpolate(x, scale_factor=2)),
    "up_nearest_size": of(lambda m, x: F.interpolate(x, (17, 25))),
    "up_exact": of(lambda m, x: F.interpolate(x, (24, 5), mode="nearest-exact")),
    "up_bilinear": of(lambda m, x: F.interpolate(x, scale_factor=2, mode="bilinear")),
    "up_corners": of(lambda m, x: F.interpolate(x, (5, 19), mode="bilinear", align_corners=True)),
    "up_odd_scale": of(
        lambda m, x: F.interpolate(F.interpolate(x, scale_factor=1.37, mode="bilinear"), scale_factor=1.3)
    ),
    "up_bicubic": of(lambda m, x: F.interpolate(x, (18, 15), mode="bicubic")),
    "down_antialias": of(lambda m, x: F.interpolate(x, (6, 5), mode="bilinear", antialias=True)),
    "transposed": layer(lambda: nn.ConvTranspose2d(3, 4, 3, 2, 1, 1), lambda: nn.ConvTranspose2d(4, 6, 4, 2, groups=2)),
    "response_norm": layer(lambda: nn.LocalResponseNorm(2, 0.5, 0.75, 2.0), lambda: nn.LocalResponseNorm(3, 0.1)),
    "batch_of_windows": of(
        lambda m, x: torch.cat([m.d(x.reshape(3, 2, 6, 10)), m.d(x.view(3, 2, 6, 10))], 0).reshape(1, -1),
        d=nn.Conv2d(2, 4, 3, stride=2, padding=1),
    ),
    "hard_sigmoid_by_hand": of(lambda m, x: (x * 0.2 + 0.5).clamp(0, 1)),
    "global_pool_of_channels_last": lambda: nn.Sequential(conv(), nn.AdaptiveAvgPool2d(1)).to(
        memory_format=torch.channels_last
    ),
    "audio": of(audio, w=torch.randn(3, 3, 5)),
    "padded_pool": of(lambda m, x: F.max_pool2d(F.pad(x, (0, 1, 1, 1), value=float("-inf")), 3, 2)),
    "dilated_pool": layer(lambda: nn.MaxPool2d(3, 2, 1, dilation=2)),
    "adaptive_max": layer(lambda: nn.AdaptiveMaxPool2d((5, 3)), lambda: nn.AdaptiveMaxPool2d(1)),
    "adaptive_avg": layer(lambda: nn.AdaptiveAvgPool2d((7, 4))),
    "group_norm": layer(lambda: nn.Conv2d(3, 8, 1), lambda: nn.GroupNorm(2, 8), lambda: nn.GroupNorm(8, 8)),
    "instance_norm": layer(lambda: nn.InstanceNorm2d(3), lambda: nn.InstanceNorm2d(3, affine=True)),
    "layer_norm": layer(lambda: nn.LayerNorm((3, 12, 10)), lambda: nn.LayerNorm(10)),
    "channels_last_norm": of(lambda m, x: m.n(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), n=nn.LayerNorm(3)),
    "layer_norm_by_hand": of(layer_norm_by_hand, g=nn.Parameter(torch.randn(3))),
    "l2_norm": of(lambda m, x: F.normalize(x.mean((2, 3)), dim=1) + F.normalize(x, dim=1).amax((2, 3))),
    "norms": of(lambda m, x: x.norm(dim=1) + x.norm(1, dim=1) + x.abs().amax(1)),
    "variances": of(lambda m, x: torch.cat([x.var(1), x.std((2, 3), keepdim=True)[:, 0].expand(1, 12, 10)], 1)),
    "means": of(lambda m, x: x.mean(3).mean(2) + x.sum((1, 2))[:, :3] + x.mean() + x.max()),
    "max_of_dim": of(lambda m, x: x.max(1).values + x.min(1, keepdim=True)[0][:, 0]),
    "linear_on_an_image": layer(lambda: nn.Linear(10, 4)),
    "tokens": of(lambda m, x: m.fc(tokens(x)).softmax(1), fc=nn.Linear(3, 5)),
    "products": of(lambda m, x: (x @ x.transpose(2, 3)) @ m.k + torch.matmul(m.k, x)[..., :1], k=torch.randn(12, 12)),
    "einsum": of(einsums, k=torch.randn(3, 3)),
    "baddbmm": of(lambda m, x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2, :10], beta=0.5, alpha=2)),
    "attention_layer": of(
        lambda m, x: m.a(t := tokens(x), t, t)[0] + m.a(t, t, t, need_weights=False)[0],
        a=nn.MultiheadAttention(3, 3, batch_first=True),
    ),
    "encoder_layer": of(lambda m, x: m.e(tokens(x)), e=nn.TransformerEncoderLayer(3, 3, 8, batch_first=True)),
    "attention": of(heads, qkv=nn.Linear(3, 9), out=nn.Linear(3, 3)),
    "multi_head": of(lambda m, x: m.a(*[tokens(x)] * 3)[0], a=nn.MultiheadAttention(3, 3, batch_first=True)),
    "windows": of(windows, **SQUARE),
}  # fmt: skip
CONSTANTS = {
    "weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(conv()), nn.ReLU()),
    "spectral_norm": lambda: nn.Sequential(parametrizations.spectral_norm(conv()), nn.ReLU()),
    "standardised": of(standardised, d=nn.Conv2d(3, 4, 3)),
    "positions": of(positions),
    "like": of(lambda m, x: x + torch.ones_like(x) * 2 + x.new_full((3, 1, 1), 0.5)),
    "parameter_item": of(lambda m, x: x * m.p.item() + m.p.numpy().max().item(), p=nn.Parameter(torch.ones(1) * 2)),
    "normalised_input": lambda: Function(
        lambda m, x: m.c((x - m.mean) / m.std),
        c=nn.Conv2d(3, 4, 3), mean=torch.rand(3, 1, 1), std=torch.rand(3, 1, 1) + 0.5,
    ),
}  # fmt: skip
WIDE = {**ACTIVATIONS, **ARITHMETIC, **MOVES, **LAYERS, **CONSTANTS}
