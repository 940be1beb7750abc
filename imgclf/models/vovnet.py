"""VoVNets (arXiv:1904.09730) and their second version (arXiv:1911.06667), as timm builds them."""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers import (
    BatchNorm,
    Conv,
    ConvNormAct,
    EfficientChannelAttention,
    Norm,
    Numbered,
    PooledHead,
    StochasticDepth,
    linear_rates,
    max_pool,
    relu,
)
from imgclf.models.network import Outputs


class SeparableConvNormAct(nn.Module):
    """3x3 convolution of each channel by itself, 1x1 convolution, norm, ReLU."""

    features: int
    stride: int = 1
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]
        x = Conv(channels, 3, self.stride, groups=channels, name="conv_dw")(x)
        x = Conv(self.features, 1, name="conv_pw")(x)
        return relu(self.norm(name="bn")(x, train))


class EffectiveSqueezeExcite(nn.Module):
    """Squeeze-excite by one 1x1 convolution (`fc`) that keeps all channels (arXiv:1911.06667)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        weights = Conv(x.shape[-1], 1, use_bias=True, name="fc")(x.mean((1, 2), keepdims=True))
        return x * nn.hard_sigmoid(weights)


class Chain(nn.Module):
    """3x3 convolutions one after another; answers what came in and what each of them gave."""

    features: int
    layers: int
    depthwise: bool
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> list[jax.Array]:
        given = []
        for i in range(self.layers):
            if self.depthwise:
                layer = SeparableConvNormAct(self.features, norm=self.norm, name=str(i))
                x = layer(x, train)
            else:
                x = ConvNormAct(self.features, 3, norm=self.norm, name=str(i))(x, train)
            given.append(x)
        return given


class Block(nn.Module):
    """One-shot aggregation: the input and all layers of a chain, joined by a 1x1 convolution."""

    inner: int
    features: int
    layers: int
    depthwise: bool
    attention: str
    residual: bool
    drop_path: float
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shortcut = x
        if self.depthwise and x.shape[-1] != self.inner:
            x = ConvNormAct(self.inner, 1, norm=self.norm, name="conv_reduction")(x, train)
        chain = Chain(self.inner, self.layers, self.depthwise, self.norm, name="conv_mid")
        x = jnp.concatenate([shortcut, *chain(x, train)], -1)
        x = ConvNormAct(self.features, 1, norm=self.norm, name="conv_concat")(x, train)
        if self.attention == "ese":
            x = EffectiveSqueezeExcite(name="attn")(x)
        elif self.attention == "eca":
            x = EfficientChannelAttention(name="attn")(x)
        x = StochasticDepth(self.drop_path)(x, train)
        return x + shortcut if self.residual else x


class Stage(nn.Module):
    """A 3x3 maximum at stride 2, unless it is the first stage, and the `blocks`."""

    blocks: tuple[partial[Block], ...]
    pool: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.pool:
            x = max_pool(x, 3, 2, ceil=True)
        return Numbered(self.blocks, name="blocks")(x, train)


class VoVNet(nn.Module):
    """Stem of three convolutions, four stages (`stages.0` to `stages.3`), mean, `head.fc`."""

    num_classes: int
    depths: tuple[int, ...]
    """Blocks of each stage."""
    layers: int
    """Convolutions in the chain of a block."""
    inner_widths: tuple[int, ...] = (128, 160, 192, 224)
    """Channels of the chain, for each stage."""
    widths: tuple[int, ...] = (256, 512, 768, 1024)
    """Channels that leave each stage."""
    stem_widths: tuple[int, int, int] = (64, 64, 128)
    depthwise: bool = False
    """Whether the chains' convolutions, and the stem's last two, are separable ones."""
    second: bool = True
    """The paper's second version: with shortcuts, and attention at each stage's end."""
    attention: Literal["ese", "eca"] = "ese"
    """Which: by one linear map of all channels, or along them (arXiv:1910.03151)."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """Rate of the last block; it grows linearly from 0 at the first."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Whether every place is classified, in place of their mean."""

    classifier: ClassVar[str] = "head.fc"
    stem: ClassVar[str] = "stem.0.conv"

    @property
    def stages(self) -> tuple[str, ...]:
        """Paths of the submodules that are the stages."""
        return tuple(f"stages.{i}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        x = Numbered(self._stem(), name="stem")(images, train)
        x = Numbered(self._stages(), name="stages")(x, train)
        head = PooledHead(
            self.num_classes,
            self.drop_rate,
            self.dense,
            bias_init=nn.initializers.zeros,
            name="head",
        )
        return Outputs(*head(x, train))

    def _norm(self) -> Norm:
        return partial(BatchNorm, groups=self.batch_groups)

    def _stem(self) -> tuple[Callable[..., nn.Module], ...]:
        full = partial(ConvNormAct, kernel=3, norm=self._norm())
        inner = partial(SeparableConvNormAct, norm=self._norm()) if self.depthwise else full
        strides = (2, 1, 2)
        return tuple(
            partial(convolution, features=features, stride=stride)
            for convolution, features, stride in zip(
                (full, inner, inner), self.stem_widths, strides, strict=True
            )
        )

    def _stages(self) -> tuple[partial[Stage], ...]:
        rates = linear_rates(self.stochastic_depth, sum(self.depths))
        stages = []
        for i, depth in enumerate(self.depths):
            blocks = tuple(
                partial(
                    Block,
                    self.inner_widths[i],
                    self.widths[i],
                    self.layers,
                    self.depthwise,
                    attention=self.attention if self.second and j == depth - 1 else "",
                    residual=self.second and j > 0,
                    drop_path=rates.pop(0),
                    norm=self._norm(),
                )
                for j in range(depth)
            )
            stages.append(partial(Stage, blocks, pool=i > 0))
        return tuple(stages)


_SLIM = {"inner_widths": (64, 80, 96, 112), "widths": (112, 256, 384, 512)}
_DEPTHWISE = {"stem_widths": (64, 64, 64), "depthwise": True}

vovnet39a = partial(VoVNet, depths=(1, 1, 2, 2), layers=5, second=False)
vovnet57a = partial(VoVNet, depths=(1, 1, 4, 3), layers=5, second=False)
ese_vovnet19b = partial(VoVNet, depths=(1, 1, 1, 1), layers=3)
ese_vovnet19b_dw = partial(ese_vovnet19b, **_DEPTHWISE)
ese_vovnet19b_slim = partial(ese_vovnet19b, **_SLIM)
ese_vovnet19b_slim_dw = partial(ese_vovnet19b, **_SLIM, **_DEPTHWISE)
ese_vovnet39b = partial(VoVNet, depths=(1, 1, 2, 2), layers=5)
eca_vovnet39b = partial(ese_vovnet39b, attention="eca")
ese_vovnet57b = partial(VoVNet, depths=(1, 1, 4, 3), layers=5)
ese_vovnet99b = partial(VoVNet, depths=(1, 3, 9, 3), layers=5)
