"""MetaFormers: transformers' plan with other ways to mix places, as timm builds them.

PoolFormer (Yu et al. 2021, arXiv:2111.11418); its second version, ConvFormer and CAFormer (Yu et
al. 2022, arXiv:2210.13452).
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers import (
    Attention,
    Conv,
    Dense,
    GroupNorm,
    LayerNorm,
    Norm,
    StochasticDepth,
    activation,
    average_pool,
    pooled,
    stage_rates,
    truncated_normal,
)
from imgclf.models.network import Outputs

Mixer = Literal["pool", "convolution", "attention"]
HEAD_WIDTH = 32
"""Channels of each head of attention."""

_ZEROS = nn.initializers.zeros
_conv = partial(Conv, kernel_init=truncated_normal(), bias_init=_ZEROS)
_dense = partial(Dense, kernel_init=truncated_normal(), bias_init=_ZEROS)


class Scale(nn.Module):
    """A trained factor for each channel, or one for all."""

    initial: float
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.constant(self.initial)
        return x * self.param("factor", init, (self.features,), jnp.float32).astype(x.dtype)


class StarReLU(nn.Module):
    """`s relu(x)^2 + b` with a trained factor and summand."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        factor = self.param("factor", nn.initializers.ones, (1,), jnp.float32).astype(x.dtype)
        bias = self.param("bias", _ZEROS, (1,), jnp.float32).astype(x.dtype)
        return factor * jnp.square(nn.relu(x)) + bias


class SeparableConvolution(nn.Module):
    """1 x 1 convolution to twice the channels, StarReLU, 7 x 7 for each channel, 1 x 1 back."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        hidden = 2 * x.shape[-1]
        y = StarReLU(name="act1")(_conv(hidden, 1, name="pwconv1")(x))
        y = _conv(hidden, 7, groups=hidden, name="dwconv")(y)
        return _conv(x.shape[-1], 1, name="pwconv2")(y)


class Perceptron(nn.Module):
    """Two layers over the channels, `fc1` and `fc2`: 1 x 1 convolutions unless they are `linear`.

    The first version's has GELU and biases, the others StarReLU and none.
    """

    first_version: bool
    linear: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layer = _dense if self.linear else partial(_conv, kernel=1)
        layer = partial(layer, use_bias=self.first_version)
        act = activation("gelu") if self.first_version else StarReLU(name="act")
        return layer(x.shape[-1], name="fc2")(act(layer(4 * x.shape[-1], name="fc1")(x)))


class Block(nn.Module):
    """Mixing of places, then a perceptron, each on a branch of its own."""

    mixer: Mixer
    first_version: bool
    layer_scale: float
    """What the factors of the branches begin as; 0: there are none."""
    residual_scale: bool
    """Whether what passes by a branch has trained factors, too (arXiv:2110.09456)."""
    rate: float

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = _norm(self.mixer, self.first_version)
        y = self._mixed(norm(name="norm1")(x, train), train)
        x = self._added(x, y, 1, train)
        y = norm(name="norm2")(x, train)
        y = Perceptron(self.first_version, self.mixer == "attention", name="mlp")(y)
        return self._added(x, y, 2, train)

    def _mixed(self, x: jax.Array, train: bool) -> jax.Array:
        if self.mixer == "pool":
            return average_pool(x, 3, 1, padding=1, count_padding=False) - x
        if self.mixer == "convolution":
            return SeparableConvolution(name="token_mixer")(x)
        b, h, w, c = x.shape
        attention = Attention(c // HEAD_WIDTH, qkv_bias=False, proj_bias=False, name="token_mixer")
        return attention(x.reshape(b, h * w, c), train).reshape(x.shape)

    def _added(self, x: jax.Array, y: jax.Array, which: int, train: bool) -> jax.Array:
        y = StochasticDepth(self.rate)(y, train)
        if self.layer_scale:
            y = Scale(self.layer_scale, x.shape[-1], name=f"layer_scale{which}")(y)
        if self.residual_scale:
            x = Scale(1.0, x.shape[-1], name=f"res_scale{which}")(x)
        return x + y


class Resample(nn.Module):
    """A convolution with a stride, and a norm before or behind it: the stem and `downsample`."""

    features: int
    kernel: int
    stride: int
    padding: int
    norm: Literal["", "before", "behind"]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        norm = LayerNorm(use_bias=False, name="norm") if self.norm else None
        if norm and self.norm == "before":
            x = norm(x)
        x = _conv(
            self.features, self.kernel, self.stride, self.padding, use_bias=True, name="conv"
        )(x)
        return norm(x) if norm and self.norm == "behind" else x


class Blocks(nn.Module):
    """One block after another, each called by its number."""

    rates: tuple[float, ...]
    block: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, rate in enumerate(self.rates):
            x = self.block(rate=rate, name=str(i))(x, train)
        return x


class Stage(nn.Module):
    """Half the size, where the number of channels changes, and `blocks`."""

    features: int
    rates: tuple[float, ...]
    block: Callable[..., nn.Module]
    first_version: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if x.shape[-1] != self.features:
            norm: Literal["", "before"] = "" if self.first_version else "before"
            x = Resample(self.features, 3, 2, 1, norm, name="downsample")(x)
        return Blocks(self.rates, self.block, name="blocks")(x, train)


class Stages(nn.Module):
    """The four stages, each called by its number."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    mixers: tuple[Mixer, ...]
    first_version: bool
    layer_scale: float
    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, own in enumerate(stage_rates(self.rate, self.depths)):
            block = partial(
                Block,
                self.mixers[i],
                self.first_version,
                self.layer_scale,
                residual_scale=i >= 2 and not self.first_version,
            )
            x = Stage(self.widths[i], own, block, self.first_version, name=str(i))(x, train)
        return x


