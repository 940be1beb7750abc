"""Blocks of depthwise convolutions, as timm builds them, and the rows of a table that say them."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import jax
from flax import linen as nn

from imgclf.models.layers import (
    BatchNorm,
    Conv,
    SqueezeExcite,
    StochasticDepth,
    activation,
    average_pool,
    blur_pool,
    he_fan_out,
    he_fan_out_of,
    rounded,
)


@dataclass(frozen=True)
class Row:
    """A row of a table: so many blocks, of which the first of a stage has the stride."""

    block: type[nn.Module]
    repeats: int
    kernel: int
    """Side of the depthwise convolution, in an `EdgeResidual` of the full one; 0: there is none."""
    stride: int
    width: int
    expansion: float = 1.0
    """Inner channels for each channel that comes in."""
    squeeze: float = 0.0
    """Share of the channels to which squeeze-and-excitation reduces; 0: there is none."""
    skip: bool = True
    """Whether the input is added where it has the output's shape."""
    act: str = ""
    """Activation, where it is not the network's."""
    last_act: bool = False
    """Whether a `DepthwiseSeparable` ends in an activation."""
    start: int = 0
    """Side of the depthwise convolution before the expansion (`UniversalInverted`)."""
    expanded_from: int = 0
    """What an `EdgeResidual` expands, where that is not the number of channels that come in."""


Table = tuple[tuple[Row, ...], ...]


@dataclass(frozen=True)
class Style:
    """What all blocks of a network have in common."""

    act: str = "relu"
    padding: Literal["", "SAME"] = ""
    """"SAME" is TensorFlow's rule; else as many px on each side."""
    epsilon: float = 1e-5
    """Added to the variance in every norm."""
    gate: str = "sigmoid"
    """Last activation of squeeze-and-excitation."""
    squeeze_act: str = ""
    """First activation of squeeze-and-excitation, where it is not the block's."""
    squeeze_inner: bool = False
    """Whether `squeeze` is a share of the inner channels, not of those that come in."""
    squeeze_rounded: bool = False
    """Whether squeezed channels are rounded as widths are."""
    antialias: Literal["", "average", "blur"] = ""
    """What halves the size in place of a convolution's stride."""
    batch_groups: int = 1

    def conv(self, features: int, kernel: int, stride: int = 1, groups: int = 1, **more) -> Conv:
        """A convolution as this network has it."""
        return Conv(
            features,
            kernel,
            stride,
            self.padding or None,
            groups,
            kernel_init=he_fan_out_of(groups),
            bias_init=nn.initializers.zeros,
            **more,
        )

    def strided(self, features: int, kernel: int, stride: int, **more) -> Conv:
        """The convolution of a block that has its stride; `thinned` comes after its activation."""
        return self.conv(features, kernel, 1 if self.antialias else stride, **more)

    def norm(self, name: str) -> BatchNorm:
        """A norm as this network has it."""
        return BatchNorm(epsilon=self.epsilon, groups=self.batch_groups, name=name)

    def squeezed(self, row: Row, inner: int) -> int:
        """To how many channels squeeze-and-excitation reduces."""
        if self.squeeze_rounded:
            return rounded(inner * row.squeeze)
        return round(inner * (row.squeeze / (1.0 if self.squeeze_inner else row.expansion)))

    def thinned(self, x: jax.Array, stride: int) -> jax.Array:
        """Every `stride`-th place, where an antialiasing network leaves that to another layer."""
        if stride == 1 or not self.antialias:
            return x
        if self.antialias == "average":
            return average_pool(x, stride, stride)
        return blur_pool(x, stride, edges="constant")


class ConvBlock(nn.Module):
    """Convolution, norm, activation; the input is added where the row says so."""

    row: Row
    style: Style
    rate: float = 0.0

    layers: ClassVar[tuple[str, ...]] = ("conv", "bn1")
    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        row, style = self.row, self.style
        y = style.strided(row.width, row.kernel, row.stride, name="conv")(x)
        y = activation(row.act)(style.norm("bn1")(y, train))
        y = style.thinned(y, row.stride)
        return _residual(x, y, row, self.rate, train)


