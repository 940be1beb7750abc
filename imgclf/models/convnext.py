"""ConvNeXt (arXiv:2201.03545) and ConvNeXt V2 (arXiv:2301.00808), under timm's names."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from flax import linen as nn

from imgclf.models.layers import (
    GRN,
    Conv,
    Dense,
    LayerNorm,
    Norm,
    Numbered,
    StochasticDepth,
    gelu,
    pooled,
    stage_rates,
    times,
    truncated_normal,
)
from imgclf.models.network import Outputs
from imgclf.models.torchvision import Names, renamed

_ZEROS = nn.initializers.zeros
_conv = partial(Conv, use_bias=True, kernel_init=truncated_normal(), bias_init=_ZEROS)
_dense = partial(Dense, kernel_init=truncated_normal(), bias_init=_ZEROS)
_TORCHVISION: Names = (
    (r"^features\.0\.", "stem."),
    (r"^features\.([1357])\.", lambda m: f"stages.{int(m[1]) // 2}.blocks."),
    (r"^features\.([246])\.", lambda m: f"stages.{int(m[1]) // 2}.downsample."),
    (r"\.block\.0\.", ".conv_dw."),
    (r"\.block\.2\.", ".norm."),
    (r"\.block\.3\.", ".mlp.fc1."),
    (r"\.block\.5\.", ".mlp.fc2."),
    (r"\.layer_scale$", ".gamma"),
    (r"^classifier\.0\.", "head.norm."),
    (r"^classifier\.2\.", "head.fc."),
)


@dataclass(frozen=True)
class Form:
    """What the blocks of one network have in common."""

    convolutional: bool
    response_norm: bool
    layer_scale: float | None
    norm: Norm


class Perceptron(nn.Module):
    """Two linear layers, to four times the channels and back; in V2 with `grn` between."""

    form: Form

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        linear = partial(_conv, kernel=1) if self.form.convolutional else _dense
        y = gelu(linear(4 * x.shape[-1], name="fc1")(x))
        if self.form.response_norm:
            y = GRN(name="grn")(y)
        return linear(x.shape[-1], name="fc2")(y)


class Block(nn.Module):
    """A 7 x 7 depthwise convolution, a norm, a perceptron for each place, and a shortcut."""

    form: Form
    rate: float

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1]
        y = _conv(channels, 7, groups=channels, name="conv_dw")(x)
        y = self.form.norm(name="norm")(y)
        y = Perceptron(self.form, name="mlp")(y)
        if self.form.layer_scale is not None:
            init = nn.initializers.constant(self.form.layer_scale)
            y = times(y, self.param("gamma", init, (channels,)))
        return x + StochasticDepth(self.rate)(y, train)


class Downsample(nn.Module):
    """A norm, and a convolution that halves the height and the width."""

    features: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _conv(self.features, 2, 2, padding=0, name="1")(self.norm(name="0")(x))


class Stage(nn.Module):
    """Blocks of one width, one for each rate of stochastic depth, perhaps after a downsampling."""

    features: int
    rates: tuple[float, ...]
    form: Form
    downsample: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.downsample:
            x = Downsample(self.features, self.form.norm, name="downsample")(x)
        blocks = [partial(Block, self.form, rate) for rate in self.rates]
        return Numbered(blocks, name="blocks")(x, train)


class Stem(nn.Module):
    """Patches of 4 x 4 px or, where the widths are two, overlapping 3 x 3 convolutions."""

    widths: tuple[int, ...]
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if len(self.widths) == 1:
            x = _conv(self.widths[0], 4, 4, padding=0, name="0")(x)
        else:
            for i, width in enumerate(self.widths):
                x = _conv(width, 3, 2, padding=1, name=str(i))(x)
        return self.norm(name=str(len(self.widths)))(x)


class Head(nn.Module):
    """Pooling, norm, perhaps a `hidden` layer, dropout and the classifier."""

    num_classes: int
    hidden: int
    drop_rate: float
    dense: bool
    norm: Norm | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> Outputs:
        features = pooled(x, self.dense)
        if self.norm:
            features = self.norm(name="norm")(features)
        if self.hidden:
            features = Hidden(self.hidden, name="pre_logits")(features)
        y = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return Outputs(_dense(self.num_classes, name="fc")(y), features)


class Hidden(nn.Module):
    """A linear layer (`fc`) and GELU."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return gelu(_dense(self.features, name="fc")(x))


