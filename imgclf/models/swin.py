"""Swin transformers (arXiv:2103.14030), V2 (arXiv:2111.09883), and S3 (arXiv:2111.14725).

Tokens stay images, (b, h, w, d): attention is within windows, which every second block shifts.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers import (
    Conv,
    Dense,
    LayerNorm,
    Mlp,
    Numbered,
    StochasticDepth,
    global_average,
    last_scale,
    linear_uniform,
    not_empty,
    plus,
    relu,
    stage_rates,
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


@dataclass(frozen=True)
class Form:
    """What the blocks of one stage have in common."""

    heads: int
    window: int
    """Side of the windows, in places, where images are not smaller."""
    second: bool
    """The attention and the order of V2."""
    trained_window: int
    zero_init_last: bool


class WindowAttention(nn.Module):
    """Self-attention within windows, with a bias for each relative position and head.

    In the first version there is a table of biases for the `window`; a smaller one takes the middle
    of it. In V2 a perceptron (`cpb_mlp`) makes them, and attention is by the cosine, times a
    trained scale of each head. With `shifted`, the windows begin half a window further.
    """

    form: Form
    shifted: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, height, width, d = x.shape
        window = self.form.window
        size = min(height, window), min(width, window)
        shift = tuple(
            window // 2 if self.shifted and side > part else 0
            for side, part in zip((height, width), size, strict=True)
        )
        x = jnp.roll(x, (-shift[0], -shift[1]), (1, 2))
        x = jnp.pad(x, ((0, 0), (0, -height % size[0]), (0, -width % size[1]), (0, 0)))
        padded = x.shape[1:3]
        windows = _split(x, size)
        n, t = windows.shape[1:3]
        query, key, value = self._projected(windows)
        bias = self._biases(size)[None]
        if any(shift):
            apart = separated(padded, size, shift)[:, None]
            bias = jnp.tile(bias + jnp.where(apart, -100.0, 0.0), (b, 1, 1, 1))
        scale = 1.0 if self.form.second else None
        y = jax.nn.dot_product_attention(query, key, value, bias.astype(x.dtype), scale=scale)
        y = _dense(d, name="proj")(y.reshape(b, n, t, d))
        y = _join(y, size, padded)[:, :height, :width]
        return jnp.roll(y, shift, (1, 2))

    def _projected(self, windows: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # (b, n, t, d) to query, key and value, each (b * n, t, heads, d / heads).
        _, _, t, d = windows.shape
        heads, second = self.form.heads, self.form.second
        if d % heads:
            raise UserError(
                f"The `heads` of a stage of a Swin transformer (={heads}) must divide its channels "
                f"(={d})"
            )
        qkv = _dense(3 * d, use_bias=not second, name="qkv")(windows)
        if second:
            zeros = nn.initializers.zeros
            of_query, of_value = (self.param(name, zeros, (d,)) for name in ("q_bias", "v_bias"))
            qkv = plus(qkv, jnp.concatenate([of_query, jnp.zeros(d), of_value]))
        query, key, value = jnp.moveaxis(qkv.reshape(-1, t, 3, heads, d // heads), 2, 0)
        if second:
            scale = self.param("logit_scale", nn.initializers.constant(math.log(10)), (heads, 1, 1))
            scale = jnp.exp(jnp.minimum(scale[:, 0], math.log(100)))
            query = (_unit(query) * scale).astype(qkv.dtype)
            key = _unit(key).astype(qkv.dtype)
        return query, key, value

    def _biases(self, size: tuple[int, int]) -> jax.Array:
        # (heads, t, t) for windows of that size.
        form = self.form
        if form.second:
            window, offsets = max(size), log_spaced(size, form.trained_window)
            table = 16 * jax.nn.sigmoid(PositionBiases(form.heads, name="cpb_mlp")(offsets))
        else:
            window, shape = form.window, ((2 * form.window - 1) ** 2, form.heads)
            table = self.param("relative_position_bias_table", truncated_normal(), shape)
        return jnp.moveaxis(table[relative_positions(size, window)], -1, 0)


class PositionBiases(nn.Module):
    """A perceptron from offsets (n, 2) to a bias for each head, (n, heads)."""

    heads: int

    @nn.compact
    def __call__(self, offsets: np.ndarray) -> jax.Array:
        hidden = relu(_dense(512, name="0")(jnp.asarray(offsets)))
        return _dense(self.heads, use_bias=False, name="2")(hidden)


def _unit(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


def log_spaced(size: tuple[int, int], trained: int = 0) -> np.ndarray:
    """Offsets (n, 2) of places in a window of that size, for the rows of `relative_positions`.

    Each is sign(o) * log8(1 + |o|) of an offset o that is 8 across the window that they were
    `trained` with (0: of this size; equation 4 of arXiv:2111.09883).

    >>> (8 ** log_spaced((1, 2))[:3, 1]).round().tolist()
    [0.0, 1.0, 9.0]
    """
    steps = np.arange(1 - max(size), max(size), dtype=np.float32)
    axes = [8 * steps / max((trained or side) - 1, 1) for side in size]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    return np.sign(offsets) * np.log2(np.abs(offsets) + 1) / np.float32(3)


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
    """Attention within windows, then a perceptron for each place; each with a shortcut.

    A norm comes before each, in V2 behind it.
    """

    form: Form
    shifted: bool
    rate: float

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        attention = WindowAttention(self.form, self.shifted, name="attn")
        perceptron = Mlp(4 * x.shape[-1], name="mlp")
        drop = StochasticDepth(self.rate)
        if not self.form.second:
            x = x + drop(attention(_norm(name="norm1")(x)), train)
            return x + drop(perceptron(_norm(name="norm2")(x), train), train)
        norm = partial(_norm, scale_init=last_scale(self.form.zero_init_last))
        x = x + drop(norm(name="norm1")(attention(x)), train)
        return x + drop(norm(name="norm2")(perceptron(x, train)), train)


class PatchMerging(nn.Module):
    """Each 2 x 2 places become one of twice the channels; odd sides are padded with zeros."""

    second: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        d = x.shape[-1]
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        b, height, width, _ = x.shape
        x = x.reshape(b, height // 2, 2, width // 2, 2, d).transpose(0, 1, 3, 4, 2, 5)
        x = x.reshape(b, height // 2, width // 2, 4 * d)
        reduction = _dense(2 * d, use_bias=False, name="reduction")
        if self.second:
            return _norm(name="norm")(reduction(x))
        return reduction(_norm(name="norm")(x))


class Stage(nn.Module):
    """Blocks of one width, one for each rate of stochastic depth; every second one is shifted."""

    rates: tuple[float, ...]
    form: Form
    downsample: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.downsample:
            x = PatchMerging(self.form.second, name="downsample")(x)
        blocks = [partial(Block, self.form, i % 2 == 1, r) for i, r in enumerate(self.rates)]
        return Numbered(blocks, name="blocks")(x, train)


class Patches(nn.Module):
    """Patches of 4 x 4 px as vectors, and their norm."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = Conv(
            self.width, 4, 4, padding=0, use_bias=True, kernel_init=linear_uniform, name="proj"
        )(images)
        return _norm(name="norm")(not_empty(x))


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
    second: bool = False
    """Whether it is of V2."""
    trained_windows: tuple[int, ...] = (0, 0, 0, 0)
    """In V2, the sides of the windows that the weights were trained with; 0: of these."""
    zero_init_last: bool = True
    """Whether every block of V2 begins as the identity."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.1
    """How often the last block's branches are left out; it grows linearly from 0."""

    classifier: ClassVar[str] = "head.fc"
    stem: ClassVar[str] = "patch_embed.proj"

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(f"layers.{i}" for i in range(len(self.depths)))

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of a file; those of torchvision's same network under timm's names."""
        found = renamed(stored, _TORCHVISION)
        if self.second:
            for name in [each for each in found if each.endswith(".qkv.bias")]:
                attention, (of_query, _, of_value) = (
                    name[: -len("qkv.bias")],
                    np.split(found.pop(name), 3),
                )
                found |= {f"{attention}q_bias": of_query, f"{attention}v_bias": of_value}
        return found

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        x = Patches(self.width, name="patch_embed")(images)
        x = Numbered(self._layers(), name="layers")(x, train)
        features = global_average(_norm(name="norm")(x))
        head = Head(self.num_classes, self.drop_rate, name="head")
        return Outputs(head(features, train), features)

    def _layers(self) -> list[partial[Stage]]:
        stages: list[partial[Stage]] = []
        for i, own in enumerate(stage_rates(self.stochastic_depth, self.depths)):
            form = Form(
                self.heads[i],
                self.windows[i],
                self.second,
                self.trained_windows[i],
                self.zero_init_last,
            )
            stages.append(partial(Stage, own, form, downsample=i > 0))
        return stages


def _swin(width: int, third: int) -> partial[SwinTransformer]:
    heads = tuple(width // 32 * 2**i for i in range(4))
    return partial(SwinTransformer, width=width, depths=(2, 2, third, 2), heads=heads)


def _second(width: int, third: int, window: int, trained: bool = False) -> partial:
    return partial(
        _swin(width, third),
        windows=(window,) * 4,
        second=True,
        trained_windows=(12, 12, 12, 6) if trained else (0,) * 4,
    )


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
swinv2_tiny_window8_256 = _second(96, 6, 8)
swinv2_tiny_window16_256 = _second(96, 6, 16)
swinv2_small_window8_256 = _second(96, 18, 8)
swinv2_small_window16_256 = _second(96, 18, 16)
swinv2_base_window12_192 = _second(128, 18, 12)
swinv2_base_window8_256 = _second(128, 18, 8)
swinv2_base_window16_256 = _second(128, 18, 16)
swinv2_base_window12to16_192to256 = _second(128, 18, 16, trained=True)
swinv2_base_window12to24_192to384 = _second(128, 18, 24, trained=True)
swinv2_large_window12_192 = _second(192, 18, 12)
swinv2_large_window12to16_192to256 = _second(192, 18, 16, trained=True)
swinv2_large_window12to24_192to384 = _second(192, 18, 24, trained=True)