class Head(nn.Module):
    """`norm`, dropout and `fc`, which is a linear layer or a perceptron with a squared ReLU."""

    num_classes: int
    perceptron: bool
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        features = LayerNorm(name="norm")(x)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        layer = PerceptronHead if self.perceptron else _dense
        return layer(self.num_classes, name="fc")(x), features


class PerceptronHead(nn.Module):
    """`fc1` to four times the channels, squared ReLU (arXiv:2109.08668), `norm`, `fc2`."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.square(nn.relu(_dense(4 * x.shape[-1], name="fc1")(x)))
        return _dense(self.num_classes, name="fc2")(LayerNorm(name="norm")(x))


class MetaFormer(nn.Module):
    """Stem, stages, the mean over all places, head."""

    num_classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    mixers: tuple[Mixer, ...]
    first_version: bool = False
    """PoolFormer's: GELU, biases, no norm at the stem and between stages, layer scale."""
    perceptron_head: bool = True
    layer_scale: float = 0.0
    """What the factors of the branches begin as; 0: there are none."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """How often the last block's branches are left out in training; earlier ones less often."""
    dense: bool = False
    """Classify every place instead of the image."""

    stem: ClassVar[str] = "stem.conv"

    @property
    def classifier(self) -> str:
        """The layer whose outputs are logits."""
        return "head.fc.fc2" if self.perceptron_head else "head.fc"

    @property
    def stages(self) -> tuple[str, ...]:
        """Each stage."""
        return tuple(f"stages.{i}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm: Literal["", "behind"] = "" if self.first_version else "behind"
        x = Resample(self.widths[0], 7, 4, 2, norm, name="stem")(images)
        x = Stages(
            self.depths,
            self.widths,
            self.mixers,
            self.first_version,
            self.layer_scale,
            self.stochastic_depth,
            name="stages",
        )(x, train)
        x = pooled(x, self.dense)
        head = Head(self.num_classes, self.perceptron_head, self.drop_rate, name="head")
        return Outputs(*head(x, train))


def _norm(mixer: Mixer, first_version: bool) -> Norm:
    if first_version:
        return partial(GroupNorm, 1, 1e-5)
    if mixer == "pool":
        return partial(GroupNorm, 1, 1e-6, use_bias=False)
    return partial(LayerNorm, use_bias=False)


_S, _M = (64, 128, 320, 512), (96, 192, 384, 768)

_pool = partial(MetaFormer, mixers=("pool",) * 4, perceptron_head=False)
poolformer_s12 = partial(
    _pool, depths=(2, 2, 6, 2), widths=_S, first_version=True, layer_scale=1e-5
)
poolformer_s24 = partial(
    _pool, depths=(4, 4, 12, 4), widths=_S, first_version=True, layer_scale=1e-5
)
poolformer_s36 = partial(
    _pool, depths=(6, 6, 18, 6), widths=_S, first_version=True, layer_scale=1e-6
)
poolformer_m36 = partial(
    _pool, depths=(6, 6, 18, 6), widths=_M, first_version=True, layer_scale=1e-6
)
poolformer_m48 = partial(
    _pool, depths=(8, 8, 24, 8), widths=_M, first_version=True, layer_scale=1e-6
)

poolformerv2_s12 = partial(_pool, depths=(2, 2, 6, 2), widths=_S)
poolformerv2_s24 = partial(_pool, depths=(4, 4, 12, 4), widths=_S)
poolformerv2_s36 = partial(_pool, depths=(6, 6, 18, 6), widths=_S)
poolformerv2_m36 = partial(_pool, depths=(6, 6, 18, 6), widths=_M)
poolformerv2_m48 = partial(_pool, depths=(8, 8, 24, 8), widths=_M)

_conv18 = partial(MetaFormer, depths=(3, 3, 9, 3), mixers=("convolution",) * 4)
_conv36 = partial(MetaFormer, depths=(3, 12, 18, 3), mixers=("convolution",) * 4)
convformer_s18 = partial(_conv18, widths=_S)
convformer_s36 = partial(_conv36, widths=_S)
convformer_m36 = partial(_conv36, widths=(96, 192, 384, 576))
convformer_b36 = partial(_conv36, widths=(128, 256, 512, 768))

_HALF_ATTENTION: tuple[Mixer, ...] = ("convolution", "convolution", "attention", "attention")
caformer_s18 = partial(convformer_s18, mixers=_HALF_ATTENTION)
caformer_s36 = partial(convformer_s36, mixers=_HALF_ATTENTION)
caformer_m36 = partial(convformer_m36, mixers=_HALF_ATTENTION)
caformer_b36 = partial(convformer_b36, mixers=_HALF_ATTENTION)
