"""Networks of linear layers alone, over patches and over channels in turn, as timm builds them.

MLP-Mixer (Tolstikhin et al. 2021, arXiv:2105.01601), ResMLP (Touvron et al. 2021,
arXiv:2105.03404), gMLP (Liu et al. 2021, arXiv:2105.08050), and timm's Mixers with gated
perceptrons. Their weights belong to one number of patches: that of the images that they are
initialised with.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers import (
    ActivationName,
    Dense,
    Initializer,
    LayerNorm,
    PatchEmbed,
    StochasticDepth,
    activation,
    linear_rates,
    plus,
    stored_shape,
    times,
)
from imgclf.models.network import Outputs

_ZEROS, _ONES = nn.initializers.zeros, nn.initializers.ones
_XAVIER = nn.initializers.xavier_uniform()
_NEARLY_ZERO = nn.initializers.normal(1e-6)


class Affine(nn.Module):
    """A trained factor and summand for each channel, `alpha` and `beta`: ResMLP's norm."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, 1, x.shape[-1])
        alpha = self.param("alpha", _ONES, shape, jnp.float32)
        beta = self.param("beta", _ZEROS, shape, jnp.float32)
        return plus(times(x, alpha.reshape(-1)), beta.reshape(-1))


class Perceptron(nn.Module):
    """Two linear layers over the last axis: `fc1` and `fc2`.

    If it is `gated`, the activation of one half of the hidden channels is multiplied by the other
    (arXiv:2002.05202), and the half that gates begins as 1 before its activation.
    """

    hidden: int
    act: str = "gelu"
    gated: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act = activation(self.act)
        if self.gated:
            weights, bias = _halves(_XAVIER, _NEARLY_ZERO), _halves(_NEARLY_ZERO, _ONES)
            y = Dense(self.hidden, True, weights, bias, name="fc1")(x)
            value, gate = jnp.split(y, 2, -1)
            y = value * act(gate)
        else:
            y = act(Dense(self.hidden, True, _XAVIER, _NEARLY_ZERO, name="fc1")(x))
        return Dense(x.shape[-1], True, _XAVIER, _NEARLY_ZERO, name="fc2")(y)


class MixerBlock(nn.Module):
    """A perceptron over the patches, then one over the channels."""

    ratios: tuple[float, float]
    """Hidden channels of the two, each in multiples of the width."""
    act: str = "gelu"
    gated: bool = False
    rate: float = 0.0

    over_patches: ClassVar[tuple[str, ...]] = ("mlp_tokens", "fc2", "bias")

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        drop = StochasticDepth(self.rate)
        patches, channels = (int(ratio * x.shape[-1]) for ratio in self.ratios)
        y = LayerNorm(name="norm1")(x).swapaxes(1, 2)
        y = Perceptron(patches, self.act, self.gated, name="mlp_tokens")(y)
        x = x + drop(y.swapaxes(1, 2), train)
        y = LayerNorm(name="norm2")(x)
        return x + drop(Perceptron(channels, self.act, self.gated, name="mlp_channels")(y), train)


class ResBlock(nn.Module):
    """ResMLP's: one linear layer over the patches, then a perceptron over the channels."""

    ratio: float = 4.0
    layer_scale: float = 1e-4
    """What the factors of both branches, `ls1` and `ls2`, begin as."""
    rate: float = 0.0

    over_patches: ClassVar[tuple[str, ...]] = ("linear_tokens", "bias")

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        drop, (_, t, d) = StochasticDepth(self.rate), x.shape
        scale_init = nn.initializers.constant(self.layer_scale)
        y = Affine(name="norm1")(x).swapaxes(1, 2)
        y = Dense(t, True, _XAVIER, _ZEROS, name="linear_tokens")(y).swapaxes(1, 2)
        x = x + drop(times(y, self.param("ls1", scale_init, (d,))), train)
        y = Perceptron(int(self.ratio * d), name="mlp_channels")(Affine(name="norm2")(x))
        return x + drop(times(y, self.param("ls2", scale_init, (d,))), train)


class SpatialGatingBlock(nn.Module):
    """gMLP's: one perceptron over the channels, gated by a linear layer over the patches."""

    ratio: float = 6.0
    rate: float = 0.0

    over_patches: ClassVar[tuple[str, ...]] = ("mlp_channels", "gate", "proj", "bias")

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = GatedPerceptron(int(self.ratio * x.shape[-1]), name="mlp_channels")(
            LayerNorm(name="norm")(x)
        )
        return x + StochasticDepth(self.rate)(y, train)


class GatedPerceptron(nn.Module):
    """`fc1`, GELU, the gate over the patches, `fc2`."""

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Dense(self.hidden, True, _XAVIER, _NEARLY_ZERO, name="fc1")(x)
        y = SpatialGate(name="gate")(activation("gelu")(y))
        return Dense(x.shape[-1], True, _XAVIER, _NEARLY_ZERO, name="fc2")(y)


