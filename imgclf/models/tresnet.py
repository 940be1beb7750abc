"""TResNets (Ridnik et al. 2020, arXiv:2003.13630), as timm names and builds them.

The stem makes channels of squares of pixels; strides are taken by blurs (arXiv:1904.11486) and, on
shortcuts, by averages; all stages but the last have squeeze-excite (arXiv:1709.01507). The second
version is of bottlenecks alone.
"""

from functools import partial
from typing import Any, ClassVar

import jax
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers import (
    BatchNorm,
    ConvNormAct,
    Norm,
    Numbered,
    PooledHead,
    SqueezeExcite,
    StochasticDepth,
    average_pool,
    blur_pool,
    last_scale,
    relu,
    space_to_depth,
    stage_rates,
)
from imgclf.models.network import Outputs

_conv = partial(ConvNormAct, act="identity")
_LEAST_REDUCED = 64
"""Channels in the middle of a squeeze-excite, at least."""


class Block(nn.Module):
    """What both kinds of blocks have."""

    features: int
    stride: int
    rate: float
    attention: bool
    norm: Norm
    last_norm: Norm

    is_block = True

    def attended(self, y: jax.Array, reduced: int) -> jax.Array:
        return SqueezeExcite(max(reduced, _LEAST_REDUCED), name="se")(y) if self.attention else y

    def added(self, x: jax.Array, y: jax.Array, train: bool) -> jax.Array:
        y = StochasticDepth(self.rate)(y, train)
        return relu(y + shortcut(x, y.shape[-1], self.stride, self.norm, train))


class BasicBlock(Block):
    """Two 3x3 convolutions and a shortcut."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = leaky_relu(_conv(self.features, 3, norm=self.norm, name="conv1")(x, train))
        y = subsampled(y, self.stride)
        y = _conv(self.features, 3, norm=self.last_norm, name="conv2")(y, train)
        return self.added(x, self.attended(y, self.features // 4), train)


class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions, the last to four times the channels, and a shortcut."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = leaky_relu(_conv(self.features, 1, norm=self.norm, name="conv1")(x, train))
        y = leaky_relu(_conv(self.features, 3, norm=self.norm, name="conv2")(y, train))
        y = self.attended(subsampled(y, self.stride), self.features // 2)
        y = _conv(4 * self.features, 1, norm=self.last_norm, name="conv3")(y, train)
        return self.added(x, y, train)


class Downsample(nn.Module):
    """The shortcut where a block changes the shape: the mean of 2 x 2, a convolution and a norm."""

    features: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.stride == 1:
            return _conv(self.features, 1, norm=self.norm, name="0")(x, train)
        x = average_pool(x, 2, self.stride, ceil=True)
        return _conv(self.features, 1, norm=self.norm, name="1")(x, train)


def shortcut(x: jax.Array, features: int, stride: int, norm: Norm, train: bool) -> jax.Array:
    """`x` as it can be added to a block's branch: projected where the shapes differ."""
    if stride == 1 and x.shape[-1] == features:
        return x
    return Downsample(features, stride, norm, name="downsample")(x, train)


def subsampled(x: jax.Array, stride: int) -> jax.Array:
    """`x` with the stride that the convolution before it has not taken."""
    return x if stride == 1 else blur_pool(x, stride)


def leaky_relu(x: jax.Array) -> jax.Array:
    """The blocks' activation, ten times less leaky than the stem's."""
    return jax.nn.leaky_relu(x, 1e-3)


class Body(nn.Module):
    """Stem and stages (`layer1`, ...), which are given as the blocks of each."""

    width: int
    stem_block: int
    layers: tuple[tuple[partial[Any], ...], ...]
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = space_to_depth(x, self.stem_block)
        x = ConvNormAct(self.width, 3, act="leaky_relu", norm=self.norm, name="conv1")(x, train)
        for i, blocks in enumerate(self.layers):
            x = Numbered(blocks, name=f"layer{i + 1}")(x, train)
        return x


class TResNet(nn.Module):
    """Stem, stages (`body.layer1` to `body.layer4`), global average, `head.fc`.

    The height and width of images must be multiples of 4.
    """

    num_classes: int
    depths: tuple[int, ...]
    """Blocks of each stage."""
    width: int = 64
    """Channels of the stem and of the first stage's 3x3 convolutions; each stage doubles them."""
    basic_stages: int = 2
    """How many of the first stages are of basic blocks; the others are of bottlenecks."""
    zero_init_last: bool = True
    """Whether every block's branch begins as zero."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """Rate of the last block; it grows linearly from 0 at the first."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Whether every place is classified, in place of their mean."""

    classifier: ClassVar[str] = "head.fc"
    stem: ClassVar[str] = "body.conv1.conv"
    stem_block: ClassVar[int] = 4
    """Side, in px, of the squares of which the stem reads all pixels as channels."""

    @property
    def stages(self) -> tuple[str, ...]:
        """Paths of the submodules that are the stages."""
        return tuple(f"body.layer{i + 1}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        if any(side % self.stem_block for side in images.shape[1:3]):
            raise UserError(
                f"The `images` of a TResNet must have sides that are multiples of "
                f"{self.stem_block} px; got {images.shape[1]} x {images.shape[2]}"
            )
        norm = partial(BatchNorm, groups=self.batch_groups)
        body = Body(self.width, self.stem_block, self._layers(norm), norm, name="body")
        head = PooledHead(
            self.num_classes,
            self.drop_rate,
            self.dense,
            kernel_init=nn.initializers.normal(0.01),
            name="head",
        )
        return Outputs(*head(body(images, train), train))

    def _layers(self, norm: partial[BatchNorm]) -> tuple[tuple[partial[Any], ...], ...]:
        layers = []
        for i, rates in enumerate(stage_rates(self.stochastic_depth, self.depths)):
            block = partial(
                BasicBlock if i < self.basic_stages else Bottleneck,
                self.width * 2**i,
                attention=i < len(self.depths) - 1,
                norm=norm,
                last_norm=partial(norm, scale_init=last_scale(self.zero_init_last)),
            )
            strides = (min(i + 1, 2), *[1] * (len(rates) - 1))
            layers.append(
                tuple(partial(block, s, rate) for s, rate in zip(strides, rates, strict=True))
            )
        return tuple(layers)


tresnet_m = partial(TResNet, depths=(3, 4, 11, 3))
tresnet_l = partial(TResNet, depths=(4, 5, 18, 3), width=76)
tresnet_xl = partial(TResNet, depths=(4, 5, 24, 3), width=83)
tresnet_v2_l = partial(TResNet, depths=(3, 4, 23, 3), basic_stages=0)