class DepthwiseSeparable(nn.Module):
    """Depthwise, then 1 x 1 convolution (MobileNet, arXiv:1704.04861)."""

    row: Row
    style: Style
    rate: float = 0.0

    layers: ClassVar[tuple[str, ...]] = ("conv_dw", "bn1", "se", "conv_pw", "bn2")
    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        row, style, channels = self.row, self.style, x.shape[-1]
        depthwise = style.strided(channels, row.kernel, row.stride, groups=channels, name="conv_dw")
        y = activation(row.act)(style.norm("bn1")(depthwise(x), train))
        y = _squeeze_excite(style.thinned(y, row.stride), row, style)
        y = style.conv(row.width, 1, name="conv_pw")(y)
        y = style.norm("bn2")(y, train)
        y = activation(row.act)(y) if row.last_act else y
        return _residual(x, y, row, self.rate, train)


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection (MobileNetV2, arXiv:1801.04381)."""

    row: Row
    style: Style
    rate: float = 0.0

    layers: ClassVar[tuple[str, ...]] = (
        "conv_pw",
        "bn1",
        "conv_dw",
        "bn2",
        "se",
        "conv_pwl",
        "bn3",
    )
    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        row, style, act = self.row, self.style, activation(self.row.act)
        inner = rounded(x.shape[-1] * row.expansion)
        y = style.conv(inner, 1, name="conv_pw")(x)
        y = act(style.norm("bn1")(y, train))
        y = style.strided(inner, row.kernel, row.stride, groups=inner, name="conv_dw")(y)
        y = act(style.norm("bn2")(y, train))
        y = _squeeze_excite(style.thinned(y, row.stride), row, style)
        y = style.norm("bn3")(style.conv(row.width, 1, name="conv_pwl")(y), train)
        return _residual(x, y, row, self.rate, train)


class EdgeResidual(nn.Module):
    """Expansion by a full convolution, then projection ("fused", arXiv:2104.00298)."""

    row: Row
    style: Style
    rate: float = 0.0

    layers: ClassVar[tuple[str, ...]] = ("conv_exp", "bn1", "se", "conv_pwl", "bn2")
    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        row, style = self.row, self.style
        inner = rounded((row.expanded_from or x.shape[-1]) * row.expansion)
        y = style.strided(inner, row.kernel, row.stride, name="conv_exp")(x)
        y = activation(row.act)(style.norm("bn1")(y, train))
        y = _squeeze_excite(style.thinned(y, row.stride), row, style)
        y = style.norm("bn2")(style.conv(row.width, 1, name="conv_pwl")(y), train)
        return _residual(x, y, row, self.rate, train)


class UniversalInverted(nn.Module):
    """Depthwise convolutions before and after the expansion, or neither (arXiv:2404.10518)."""

    row: Row
    style: Style
    rate: float = 0.0

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        row, style, channels = self.row, self.style, x.shape[-1]
        part = partial(_ConvNorm, style=style)
        inner, y = rounded(channels * row.expansion), x
        if row.start:
            stride = 1 if row.kernel else row.stride
            y = part(channels, row.start, stride, channels, name="dw_start")(y, train)
        y = part(inner, act=row.act, name="pw_exp")(y, train)
        if row.kernel:
            depthwise = part(inner, row.kernel, row.stride, inner, act=row.act, name="dw_mid")
            y = depthwise(y, train)
        y = part(row.width, name="pw_proj")(_squeeze_excite(y, row, style), train)
        return _residual(x, y, row, self.rate, train)


class _ConvNorm(nn.Module):
    features: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    act: str = "identity"
    style: Style = Style()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = self.style.strided(
            self.features, self.kernel, self.stride, groups=self.groups, name="conv"
        )
        y = activation(self.act)(self.style.norm("bn")(conv(x), train))
        return self.style.thinned(y, self.stride)


def _squeeze_excite(x: jax.Array, row: Row, style: Style) -> jax.Array:
    if not row.squeeze:
        return x
    return SqueezeExcite(
        style.squeezed(row, x.shape[-1]),
        names=("conv_reduce", "conv_expand"),
        act=style.squeeze_act or row.act,
        gate=style.gate,
        kernel_init=he_fan_out,
        bias_init=nn.initializers.zeros,
        name="se",
    )(x)


def _residual(x: jax.Array, y: jax.Array, row: Row, rate: float, train: bool) -> jax.Array:
    if not row.skip or row.stride > 1 or x.shape[-1] != y.shape[-1]:
        return y
    return StochasticDepth(rate)(y, train) + x
