"""GPU-efficient networks (Lin et al. 2020, arXiv:2006.14090), timm's `gernet`."""

from functools import partial
from typing import ClassVar, Literal

import jax
from flax import linen as nn

from imgclf.models.layers import (
    BatchNorm,
    ConvNormAct,
    Norm,
    Numbered,
    PooledHead,
    StochasticDepth,
    he_fan_out_of,
    last_scale,
    linear_rates,
    relu,
)
from imgclf.models.network import Outputs

StageDesign = tuple[Literal["basic", "bottleneck", "depthwise"], int, int, int]
"""Kind of the blocks, how many, channels that leave them, stride of the first.

A bottleneck is a quarter as wide inside; a depthwise block three times as wide.
"""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    features: int
    stride: int
    zero_init_last: bool
    drop_path: float
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = ConvNormAct(self.features, 3, self.stride, norm=self.norm, name="conv1_kxk")(x, train)
        last = partial(self.norm, scale_init=last_scale(self.zero_init_last))
        y = ConvNormAct(self.features, 3, act="identity", norm=last, name="conv2_kxk")(y, train)
        y = StochasticDepth(self.drop_path)(y, train)
        return relu(y + shortcut(x, y, self.stride, self.norm, train))


class BottleneckBlock(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the 3x3 one may be a depthwise one."""

    features: int
    stride: int
    inner: int
    groups: int
    zero_init_last: bool
    drop_path: float
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = ConvNormAct(self.inner, 1, norm=self.norm, name="conv1_1x1")(x, train)
        y = ConvNormAct(
            self.inner,
            3,
            self.stride,
            groups=self.groups,
            norm=self.norm,
            kernel_init=he_fan_out_of(self.groups),
            name="conv2_kxk",
        )(y, train)
        last = partial(self.norm, scale_init=last_scale(self.zero_init_last))
        y = ConvNormAct(self.features, 1, act="identity", norm=last, name="conv3_1x1")(y, train)
        y = StochasticDepth(self.drop_path)(y, train)
        return relu(y + shortcut(x, y, self.stride, self.norm, train))


def shortcut(x: jax.Array, y: jax.Array, stride: int, norm: Norm, train: bool) -> jax.Array:
    """`x` as it can be added to `y`: projected by 1 x 1 convolution where the shapes differ."""
    if stride == 1 and x.shape[-1] == y.shape[-1]:
        return x
    projection = ConvNormAct(y.shape[-1], 1, stride, act="identity", norm=norm, name="shortcut")
    return projection(x, train)


class GENet(nn.Module):
    """3x3 stem, the stages (`stages.0`, ...), a 1x1 convolution, global average, `head.fc`."""

    num_classes: int
    design: tuple[StageDesign, ...]
    stem_width: int = 32
    last_width: int = 2560
    """Channels of the last convolution, which are the features."""
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
    stem: ClassVar[str] = "stem.conv"

    @property
    def stages(self) -> tuple[str, ...]:
        """Paths of the submodules that are the stages."""
        return tuple(f"stages.{i}" for i in range(len(self.design)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, groups=self.batch_groups)
        x = ConvNormAct(self.stem_width, 3, 2, norm=norm, name="stem")(images, train)
        x = Numbered(self._stages(norm), name="stages")(x, train)
        x = ConvNormAct(self.last_width, 1, norm=norm, name="final_conv")(x, train)
        head = PooledHead(
            self.num_classes,
            self.drop_rate,
            self.dense,
            kernel_init=nn.initializers.normal(0.01),
            bias_init=nn.initializers.zeros,
            name="head",
        )
        return Outputs(*head(x, train))

    def _stages(self, norm: Norm) -> tuple[partial[Numbered], ...]:
        rates = linear_rates(self.stochastic_depth, sum(depth for _, depth, _, _ in self.design))
        stages = []
        for kind, depth, features, stride in self.design:
            inner = features * 3 if kind == "depthwise" else features // 4
            groups = inner if kind == "depthwise" else 1
            block = partial(BottleneckBlock, inner=inner, groups=groups)
            blocks = tuple(
                partial(
                    BasicBlock if kind == "basic" else block,
                    features=features,
                    stride=1 if i else stride,
                    zero_init_last=self.zero_init_last,
                    drop_path=rates.pop(0),
                    norm=norm,
                )
                for i in range(depth)
            )
            stages.append(partial(Numbered, blocks))
        return tuple(stages)


gernet_s = partial(
    GENet,
    design=(
        ("basic", 1, 48, 2),
        ("basic", 3, 48, 2),
        ("bottleneck", 7, 384, 2),
        ("depthwise", 2, 560, 2),
        ("depthwise", 1, 256, 1),
    ),
    stem_width=13,
    last_width=1920,
)
gernet_m = partial(
    GENet,
    design=(
        ("basic", 1, 128, 2),
        ("basic", 2, 192, 2),
        ("bottleneck", 6, 640, 2),
        ("depthwise", 4, 640, 2),
        ("depthwise", 1, 640, 1),
    ),
)
gernet_l = partial(
    GENet,
    design=(
        ("basic", 1, 128, 2),
        ("basic", 2, 192, 2),
        ("bottleneck", 6, 640, 2),
        ("depthwise", 5, 640, 2),
        ("depthwise", 4, 640, 1),
    ),
)
