"""Attention over channels, and over places by channels: squeeze-excite and its relatives."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.activations import activation
from imgclf.models.layers.convnormact import ConvNormAct
from imgclf.models.layers.convolution import Conv
from imgclf.models.layers.initial import Initializer, he_fan_out, linear_uniform
from imgclf.models.layers.norms import BatchNorm, Norm


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (arXiv:1709.01507): channels are weighed by what the image has.

    Two 1 x 1 convolutions with biases, called `names`, to `reduced` channels and back.
    """

    reduced: int
    names: tuple[str, str] = ("fc1", "fc2")
    act: str = "relu"
    gate: str = "sigmoid"
    kernel_init: Initializer = he_fan_out
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def conv(features: int, name: str) -> Conv:
            return Conv(
                features,
                1,
                use_bias=True,
                kernel_init=self.kernel_init,
                bias_init=self.bias_init,
                name=name,
            )

        weights = x.mean((1, 2), keepdims=True)
        weights = activation(self.act)(conv(self.reduced, self.names[0])(weights))
        return x * activation(self.gate)(conv(x.shape[-1], self.names[1])(weights))


class EfficientChannelAttention(nn.Module):
    """ECA (arXiv:1910.03151): a convolution along the channels, of a width that follows from them.

    The weight is called `conv`.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = int(abs(math.log2(x.shape[-1]) + 1) / 2)
        width = max(width if width % 2 else width + 1, 3)
        weights = _AlongChannels(width, name="conv")(x.mean((1, 2)))
        return x * jax.nn.sigmoid(weights)[:, None, None, :]


class _AlongChannels(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x_bc: jax.Array) -> jax.Array:
        kernel = self.param("kernel", linear_uniform, (self.width, 1, 1), jnp.float32)
        half = self.width // 2
        return jax.lax.conv_general_dilated(
            x_bc[..., None],
            kernel.astype(x_bc.dtype),
            window_strides=(1,),
            padding=((half, half),),
            dimension_numbers=("NWC", "WIO", "NWC"),
        )[..., 0]


class CBAM(nn.Module):
    """Convolutional block attention (arXiv:1807.06521): over channels, then over places.

    Called as timm's: `channel.fc1`, `channel.fc2` and `spatial.conv`.
    """

    reduced: int
    kernel: int = 7
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = _ChannelGate(self.reduced, name="channel")(x)
        return _SpatialGate(self.kernel, self.norm, name="spatial")(x, train)


class _ChannelGate(nn.Module):
    reduced: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = Conv(self.reduced, 1, name="fc1"), Conv(x.shape[-1], 1, name="fc2")
        mean, greatest = x.mean((1, 2), keepdims=True), x.max((1, 2), keepdims=True)
        weights = second(jax.nn.relu(first(mean))) + second(jax.nn.relu(first(greatest)))
        return x * jax.nn.sigmoid(weights)


class _SpatialGate(nn.Module):
    kernel: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        seen = jnp.concatenate([x.mean(-1, keepdims=True), x.max(-1, keepdims=True)], -1)
        gate = ConvNormAct(1, self.kernel, act="identity", norm=self.norm, name="conv")
        return x * jax.nn.sigmoid(gate(seen, train))
