"""ResNets with pre-activation (He et al. 2016, arXiv:1603.05027), under timm's names.

BiT (Kolesnikov et al. 2019, arXiv:1912.11370) is one with group norms and standardised weights.
"""

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers import (
    Conv,
    Norm,
    Numbered,
    StdConv,
    StochasticDepth,
    average_pool,
    max_pool,
    norm_of,
    pooled,
    relu,
    rounded,
    stage_rates,
)
from imgclf.models.network import Outputs


class Downsample(nn.Module):
    """The shortcut of a stage's first block: a 1 x 1 convolution, after averages if it says so."""

    features: int
    stride: int
    average: bool
    conv: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        stride = self.stride
        if self.average and stride > 1:
            x, stride = average_pool(x, 2, stride, ceil=True), 1
        return self.conv(self.features, 1, stride, name="conv")(x)


class BasicBlock(nn.Module):
    """Norm, ReLU and 3 x 3 convolution, twice; the shortcut begins behind the first ReLU."""

    features: int
    stride: int
    rate: float
    norm: Norm
    conv: Any
    downsample: Any = None

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        active = relu(self.norm(name="norm1")(x, train))
        if self.downsample and (self.stride > 1 or x.shape[-1] != self.features):
            x = self.downsample(self.features, self.stride, name="downsample")(active)
        y = self.conv(self.features, 3, self.stride, name="conv1")(active)
        y = self.conv(self.features, 3, name="conv2")(relu(self.norm(name="norm2")(y, train)))
        return x + StochasticDepth(self.rate)(y, train)


class Bottleneck(nn.Module):
    """Norm, ReLU and convolution, three times: 1 x 1 to a quarter, 3 x 3, and 1 x 1."""

    features: int
    stride: int
    rate: float
    norm: Norm
    conv: Any
    downsample: Any = None

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        active = relu(self.norm(name="norm1")(x, train))
        if self.downsample:
            x = self.downsample(self.features, self.stride, name="downsample")(active)
        middle = rounded(self.features // 4, least=0.0)
        y = self.conv(middle, 1, name="conv1")(active)
        y = relu(self.norm(name="norm2")(y, train))
        y = self.conv(middle, 3, self.stride, name="conv2")(y)
        y = relu(self.norm(name="norm3")(y, train))
        y = self.conv(self.features, 1, name="conv3")(y)
        return x + StochasticDepth(self.rate)(y, train)


class Stage(nn.Module):
    """Blocks of one width, one for each rate of stochastic depth; the first has the stride."""

    block: Any
    rates: tuple[float, ...]
    features: int
    stride: int
    downsample: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        blocks = [
            partial(self.block, self.features, 1 if i else self.stride, rate)
            for i, rate in enumerate(self.rates)
        ]
        blocks[0] = partial(blocks[0], downsample=self.downsample)
        return Numbered(blocks, name="blocks")(x, train)


class Stem(nn.Module):
    """7 x 7, or three of 3 x 3; then the maximum over 3 x 3."""

    features: int
    deep: tuple[int, ...]
    """Channels of the first two of three."""
    zero_padding: bool
    """The pooling's padding is zeros that may win, as in BiT."""
    norm: Norm
    conv: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.deep:
            for i, width in enumerate(self.deep, 1):
                x = self.conv(width, 3, 2 if i == 1 else 1, name=f"conv{i}")(x)
                x = relu(self.norm(name=f"norm{i}")(x, train))
            x = self.conv(self.features, 3, name="conv3")(x)
        else:
            x = self.conv(self.features, 7, 2, name="conv")(x)
        if self.zero_padding:
            return max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
        return max_pool(x, 3, 2, padding=1)


class Head(nn.Module):
    """The classifier: a 1 x 1 convolution, `fc`."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Conv(
            self.num_classes,
            1,
            use_bias=True,
            kernel_init=nn.initializers.normal(0.01),
            bias_init=nn.initializers.zeros,
            name="fc",
        )(x)


class ResNetV2(nn.Module):
    """Stem, four stages (`stages.0` to `stages.3`), norm, global average, classifier."""

    num_classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    """Channels of each stage."""
    stem_width: int = 64
    basic: bool = False
    """Blocks of two convolutions of 3 x 3."""
    deep_stem: tuple[int, ...] = ()
    """Widths of the stem's first two convolutions, where there are three of 3 x 3."""
    average_shortcut: bool = False
    """Shortcuts take the stride by averages over 2 x 2."""
    group_norm: bool = False
    standardised: bool = False
    """Group norms and standardised weights, as BiT has them."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """How often the last block's branch is left out in training; earlier ones less often."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Classify every place instead of the image."""

    classifier: ClassVar[str] = "head.fc"

    @property
    def stem(self) -> str:
        """The convolution that reads the image."""
        return "stem.conv1" if self.deep_stem else "stem.conv"

    @property
    def stages(self) -> tuple[str, ...]:
        """What `capture` calls the map after each stage."""
        return tuple(f"stages.{i}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = norm_of(self.group_norm or self.standardised, self.batch_groups)
        conv: Any = StdConv if self.standardised else Conv
        x = Stem(self.stem_width, self.deep_stem, self.standardised, norm, conv, name="stem")(
            images, train
        )
        block = partial(BasicBlock if self.basic else Bottleneck, norm=norm, conv=conv)
        downsample = partial(Downsample, average=self.average_shortcut, conv=conv)
        parts = [
            partial(Stage, block, own, self.widths[i], 2 if i else 1, downsample)
            for i, own in enumerate(stage_rates(self.stochastic_depth, self.depths))
        ]
        x = Numbered(parts, name="stages")(x, train)
        x = relu(norm(name="norm")(x, train))
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        logits = Head(self.num_classes, name="head")(x if self.dense else x[:, None, None])
        return Outputs(logits if self.dense else logits[:, 0, 0], features)


_18, _34, _50 = (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3)
_101, _152 = (3, 4, 23, 3), (3, 8, 36, 3)
_basic = partial(ResNetV2, basic=True, widths=(64, 128, 256, 512))
_D: dict[str, Any] = {"deep_stem": (32, 32), "average_shortcut": True}

resnetv2_18 = partial(_basic, depths=_18)
resnetv2_18d = partial(_basic, depths=_18, **_D)
resnetv2_34 = partial(_basic, depths=_34)
resnetv2_34d = partial(_basic, depths=_34, **_D)
resnetv2_50 = partial(ResNetV2, depths=_50)
resnetv2_50d = partial(ResNetV2, depths=_50, **_D)
resnetv2_50d_gn = partial(resnetv2_50d, group_norm=True)
resnetv2_50t = partial(resnetv2_50d, deep_stem=(24, 32))
resnetv2_101 = partial(ResNetV2, depths=_101)
resnetv2_101d = partial(ResNetV2, depths=_101, **_D)
resnetv2_152 = partial(ResNetV2, depths=_152)
resnetv2_152d = partial(ResNetV2, depths=_152, **_D)


def _bit(depths: tuple[int, ...], factor: int) -> partial:
    widths = tuple(factor * width for width in (256, 512, 1024, 2048))
    return partial(
        ResNetV2, depths=depths, widths=widths, stem_width=64 * factor, standardised=True
    )


resnetv2_50x1_bit, resnetv2_50x3_bit = _bit(_50, 1), _bit(_50, 3)
resnetv2_101x1_bit, resnetv2_101x3_bit = _bit(_101, 1), _bit(_101, 3)
resnetv2_152x2_bit, resnetv2_152x4_bit = _bit(_152, 2), _bit(_152, 4)
