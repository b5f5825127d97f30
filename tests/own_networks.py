"""Networks of kinds that users bring: attention, pyramids, masks, boxes, embeddings, sound. Random weights by seed."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

IMAGE, SOUND = (3, 32, 32), (1, 128)


def conv(given, made, size=3, stride=1, dilation=1, activation=nn.ReLU):
    """Return a convolution, batch norm and an activation."""
    layer = nn.Conv2d(given, made, size, stride, dilation * (size // 2), dilation, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(made), activation())


class Gated(nn.Module):
    """CBAM (Woo et al. 2018): a gate of channels from mean and maximum, then one of places."""

    def __init__(self):
        super().__init__()
        self.first = conv(3, 16, stride=2)
        self.inner = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1))
        self.places, self.head = nn.Conv2d(2, 1, 7, padding=3), nn.Linear(16, 10)

    def forward(self, x):
        x = self.first(x)
        x = x * (self.inner(F.adaptive_avg_pool2d(x, 1)) + self.inner(F.adaptive_max_pool2d(x, 1))).sigmoid()
        both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return self.head((x * self.places(both).sigmoid()).mean((2, 3)))


class Pyramid(nn.Module):
    """A head of DeepLab v3 (Chen et al. 2017): dilated convolutions and a mean, beside each other, enlarged."""

    def __init__(self):
        super().__init__()
        self.first, self.mean, self.last = conv(3, 16, stride=2), conv(16, 8, 1), nn.Conv2d(32, 5, 1)
        self.wide = nn.ModuleList(conv(16, 8, dilation=d) for d in (1, 2, 4))

    def forward(self, x):
        y = self.first(x)
        mean = F.interpolate(self.mean(F.adaptive_avg_pool2d(y, 1)), y.shape[-2:], mode="bilinear")
        made = self.last(torch.cat([*(layer(y) for layer in self.wide), mean], 1))
        return F.interpolate(made, x.shape[-2:], mode="bilinear")


class Mask(nn.Module):
    """A small U-Net (Ronneberger et al. 2015) with transposed convolutions of two kinds."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d, self.e = conv(3, 8), conv(8, 16), conv(16, 32), conv(32, 16), conv(16, 8)
        self.up, self.up_again = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 4, 2, 1)
        self.last = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        a = self.a(x)
        b = self.b(F.max_pool2d(a, 2))
        d = self.d(torch.cat([self.up(self.c(F.max_pool2d(b, 2))), b], 1))
        return self.last(self.e(torch.cat([self.up_again(d), a], 1))).sigmoid()


class Boxes(nn.Module):
    """Two heads of a detector of the YOLO family, each with its anchors, in one list."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (conv(g, m, stride=2, activation=nn.SiLU) for g, m in ((3, 16), (16, 32), (32, 32)))
        self.heads = nn.ModuleList(nn.Conv2d(32, 21, 1) for _ in range(2))

    def forward(self, x):
        b = self.b(self.a(x))
        made = []
        for head, y in zip(self.heads, (b, self.c(b)), strict=True):
            n, _, h, w = y.shape
            made.append(head(y).view(n, 3, 7, h, w).permute(0, 1, 3, 4, 2).sigmoid().reshape(n, -1, 7))
        return torch.cat(made, 1)


class Embedding(nn.Module):
    """Generalized-mean pooling (Radenovic et al. 2018) and a vector of length 1."""

    def __init__(self):
        super().__init__()
        self.first, self.last, self.power = conv(3, 16, stride=2), nn.Linear(16, 32), nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        y = F.avg_pool2d(self.first(x).clamp(min=1e-6).pow(self.power), (16, 16)).pow(1 / self.power)
        return F.normalize(self.last(y.flatten(1)))


class Waves(nn.Module):
    """Dilated causal convolutions over the samples of a sound (van den Oord et al. 2016)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(16 if k else 1, 16, 3, dilation=2**k) for k in range(3))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        for k, layer in enumerate(self.layers):
            x = F.relu(layer(F.pad(x, (2 * 2**k, 0))))
        return self.head(x[:, :, -1])


class Places(nn.Module):
    """Places of points as means under a softmax over the image, which gets its coordinates as channels."""

    def __init__(self):
        super().__init__()
        self.first, self.last = conv(5, 8, stride=2), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        n, _, h, w = x.shape
        sides = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        maps = self.last(self.first(torch.cat([x, torch.stack(sides)[None].expand(n, -1, -1, -1)], 1)))
        share = F.softmax(maps.flatten(2), -1)
        return (share * torch.linspace(0, 1, share.shape[-1])).sum(-1)


class Encoder(nn.Module):
    """torch's own encoder layers over patches of an image."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu", norm_first=True)
        self.patches, self.head = nn.Conv2d(3, 32, 8, 8), nn.Linear(32, 10)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.head(self.layers(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


class Enlarged(nn.Module):
    """Super-resolution by a pixel shuffle, added to the nearest pixels."""

    def __init__(self):
        super().__init__()
        self.a, self.b = conv(3, 16, activation=nn.PReLU), conv(16, 16, activation=nn.LeakyReLU)
        self.last = nn.Conv2d(16, 12, 3, padding=1)

    def forward(self, x):
        y = self.a(x)
        made = F.pixel_shuffle(self.last(y + 0.1 * self.b(y)), 2)
        return (made + F.interpolate(x, scale_factor=2, mode="nearest")).clamp(-1, 1)


NETWORKS = {
    "gated": (Gated, IMAGE),
    "pyramid": (Pyramid, IMAGE),
    "mask": (Mask, IMAGE),
    "boxes": (Boxes, IMAGE),
    "embedding": (Embedding, IMAGE),
    "waves": (Waves, SOUND),
    "places": (Places, IMAGE),
    "encoder": (Encoder, IMAGE),
    "enlarged": (Enlarged, IMAGE),
}
"""Name to the class and the shape of its input."""


def smooth(shape, count, seed):
    """Draw samples whose neighbours are alike, of standard deviation 1, ``(count, *shape)`` as torch has them."""
    drawn = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    for axis in range(2, drawn.ndim):
        for _ in range(3):
            drawn = (drawn + drawn.roll(1, axis) + drawn.roll(-1, axis)) / 3
    return drawn / drawn.std()


def made(name):
    """Return a network whose batch norms have seen samples."""
    factory, shape = NETWORKS[name]
    torch.manual_seed(1)
    module = factory().train()
    with torch.no_grad():
        module(smooth(shape, 32, 0))
    return module.eval()
