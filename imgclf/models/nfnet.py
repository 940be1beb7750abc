"""Normaliser-free networks, as timm builds them: NF-ResNet, NF-RegNet and NFNet.

Brock et al. 2021: arXiv:2101.08692 and arXiv:2102.06171. No norm and no batch statistics; in
their place scaled weight standardisation and activations that keep the variance.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers import (
    Activation,
    ActivationName,
    EfficientChannelAttention,
    Numbered,
    PooledHead,
    ScaledStdConv,
    SqueezeExcite,
    StochasticDepth,
    activation,
    activation_gain,
    average_pool,
    lecun_normal,
    linear_rates,
    max_pool,
    rounded,
    scaled_activation,
)
from imgclf.models.network import Outputs

Convolution = Callable[..., Any]
"""Makes a `ScaledStdConv` of some features and kernel, as a `partial` of it."""

_ZEROS, _ONES = nn.initializers.zeros, nn.initializers.ones


class Downsample(nn.Module):
    """The shortcut where a block changes the shape: mean over 2x2 at stride 2, 1x1 `conv`."""

    features: int
    stride: int
    convolution: Convolution

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.stride > 1:
            x = average_pool(x, 2, self.stride, ceil=True, count_padding=False)
        return self.convolution(self.features, 1, name="conv")(x)


class Block(nn.Module):
    """Activation before each of the three or four convolutions; what it adds is scaled by `alpha`.

    `beta` brings what comes in to variance 1. Attention, doubled, is after the last convolution
    or, if `inner_attention`, before it.
    """

    features: int
    stride: int
    inner: int
    groups: int
    alpha: float
    beta: float
    extra_conv: bool
    skip_init: bool
    inner_attention: bool
    zero_init_last: bool
    drop_path: float
    act: Activation
    convolution: Convolution
    attention: Callable[[jax.Array, str], jax.Array] | None

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = self.act(x) * self.beta
        shortcut = x
        if self.stride > 1 or x.shape[-1] != self.features:
            down = Downsample(self.features, self.stride, self.convolution, name="downsample")
            shortcut = down(y)

        grouped = partial(self.convolution, self.inner, 3, groups=self.groups)
        y = self.convolution(self.inner, 1, name="conv1")(y)
        y = grouped(stride=self.stride, name="conv2")(self.act(y))
        if self.extra_conv:
            y = grouped(name="conv2b")(self.act(y))
        if self.attention is not None and self.inner_attention:
            y = 2 * self.attention(y, "attn")
        last_init = _ZEROS if self.zero_init_last else _ONES
        gain_init = _ONES if self.skip_init else last_init
        y = self.convolution(self.features, 1, gain_init=gain_init, name="conv3")(self.act(y))
        if self.attention is not None and not self.inner_attention:
            y = 2 * self.attention(y, "attn_last")
        y = StochasticDepth(self.drop_path)(y, train)
        if self.skip_init:
            y = y * self.param("skipinit_gain", last_init, (), jnp.float32).astype(y.dtype)
        return y * self.alpha + shortcut


class Stem(nn.Module):
    """How the images come in: `conv`, perhaps and a 3x3 maximum, or `conv1` to `conv4`."""

    kind: Literal["7x7", "3x3", "deep"]
    features: int
    act: Activation
    convolution: Convolution

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.kind == "7x7":
            return max_pool(self.convolution(self.features, 7, 2, name="conv")(x), 3, 2, padding=1)
        if self.kind == "3x3":
            return self.convolution(self.features, 3, 2, name="conv")(x)
        for i, stride in enumerate((2, 1, 1, 2)):
            x = self.act(x) if i else x
            x = self.convolution(self.features // 2 ** (3 - i), 3, stride, name=f"conv{i + 1}")(x)
        return x


class NFNet(nn.Module):
    """Stem, four stages (`stages.0` to `stages.3`), 1x1 `final_conv`, mean, `head.fc`."""

    num_classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    """Channels that leave each stage."""
    last_width: int = 0
    """Channels of the last convolution, which are the features; 0: without it."""
    stem_kind: Literal["7x7", "3x3", "deep"] = "deep"
    stem_width: int = 128
    group_size: int = 0
    """Channels of a group of the 3x3 convolutions; one group if it is 0, or more than they have."""
    bottleneck: float = 0.5
    """Channels of the 3x3 convolutions, as a share of those that leave the block."""
    expand: bool = False
    """As a share of those that enter it, and as many in the first block; attention inside."""
    extra_conv: bool = False
    """Whether a block has two 3x3 convolutions."""
    attention: Literal["", "se", "eca"] = ""
    se_ratio: float = 0.5
    """Channels inside squeeze-excite, as a share of what it weighs."""
    act: ActivationName = "relu"
    deepmind: bool = False
    """As the authors' weights: `SAME` padding, gains in the activations, a gain of the branch."""
    alpha: float = 0.2
    """Scale of what each block adds."""
    zero_init_last: bool = True
    """Whether every block's branch begins as zero."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """Rate of the last block; it grows linearly from 0 at the first."""
    dense: bool = False
    """Whether every place is classified, in place of their mean."""

    classifier: ClassVar[str] = "head.fc"

    @property
    def stem(self) -> str:
        """Path of the convolution that reads the images."""
        return "stem.conv1" if self.stem_kind == "deep" else "stem.conv"

    @property
    def stages(self) -> tuple[str, ...]:
        """Paths of the submodules that are the stages."""
        return tuple(f"stages.{i}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        act, convolution = self._act(), self._convolution()
        x = Stem(self.stem_kind, self.stem_width, act, convolution, name="stem")(images)
        x = Numbered(self._stages(), name="stages")(x, train)
        if self.last_width:
            x = convolution(self.last_width, 1, name="final_conv")(x)
        head = PooledHead(
            self.num_classes,
            self.drop_rate,
            self.dense,
            kernel_init=nn.initializers.normal(0.01),
            bias_init=_ZEROS,
            name="head",
        )
        return Outputs(*head(act(x), train))

    def _act(self) -> Activation:
        return scaled_activation(self.act) if self.deepmind else activation(self.act)

    def _convolution(self) -> Convolution:
        if self.deepmind:
            return partial(ScaledStdConv, padding="SAME")
        return partial(ScaledStdConv, gamma=activation_gain(self.act))

    def _attention(self) -> Callable[[jax.Array, str], jax.Array] | None:
        def squeeze_excite(x: jax.Array, name: str) -> jax.Array:
            reduced = rounded(x.shape[-1] * self.se_ratio, least=0.0)
            return SqueezeExcite(reduced, kernel_init=lecun_normal, bias_init=_ZEROS, name=name)(x)

        def channel_attention(x: jax.Array, name: str) -> jax.Array:
            return EfficientChannelAttention(name=name)(x)

        return {"": None, "se": squeeze_excite, "eca": channel_attention}[self.attention]

    def _stages(self) -> tuple[partial[Numbered], ...]:
        rates = linear_rates(self.stochastic_depth, sum(self.depths))
        stages, width, variance = [], self.stem_width, 1.0
        for i, (depth, features) in enumerate(zip(self.depths, self.widths, strict=True)):
            blocks = []
            for j in range(depth):
                inner, groups = self._inner(width, features, first=i == j == 0)
                blocks.append(
                    partial(
                        Block,
                        features=features,
                        stride=2 if j == 0 and (i > 0 or self.stem_kind == "3x3") else 1,
                        inner=inner,
                        groups=groups,
                        alpha=self.alpha,
                        beta=variance**-0.5,
                        extra_conv=self.extra_conv,
                        skip_init=self.deepmind,
                        inner_attention=self.expand,
                        zero_init_last=self.zero_init_last,
                        drop_path=rates.pop(0),
                        act=self._act(),
                        convolution=self._convolution(),
                        attention=self._attention(),
                    )
                )
                # The first block's shortcut is made from activations of variance 1.
                variance = (1.0 if j == 0 else variance) + self.alpha**2
                width = features
            stages.append(partial(Numbered, tuple(blocks)))
        return tuple(stages)

    def _inner(self, width: int, features: int, first: bool) -> tuple[int, int]:
        if self.expand:
            inner = rounded(width * (1.0 if first else self.bottleneck))
        else:
            inner = rounded(features * self.bottleneck)
        if not 0 < self.group_size <= inner:
            return inner, 1
        groups = inner // self.group_size
        return groups * self.group_size, groups


def _nf_regnet(depths: tuple[int, ...], widths: tuple[int, ...]) -> partial[NFNet]:
    return partial(
        NFNet,
        depths=depths,
        widths=tuple(rounded(0.75 * width) for width in widths),
        last_width=rounded(0.75 * (1280 * widths[-1] // 440)),
        stem_kind="3x3",
        stem_width=rounded(0.75 * widths[0]),
        group_size=8,
        bottleneck=2.25,
        expand=True,
        attention="se",
        act="silu",
    )


_resnet = partial(
    NFNet, widths=(256, 512, 1024, 2048), stem_kind="7x7", stem_width=64, bottleneck=0.25
)
nf_resnet26 = partial(_resnet, depths=(2, 2, 2, 2))
nf_resnet50 = partial(_resnet, depths=(3, 4, 6, 3))
nf_resnet101 = partial(_resnet, depths=(3, 4, 23, 3))
nf_seresnet26 = partial(nf_resnet26, attention="se", se_ratio=1 / 16)
nf_seresnet50 = partial(nf_resnet50, attention="se", se_ratio=1 / 16)
nf_seresnet101 = partial(nf_resnet101, attention="se", se_ratio=1 / 16)
nf_ecaresnet26 = partial(nf_resnet26, attention="eca")
nf_ecaresnet50 = partial(nf_resnet50, attention="eca")
nf_ecaresnet101 = partial(nf_resnet101, attention="eca")

nf_regnet_b0 = _nf_regnet((1, 3, 6, 6), (48, 104, 208, 440))
nf_regnet_b1 = _nf_regnet((2, 4, 7, 7), (48, 104, 208, 440))
nf_regnet_b2 = _nf_regnet((2, 4, 8, 8), (56, 112, 232, 488))
nf_regnet_b3 = _nf_regnet((2, 5, 9, 9), (56, 128, 248, 528))
nf_regnet_b4 = _nf_regnet((2, 6, 11, 11), (64, 144, 288, 616))
nf_regnet_b5 = _nf_regnet((3, 7, 14, 14), (80, 168, 336, 704))

_nfnet = partial(NFNet, widths=(256, 512, 1536, 1536), extra_conv=True)
_large = partial(_nfnet, last_width=3072, group_size=128, attention="se", act="gelu")
nfnet_f0 = partial(_large, depths=(1, 2, 6, 3))
nfnet_f1 = partial(_large, depths=(2, 4, 12, 6))
nfnet_f2 = partial(_large, depths=(3, 6, 18, 9))
nfnet_f3 = partial(_large, depths=(4, 8, 24, 12))
nfnet_f4 = partial(_large, depths=(5, 10, 30, 15))
nfnet_f5 = partial(_large, depths=(6, 12, 36, 18))
nfnet_f6 = partial(_large, depths=(7, 14, 42, 21))
nfnet_f7 = partial(_large, depths=(8, 16, 48, 24))

dm_nfnet_f0 = partial(nfnet_f0, deepmind=True)
dm_nfnet_f1 = partial(nfnet_f1, deepmind=True)
dm_nfnet_f2 = partial(nfnet_f2, deepmind=True)
dm_nfnet_f3 = partial(nfnet_f3, deepmind=True)
dm_nfnet_f4 = partial(nfnet_f4, deepmind=True)
dm_nfnet_f5 = partial(nfnet_f5, deepmind=True)
dm_nfnet_f6 = partial(nfnet_f6, deepmind=True)

_light = partial(_nfnet, group_size=64, bottleneck=0.25, act="silu")
nfnet_l0 = partial(_light, depths=(1, 2, 6, 3), last_width=2304, attention="se", se_ratio=0.25)
eca_nfnet_l0 = partial(_light, depths=(1, 2, 6, 3), last_width=2304, attention="eca")
eca_nfnet_l1 = partial(_light, depths=(2, 4, 12, 6), last_width=3072, attention="eca")
eca_nfnet_l2 = partial(_light, depths=(3, 6, 18, 9), last_width=3072, attention="eca")
eca_nfnet_l3 = partial(_light, depths=(4, 8, 24, 12), last_width=3072, attention="eca")