class SpatialGate(nn.Module):
    """One half of the channels times a linear map over the patches of the other, 1 at first."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        value, gate = jnp.split(x, 2, -1)
        gate = LayerNorm(1e-5, name="norm")(gate).swapaxes(1, 2)
        gate = Dense(x.shape[1], True, _NEARLY_ZERO, _ONES, name="proj")(gate)
        return value * gate.swapaxes(1, 2)


class Blocks(nn.Module):
    """One block after another, each called by its number."""

    block: Callable[..., nn.Module]
    rates: tuple[float, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, rate in enumerate(self.rates):
            x = self.block(rate=rate, name=str(i))(x, train)
        return x


class MlpMixer(nn.Module):
    """Patches as vectors (`stem`), `blocks`, `norm`, the mean over the patches, `head`."""

    num_classes: int
    patch: int
    """px on a side of a patch; they must divide the images' height and width."""
    depth: int
    width: int
    block: type[MixerBlock] | type[ResBlock] | type[SpatialGatingBlock] = MixerBlock
    ratios: tuple[float, float] = (0.5, 4.0)
    """Hidden channels over the patches (of a `MixerBlock`) and over the channels, in widths."""
    act: ActivationName = "gelu"
    """Of a `MixerBlock`, as is `gated`; the others have GELU."""
    gated: bool = False
    """Whether its perceptrons are gated."""
    layer_scale: float = 1e-4
    """What the factors of a `ResBlock` begin as."""
    zero_init_head: bool = True
    """Whether the classifier begins with zeros: no class is preferred."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """How often the last block's branches are left out in training; earlier ones less often, as
    in Mixer's paper (in timm all alike)."""

    classifier: ClassVar[str] = "head"
    stem: ClassVar[str] = "stem.proj"

    @property
    def minimum_size(self) -> int:
        """px: one patch."""
        return self.patch

    @property
    def stages(self) -> tuple[str, ...]:
        """All blocks."""
        return tuple(f"blocks.{i}" for i in range(self.depth))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        self._check_size(images.shape)
        lecun = nn.initializers.lecun_normal()
        x = PatchEmbed(self.width, self.patch, kernel_init=lecun, name="stem")(images)
        x = x.reshape(len(x), -1, self.width)
        rates = tuple(linear_rates(self.stochastic_depth, self.depth))
        x = Blocks(self._block(), rates, name="blocks")(x, train)
        norm = Affine if self.block is ResBlock else LayerNorm
        features = norm(name="norm")(x).mean(1, dtype=jnp.float32)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        weights = _ZEROS if self.zero_init_head else _XAVIER
        return Outputs(Dense(self.num_classes, True, weights, _ZEROS, name="head")(x), features)

    def _block(self) -> Callable[..., nn.Module]:
        if self.block is MixerBlock:
            return partial(MixerBlock, self.ratios, self.act, self.gated)
        if self.block is ResBlock:
            return partial(ResBlock, self.ratios[1], self.layer_scale)
        return partial(SpatialGatingBlock, self.ratios[1])

    def _check_size(self, shape: tuple[int, ...]) -> None:
        _, height, width, _ = shape
        if height % self.patch or width % self.patch:
            raise UserError(
                f"The `patch` of a mixer (={self.patch}) must divide the height and width of its "
                f"images; got {height} x {width} px"
            )
        patches = (height // self.patch) * (width // self.patch)
        stored = stored_shape(self, "blocks", "0", *self.block.over_patches)
        if stored and stored != (patches,):
            raise UserError(
                f"The images of a mixer must have as many patches of {self.patch} px as those that "
                f"its weights are for (={stored[0]}); got {patches}, of {height} x {width} px"
            )


def _halves(first: Initializer, second: Initializer) -> Initializer:
    """Values of `first`, and of `second` for the latter half of the outputs, the last axis."""

    def make(key: jax.Array, shape: tuple[int, ...], dtype: type = jnp.float32) -> jax.Array:
        keys = jax.random.split(key)
        late = jnp.arange(shape[-1]) >= shape[-1] // 2
        return jnp.where(late, second(keys[1], shape, dtype), first(keys[0], shape, dtype))

    return make


_small = partial(MlpMixer, depth=8, width=512)
_base = partial(MlpMixer, depth=12, width=768)
_large = partial(MlpMixer, depth=24, width=1024)
mixer_s32_224 = partial(_small, patch=32)
mixer_s16_224 = partial(_small, patch=16)
mixer_b32_224 = partial(_base, patch=32)
mixer_b16_224 = partial(_base, patch=16)
mixer_l32_224 = partial(_large, patch=32)
mixer_l16_224 = partial(_large, patch=16)

_gmixer = partial(MlpMixer, patch=16, width=384, ratios=(1.0, 4.0), act="silu", gated=True)
gmixer_12_224 = partial(_gmixer, depth=12)
gmixer_24_224 = partial(_gmixer, depth=24)

_resmlp = partial(MlpMixer, block=ResBlock)
resmlp_12_224 = partial(_resmlp, patch=16, depth=12, width=384, layer_scale=1e-4)
resmlp_24_224 = partial(_resmlp, patch=16, depth=24, width=384, layer_scale=1e-5)
resmlp_36_224 = partial(_resmlp, patch=16, depth=36, width=384, layer_scale=1e-6)
resmlp_big_24_224 = partial(_resmlp, patch=8, depth=24, width=768, layer_scale=1e-6)

_gmlp = partial(MlpMixer, patch=16, depth=30, block=SpatialGatingBlock, ratios=(0.0, 6.0))
gmlp_ti16_224 = partial(_gmlp, width=128)
gmlp_s16_224 = partial(_gmlp, width=256)
gmlp_b16_224 = partial(_gmlp, width=512)
