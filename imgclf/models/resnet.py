"""ResNets (He et al. 2015, arXiv:1512.03385) and their many forms, as timm names and builds them.

ResNet-D and -T (arXiv:1812.01187), ResNeXt (arXiv:1611.05431), Wide ResNet (arXiv:1605.07146),
squeeze-excite (arXiv:1709.01507), ECA (arXiv:1910.03151), anti-aliased ones (arXiv:1904.11486), and
ResNet-RS (arXiv:2103.07579).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import jax
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers import (
    BatchNorm,
    Conv,
    Dense,
    EfficientChannelAttention,
    Norm,
    SqueezeExcite,
    StochasticDepth,
    average_pool,
    blur_pool,
    in_turn,
    last_scale,
    max_pool,
    norm_of,
    pooled,
    relu,
    rounded,
    stage_rates,
)
from imgclf.models.network import Outputs


@dataclass(frozen=True)
class Form:
    """What the blocks of one network have in common."""

    norm: Norm = BatchNorm
    zero_init_last: bool = True
    cardinality: int = 1
    """Groups of a bottleneck's 3 x 3 convolution."""
    base_width: int = 64
    """Width of a group, out of 64, where a stage has the width of the first."""
    antialias: Literal["", "blur", "average"] = ""
    """What takes the stride in place of a convolution."""
    attention: Literal["", "se", "eca"] = ""
    attention_share: float = 1 / 16
    """Channels in the middle of a squeeze-excite, as a share of all."""
    average_shortcut: bool = False
    """Shortcuts take the stride by averages over 2 x 2, before their convolution."""
    shortcut_kernel: int = 1
    """Side of the convolution of shortcuts with a stride."""
    reduce_first: int = 1
    """By what a block's first convolution is narrower than its second."""

    def subsampled(self, x: jax.Array, stride: int) -> jax.Array:
        """`x` with the stride that a convolution before it has not taken."""
        if not self.antialias or stride == 1:
            return x
        return blur_pool(x, stride) if self.antialias == "blur" else average_pool(x, 2, stride)

    def own_stride(self, stride: int) -> int:
        """The stride that is left to the convolution."""
        return 1 if self.antialias else stride

    def attended(self, x: jax.Array) -> jax.Array:
        if self.attention == "se":
            reduced = rounded(x.shape[-1] * self.attention_share, least=0.0)
            return SqueezeExcite(reduced, name="se")(x)
        return EfficientChannelAttention(name="se")(x) if self.attention else x

    def last_norm(self, name: str) -> Any:
        return self.norm(scale_init=last_scale(self.zero_init_last), name=name)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    features: int
    stride: int = 1
    rate: float = 0.0
    form: Form = Form()

    expansion: ClassVar[int] = 1
    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, rate: jax.Array | None = None) -> jax.Array:
        form = self.form
        if (form.cardinality, form.base_width) != (1, 64):
            raise UserError(
                "The `cardinality` and `base_width` of a ResNet of basic blocks must be 1 and 64; "
                f"got {form.cardinality} and {form.base_width}"
            )
        width = self.features // form.reduce_first
        y = Conv(width, 3, form.own_stride(self.stride), name="conv1")(x)
        y = relu(form.norm(name="bn1")(y, train))
        y = Conv(self.features, 3, name="conv2")(form.subsampled(y, self.stride))
        y = form.attended(form.last_norm("bn2")(y, train))
        y = StochasticDepth(self.rate)(y, train, rate)
        return relu(y + shortcut(x, self.features, self.stride, form, train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride is in the middle one ("v1.5")."""

    features: int
    stride: int = 1
    rate: float = 0.0
    form: Form = Form()

    expansion: ClassVar[int] = 4
    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, rate: jax.Array | None = None) -> jax.Array:
        form = self.form
        width, groups = self.features * form.base_width // 64 * form.cardinality, form.cardinality
        y = Conv(width // form.reduce_first, 1, name="conv1")(x)
        y = relu(form.norm(name="bn1")(y, train))
        y = Conv(width, 3, form.own_stride(self.stride), groups=groups, name="conv2")(y)
        y = relu(form.norm(name="bn2")(y, train))
        y = Conv(self.features * self.expansion, 1, name="conv3")(form.subsampled(y, self.stride))
        y = form.attended(form.last_norm("bn3")(y, train))
        y = StochasticDepth(self.rate)(y, train, rate)
        return relu(y + shortcut(x, y.shape[-1], self.stride, form, train))


class Downsample(nn.Module):
    """The shortcut where a block changes the shape: a convolution and a norm."""

    features: int
    stride: int
    form: Form

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if not self.form.average_shortcut:
            kernel = self.form.shortcut_kernel if self.stride > 1 else 1
            x = Conv(self.features, kernel, self.stride, name="0")(x)
            return self.form.norm(name="1")(x, train)
        if self.stride > 1:
            x = average_pool(x, 2, self.stride, ceil=True)
        return self.form.norm(name="2")(Conv(self.features, 1, name="1")(x), train)


def shortcut(x: jax.Array, features: int, stride: int, form: Form, train: bool) -> jax.Array:
    """`x` as it can be added to a block's branch: projected where the shapes differ."""
    if stride == 1 and x.shape[-1] == features:
        return x
    return Downsample(features, stride, form, name="downsample")(x, train)


class Stage(nn.Module):
    """Blocks of one width, one for each rate of stochastic depth; the first has the stride."""

    block: type[BasicBlock] | type[Bottleneck]
    rates: tuple[float, ...]
    features: int
    stride: int
    form: Form
    scan: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        rate, *rates = self.rates
        x = self.block(self.features, self.stride, rate, self.form, name="0")(x, train)
        block = partial(self.block, self.features, 1, form=self.form)
        return in_turn(self, block, rates, x, train, first=1, scan=self.scan)


class DeepStem(nn.Module):
    """Three 3 x 3 convolutions in place of one of 7 x 7; the last has its norm outside."""

    widths: Sequence[int]
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        *inner, last = self.widths
        for i, width in enumerate(inner):
            x = Conv(width, 3, 2 if i == 0 else 1, name=str(3 * i))(x)
            x = relu(self.norm(name=str(3 * i + 1))(x, train))
        return Conv(last, 3, name=str(3 * len(inner)))(x)


class StemConvolution(nn.Module):
    """What ResNet-RS has in place of the stem's pooling."""

    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv(x.shape[-1], 3, 2, name="0")(x)
        return relu(self.norm(name="1")(x, train))


class ResNet(nn.Module):
    """Stem, stages (`layer1` to `layer4`), global average, classifier (`fc`)."""

    num_classes: int
    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, ...]
    width: int = 64
    """Channels of the stem and of the first stage's 3x3 convolutions; each stage doubles them."""
    deep_stem: tuple[int, ...] = ()
    """Widths of the stem's first convolutions, where there are three of 3 x 3; the third has twice
    that of the second."""
    stem_convolution: bool = False
    """A convolution takes the stride of the stem's pooling."""
    cardinality: int = 1
    base_width: int = 64
    antialias: Literal["", "blur", "average"] = ""
    attention: Literal["", "se", "eca"] = ""
    attention_share: float = 1 / 16
    average_shortcut: bool = False
    shortcut_kernel: int = 1
    reduce_first: int = 1
    group_norm: bool = False
    """Group norms (arXiv:1803.08494) of 32 groups in place of batch norms."""
    zero_init_last: bool = True
    """Whether every block begins as the identity."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """How often the last block's branch is left out in training; earlier ones less often."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Classify every place instead of the image."""
    scan: bool = False
    """Whether a stage's blocks after the first are one compiled loop over variables with a leading
    axis of depth: deep networks compile faster. `models.stack` and `unstack` convert; files are the
    same."""

    classifier: ClassVar[str] = "fc"

    @property
    def stem(self) -> str:
        """The convolution that reads the image."""
        return "conv1.0" if self.deep_stem else "conv1"

    @property
    def stages(self) -> tuple[str, ...]:
        """What `capture` calls the map after each stage."""
        return tuple(f"layer{i + 1}" for i in range(len(self.depths)))

    @property
    def repeated(self) -> dict[str, range]:
        """Which blocks of which submodules are equal."""
        return {
            stage: range(1, depth) for stage, depth in zip(self.stages, self.depths, strict=True)
        }

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = norm_of(self.group_norm, self.batch_groups)
        form = Form(
            norm,
            self.zero_init_last,
            self.cardinality,
            self.base_width,
            self.antialias,
            self.attention,
            self.attention_share,
            self.average_shortcut,
            self.shortcut_kernel,
            self.reduce_first,
        )
        if self.deep_stem:
            widths = (*self.deep_stem, 2 * self.deep_stem[-1])
            x = DeepStem(widths, norm, name="conv1")(images, train)
        else:
            x = Conv(self.width, 7, 2, name="conv1")(images)
        x = relu(norm(name="bn1")(x, train))
        if self.stem_convolution:
            x = StemConvolution(norm, name="maxpool")(x, train)
        else:
            x = self._pooled(x)
        rates = stage_rates(self.stochastic_depth, self.depths)
        for i, (name, own) in enumerate(zip(self.stages, rates, strict=True)):
            width, stride = self.width * 2**i, min(i + 1, 2)
            x = Stage(self.block, own, width, stride, form, self.scan, name=name)(x, train)
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return Outputs(Dense(self.num_classes, name=self.classifier)(x), features)

    def _pooled(self, x: jax.Array) -> jax.Array:
        if self.antialias == "average":
            return average_pool(x, 2, 2)
        if self.antialias == "blur":
            return blur_pool(max_pool(x, 3, 1, padding=1))
        return max_pool(x, 3, 2, padding=1)


_basic, _bottleneck = partial(ResNet, block=BasicBlock), partial(ResNet, block=Bottleneck)
_18, _26, _34, _50 = (2, 2, 2, 2), (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 6, 3)
_101, _152, _200, _269 = (3, 4, 23, 3), (3, 8, 36, 3), (3, 24, 36, 3), (3, 30, 48, 8)
_C = {"deep_stem": (32, 32)}
_D = {"deep_stem": (32, 32), "average_shortcut": True}
_T = {"deep_stem": (24, 32), "average_shortcut": True}
_S = {"deep_stem": (64, 64)}
_RS = {**_D, "stem_convolution": True, "attention": "se", "attention_share": 1 / 4}
_32x4d = {"cardinality": 32, "base_width": 4}
_32x8d = {"cardinality": 32, "base_width": 8}
_64x4d = {"cardinality": 64, "base_width": 4}

resnet10t = partial(_basic, depths=(1, 1, 1, 1), **_T)
resnet14t = partial(_bottleneck, depths=(1, 1, 1, 1), **_T)
resnet18 = partial(_basic, depths=_18)
resnet18d = partial(_basic, depths=_18, **_D)
resnet26 = partial(_bottleneck, depths=_26)
resnet26d = partial(_bottleneck, depths=_26, **_D)
resnet26t = partial(_bottleneck, depths=_26, **_T)
resnet34 = partial(_basic, depths=_34)
resnet34d = partial(_basic, depths=_34, **_D)
resnet50 = partial(_bottleneck, depths=_50)
resnet50c = partial(_bottleneck, depths=_50, **_C)
resnet50d = partial(_bottleneck, depths=_50, **_D)
resnet50_gn = partial(_bottleneck, depths=_50, group_norm=True)
resnet50s = partial(_bottleneck, depths=_50, **_S)
resnet50t = partial(_bottleneck, depths=_50, **_T)
resnet101 = partial(_bottleneck, depths=_101)
resnet101c = partial(_bottleneck, depths=_101, **_C)
resnet101d = partial(_bottleneck, depths=_101, **_D)
resnet101s = partial(_bottleneck, depths=_101, **_S)
resnet152 = partial(_bottleneck, depths=_152)
resnet152c = partial(_bottleneck, depths=_152, **_C)
resnet152d = partial(_bottleneck, depths=_152, **_D)
resnet152s = partial(_bottleneck, depths=_152, **_S)
resnet200 = partial(_bottleneck, depths=_200)
resnet200d = partial(_bottleneck, depths=_200, **_D)

resnext50_32x4d = partial(_bottleneck, depths=_50, **_32x4d)
resnext50d_32x4d = partial(_bottleneck, depths=_50, **_32x4d, **_D)
resnext101_32x4d = partial(_bottleneck, depths=_101, **_32x4d)
resnext101_32x8d = partial(_bottleneck, depths=_101, **_32x8d)
resnext101_32x16d = partial(_bottleneck, depths=_101, cardinality=32, base_width=16)
resnext101_32x32d = partial(_bottleneck, depths=_101, cardinality=32, base_width=32)
resnext101_64x4d = partial(_bottleneck, depths=_101, **_64x4d)
wide_resnet50_2 = partial(_bottleneck, depths=_50, base_width=128)
wide_resnet101_2 = partial(_bottleneck, depths=_101, base_width=128)

senet154 = partial(
    _bottleneck,
    depths=_152,
    cardinality=64,
    base_width=4,
    attention="se",
    shortcut_kernel=3,
    reduce_first=2,
    **_S,
)
seresnet18 = partial(_basic, depths=_18, attention="se")
seresnet34 = partial(_basic, depths=_34, attention="se")
seresnet50 = partial(_bottleneck, depths=_50, attention="se")
seresnet50t = partial(_bottleneck, depths=_50, attention="se", **_T)
seresnet101 = partial(_bottleneck, depths=_101, attention="se")
seresnet152 = partial(_bottleneck, depths=_152, attention="se")
seresnet152d = partial(_bottleneck, depths=_152, attention="se", **_D)
seresnet200d = partial(_bottleneck, depths=_200, attention="se", **_D)
seresnet269d = partial(_bottleneck, depths=_269, attention="se", **_D)
seresnetaa50d = partial(_bottleneck, depths=_50, attention="se", antialias="average", **_D)
seresnext26d_32x4d = partial(_bottleneck, depths=_26, attention="se", **_32x4d, **_D)
seresnext26t_32x4d = partial(_bottleneck, depths=_26, attention="se", **_32x4d, **_T)
seresnext50_32x4d = partial(_bottleneck, depths=_50, attention="se", **_32x4d)
seresnext101_32x4d = partial(_bottleneck, depths=_101, attention="se", **_32x4d)
seresnext101_32x8d = partial(_bottleneck, depths=_101, attention="se", **_32x8d)
seresnext101d_32x8d = partial(_bottleneck, depths=_101, attention="se", **_32x8d, **_D)
seresnext101_64x4d = partial(_bottleneck, depths=_101, attention="se", **_64x4d)
seresnextaa101d_32x8d = partial(seresnext101d_32x8d, antialias="average")
seresnextaa201d_32x8d = partial(seresnextaa101d_32x8d, depths=(3, 24, 36, 4), deep_stem=(64, 64))

ecaresnet26t = partial(_bottleneck, depths=_26, attention="eca", **_T)
ecaresnet50d = partial(_bottleneck, depths=_50, attention="eca", **_D)
ecaresnet50t = partial(_bottleneck, depths=_50, attention="eca", **_T)
ecaresnet101d = partial(_bottleneck, depths=_101, attention="eca", **_D)
ecaresnet200d = partial(_bottleneck, depths=_200, attention="eca", **_D)
ecaresnet269d = partial(_bottleneck, depths=_269, attention="eca", **_D)
ecaresnext26t_32x4d = partial(_bottleneck, depths=_26, attention="eca", **_32x4d, **_T)
ecaresnext50t_32x4d = partial(_bottleneck, depths=_50, attention="eca", **_32x4d, **_T)
ecaresnetlight = partial(_bottleneck, depths=(1, 1, 11, 3), attention="eca", average_shortcut=True)

resnetblur18 = partial(_basic, depths=_18, antialias="blur")
resnetblur50 = partial(_bottleneck, depths=_50, antialias="blur")
resnetblur50d = partial(_bottleneck, depths=_50, antialias="blur", **_D)
resnetblur101d = partial(_bottleneck, depths=_101, antialias="blur", **_D)
resnetaa34d = partial(_basic, depths=_34, antialias="average", **_D)
resnetaa50 = partial(_bottleneck, depths=_50, antialias="average")
resnetaa50d = partial(_bottleneck, depths=_50, antialias="average", **_D)
resnetaa101d = partial(_bottleneck, depths=_101, antialias="average", **_D)

resnetrs50 = partial(_bottleneck, depths=_50, **_RS)
resnetrs101 = partial(_bottleneck, depths=_101, **_RS)
resnetrs152 = partial(_bottleneck, depths=_152, **_RS)
resnetrs200 = partial(_bottleneck, depths=_200, **_RS)
resnetrs270 = partial(_bottleneck, depths=(4, 29, 53, 4), **_RS)
resnetrs350 = partial(_bottleneck, depths=(4, 36, 72, 4), **_RS)
resnetrs420 = partial(_bottleneck, depths=(4, 44, 87, 4), **_RS)
