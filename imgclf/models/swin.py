"""Swin transformers (arXiv:2103.14030) and those of a searched space (arXiv:2111.14725).

Tokens stay images, (b, h, w, d): attention is within windows, which every second block shifts.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imgclf.models.layers import (
    Conv,
    Dense,
    LayerNorm,
    Mlp,
    StochasticDepth,
    global_average,
    linear_rates,
    linear_uniform,
    truncated_normal,
)
from imgclf.models.network import Outputs
from imgclf.models.torchvision import Names, renamed

_norm = partial(LayerNorm, epsilon=1e-5)
_dense = partial(Dense, kernel_init=truncated_normal(), bias_init=nn.initializers.zeros)
_TORCHVISION: Names = (
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"^features\.([1357])\.", lambda m: f"layers.{int(m[1]) // 2}.blocks."),
    (r"^features\.([246])\.", lambda m: f"layers.{int(m[1]) // 2}.downsample."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
)


class WindowAttention(nn.Module):
    """Self-attention within windows, with a bias for each relative position and head.

    `window` is the one that the table of biases is for; where the images are smaller, the smaller
    window takes the middle of the table. With `shifted`, the windows begin half a window further.
    """

    heads: int
    window: int
    shifted: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, height, width, d = x.shape
        size = min(height, self.window), min(width, self.window)
        shift = tuple(
            self.window // 2 if self.shifted and side > part else 0
            for side, part in zip((height, width), size, strict=True)
        )
        x = jnp.roll(x, (-shift[0], -shift[1]), (1, 2))
        x = jnp.pad(x, ((0, 0), (0, -height % size[0]), (0, -width % size[1]), (0, 0)))
        padded = x.shape[1:3]
        windows = _split(x, size)
        n, t = windows.shape[1:3]
        qkv = _dense(3 * d, name="qkv")(windows)
        qkv = qkv.reshape(b * n, t, 3, self.heads, d // self.heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)
        shape = ((2 * self.window - 1) ** 2, self.heads)
        table = self.param("relative_position_bias_table", truncated_normal(), shape)
        bias = jnp.moveaxis(table[relative_positions(size, self.window)], -1, 0)[None]
        if any(shift):
            apart = separated(padded, size, shift)[:, None]
            bias = jnp.tile(bias + jnp.where(apart, -100.0, 0.0), (b, 1, 1, 1))
        y = jax.nn.dot_product_attention(query, key, value, bias=bias.astype(x.dtype))
        y = _dense(d, name="proj")(y.reshape(b, n, t, d))
        y = _join(y, size, padded)[:, :height, :width]
        return jnp.roll(y, shift, (1, 2))


def _split(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    b, height, width, d = x.shape
    x = x.reshape(b, height // size[0], size[0], width // size[1], size[1], d)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, size[0] * size[1], d)


def _join(windows: jax.Array, size: tuple[int, int], shape: tuple[int, ...]) -> jax.Array:
    b, _, _, d = windows.shape
    x = windows.reshape(b, shape[0] // size[0], shape[1] // size[1], *size, d)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, *shape, d)


def relative_positions(size: tuple[int, int], window: int) -> np.ndarray:
    """The row of a `window`'s table of biases for every pair of places in a window of that size.

    >>> relative_positions((1, 2), 2).tolist()
    [[4, 3], [5, 4]]
    """
    rows, columns = (part.ravel() for part in np.indices(size))
    down = rows[:, None] - rows[None, :] + window - 1
    right = columns[:, None] - columns[None, :] + window - 1
    return down * (2 * window - 1) + right


def separated(shape: tuple[int, ...], size: tuple[int, int], shift: tuple[int, ...]) -> np.ndarray:
    """Which pairs of a window's places (n, t, t) are neighbours only because the image went round.

    >>> separated((1, 4), (1, 2), (0, 1))[:, 0, 1].tolist()
    [False, True]
    """
    regions = np.zeros(shape, int)
    for axis, (side, part, moved) in enumerate(zip(shape, size, shift, strict=True)):
        if moved:
            places = np.arange(side)
            region = (places >= side - part).astype(int) + (places >= side - moved)
            regions = 3 * regions + (region[:, None] if axis == 0 else region[None, :])
    rows, columns = shape[0] // size[0], shape[1] // size[1]
    tiles = regions.reshape(rows, size[0], columns, size[1]).transpose(0, 2, 1, 3)
    windows = tiles.reshape(rows * columns, -1)
    return windows[:, :, None] != windows[:, None, :]


class Block(nn.Module):
    """Attention within windows, then a perceptron for each place; each with a shortcut."""

    heads: int
    window: int
    shifted: bool
    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        attention = WindowAttention(self.heads, self.window, self.shifted, name="attn")
        y = attention(_norm(name="norm1")(x))
        x = x + StochasticDepth(self.rate)(y, train)
        y = Mlp(4 * x.shape[-1], name="mlp")(_norm(name="norm2")(x), train)
        return x + StochasticDepth(self.rate)(y, train)


class PatchMerging(nn.Module):
    """Each 2 x 2 places become one of twice the channels; odd sides are padded with zeros."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        d = x.shape[-1]
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        b, height, width, _ = x.shape
        x = x.reshape(b, height // 2, 2, width // 2, 2, d).transpose(0, 1, 3, 4, 2, 5)
        x = _norm(name="norm")(x.reshape(b, height // 2, width // 2, 4 * d))
        return _dense(2 * d, use_bias=False, name="reduction")(x)


class Blocks(nn.Module):
    """A block for each of the `rates` of stochastic depth; every second one is shifted."""

    rates: tuple[float, ...]
    heads: int
    window: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, rate in enumerate(self.rates):
            x = Block(self.heads, self.window, i % 2 == 1, rate, name=str(i))(x, train)
        return x


class Stage(nn.Module):
    """The blocks of one width, after a merging of patches where that is asked for."""

    rates: tuple[float, ...]
    heads: int
    window: int
    downsample: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.downsample:
            x = PatchMerging(name="downsample")(x)
        return Blocks(self.rates, self.heads, self.window, name="blocks")(x, train)


class Stages(nn.Module):
    """All stages, one after another."""

    depths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...]
    stochastic_depth: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        rates = linear_rates(self.stochastic_depth, sum(self.depths))
        for i, depth in enumerate(self.depths):
            own, rates = tuple(rates[:depth]), rates[depth:]
            x = Stage(own, self.heads[i], self.windows[i], i > 0, name=str(i))(x, train)
        return x


class Patches(nn.Module):
    """Patches of 4 x 4 px as vectors, and their norm."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = Conv(
            self.width, 4, 4, padding=0, use_bias=True, kernel_init=linear_uniform, name="proj"
        )(images)
        return _norm(name="norm")(x)


class Head(nn.Module):
    """Dropout and the classifier."""

    num_classes: int
    drop_rate: float

    @nn.compact
    def __call__(self, features: jax.Array, train: bool) -> jax.Array:
        y = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return _dense(self.num_classes, name="fc")(y)


class SwinTransformer(nn.Module):
    """Patches, stages (`layers.0` and so on), norm, pooling and head.

    Images may have any size: what is not a multiple of the windows is padded.
    """

    num_classes: int
    width: int
    """Channels of the first stage; each further one doubles them."""
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    windows: tuple[int, ...] = (7, 7, 7, 7)
    """Side of each stage's windows, in places."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """How often the last block's branches are left out; it grows linearly from 0."""

    classifier: ClassVar[str] = "head.fc"
    stem: ClassVar[str] = "patch_embed.proj"

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(f"layers.{i}" for i in range(len(self.depths)))

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of a file; those of torchvision's same network under timm's names."""
        return renamed(stored, _TORCHVISION)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        x = Patches(self.width, name="patch_embed")(images)
        options = self.depths, self.heads, self.windows, self.stochastic_depth
        x = Stages(*options, name="layers")(x, train)
        features = global_average(_norm(name="norm")(x))
        head = Head(self.num_classes, self.drop_rate, name="head")
        return Outputs(head(features, train), features)


def _swin(width: int, third: int) -> partial[SwinTransformer]:
    heads = tuple(width // 32 * 2**i for i in range(4))
    return partial(SwinTransformer, width=width, depths=(2, 2, third, 2), heads=heads)


_LARGER = (12, 12, 12, 12)

swin_tiny_patch4_window7_224 = _swin(96, 6)
swin_small_patch4_window7_224 = _swin(96, 18)
swin_base_patch4_window7_224 = _swin(128, 18)
swin_large_patch4_window7_224 = _swin(192, 18)
swin_base_patch4_window12_384 = partial(_swin(128, 18), windows=_LARGER)
swin_large_patch4_window12_384 = partial(_swin(192, 18), windows=_LARGER)
swin_s3_tiny_224 = partial(_swin(96, 6), windows=(7, 7, 14, 7))
swin_s3_small_224 = partial(_swin(96, 18), windows=(14, 14, 14, 7))
swin_s3_base_224 = partial(_swin(96, 30), windows=(7, 7, 14, 7))