class ConvNeXt(nn.Module):
    """Stem, stages (`stages.0` and so on) and head."""

    num_classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    convolutional: bool = False
    """Whether the perceptrons' weights are kept as those of 1 x 1 convolutions."""
    response_norm: bool = False
    """Global response normalisation, as in V2."""
    layer_scale: float | None = 1e-6
    """What the factors of the residual branches begin with; None: there are none, as in V2."""
    stem_widths: tuple[int, ...] = ()
    """Channels of the stem's two overlapping convolutions; none: it takes patches."""
    norm_epsilon: float = 1e-6
    norm_first: bool = False
    """Whether the head's norm (then `norm_pre`) comes before its pooling."""
    head_hidden: int = 0
    """Width of a hidden layer in the head; 0: there is none."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """How often the last block's branch is left out; it grows linearly from 0."""
    dense: bool = False
    """Whether the classifier is applied at every place instead of after pooling."""

    classifier: ClassVar[str] = "head.fc"
    stem: ClassVar[str] = "stem.0"

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(f"stages.{i}" for i in range(len(self.depths)))

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of a file; those of torchvision's same network under timm's names."""
        found = renamed(stored, _TORCHVISION)
        for name, array in found.items():
            if name.endswith(".gamma"):  # there (features, 1, 1)
                found[name] = array.reshape(-1)
        return found

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(LayerNorm, self.norm_epsilon)
        x = Stem(self.stem_widths or self.widths[:1], norm, name="stem")(images)
        x = Numbered(self._stages(norm), name="stages")(x, train)
        if self.norm_first:
            x = norm(name="norm_pre")(x)
        return Head(
            self.num_classes,
            self.head_hidden,
            self.drop_rate,
            self.dense,
            None if self.norm_first else norm,
            name="head",
        )(x, train)

    def _stages(self, norm: Norm) -> list[partial[Stage]]:
        form = Form(self.convolutional, self.response_norm, self.layer_scale, norm)
        rates = stage_rates(self.stochastic_depth, self.depths)
        return [
            partial(Stage, width, own, form, downsample=i > 0)
            for i, (width, own) in enumerate(zip(self.widths, rates, strict=True))
        ]


def _widths(first: int) -> tuple[int, ...]:
    return first, 2 * first, 4 * first, 8 * first


_SMALLEST, _NANO, _TINY, _SMALL = (2, 2, 6, 2), (2, 2, 8, 2), (3, 3, 9, 3), (3, 3, 27, 3)
_V1_CONV = partial(ConvNeXt, convolutional=True)
_V2 = partial(ConvNeXt, response_norm=True, layer_scale=None)
_V2_CONV = partial(_V2, convolutional=True)

convnext_atto = partial(_V1_CONV, depths=_SMALLEST, widths=_widths(40))
convnext_atto_ols = partial(convnext_atto, stem_widths=(24, 40))
convnext_femto = partial(_V1_CONV, depths=_SMALLEST, widths=_widths(48))
convnext_femto_ols = partial(convnext_femto, stem_widths=(24, 48))
convnext_pico = partial(_V1_CONV, depths=_SMALLEST, widths=_widths(64))
convnext_pico_ols = partial(convnext_pico, stem_widths=(32, 64))
convnext_nano = partial(_V1_CONV, depths=_NANO, widths=_widths(80))
convnext_nano_ols = partial(convnext_nano, stem_widths=(80, 80))
convnext_tiny = partial(ConvNeXt, depths=_TINY, widths=_widths(96))
convnext_tiny_hnf = partial(_V1_CONV, depths=_TINY, widths=_widths(96), norm_first=True)
convnext_small = partial(ConvNeXt, depths=_SMALL, widths=_widths(96))
convnext_base = partial(ConvNeXt, depths=_SMALL, widths=_widths(128))
convnext_large = partial(ConvNeXt, depths=_SMALL, widths=_widths(192))
convnext_large_mlp = partial(convnext_large, head_hidden=1536)
convnext_xlarge = partial(ConvNeXt, depths=_SMALL, widths=_widths(256))
convnext_xxlarge = partial(ConvNeXt, depths=(3, 4, 30, 3), widths=_widths(384), norm_epsilon=1e-5)
convnextv2_atto = partial(_V2_CONV, depths=_SMALLEST, widths=_widths(40))
convnextv2_femto = partial(_V2_CONV, depths=_SMALLEST, widths=_widths(48))
convnextv2_pico = partial(_V2_CONV, depths=_SMALLEST, widths=_widths(64))
convnextv2_nano = partial(_V2_CONV, depths=_NANO, widths=_widths(80))
convnextv2_tiny = partial(_V2, depths=_TINY, widths=_widths(96))
convnextv2_small = partial(_V2, depths=_SMALL, widths=_widths(96))
convnextv2_base = partial(_V2, depths=_SMALL, widths=_widths(128))
convnextv2_large = partial(_V2, depths=_SMALL, widths=_widths(192))
convnextv2_huge = partial(_V2, depths=_SMALL, widths=_widths(352))
