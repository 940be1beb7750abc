"""Layers of transformers: patches, self-attention, and the perceptron between."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.activations import activation
from imgclf.models.layers.convolution import Conv
from imgclf.models.layers.initial import Initializer, truncated_normal
from imgclf.models.layers.linear import Dense
from imgclf.models.layers.norms import LayerNorm

_ZEROS = nn.initializers.zeros


class PatchEmbed(nn.Module):
    """Squares of `patch` x `patch` px as vectors: images (b, h, w, c) to (b, h', w', d).

    The convolution is called `proj`.
    """

    features: int
    patch: int = 16
    use_bias: bool = True
    kernel_init: Initializer = truncated_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Conv(
            self.features,
            self.patch,
            self.patch,
            padding=0,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            bias_init=_ZEROS,
            name="proj",
        )(x)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (b, t, d), as timm's: `qkv` and `proj`."""

    heads: int
    qkv_bias: bool = True
    qk_norm: bool = False
    proj_bias: bool = True
    drop_rate: float = 0.0
    kernel_init: Initializer = truncated_normal()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        b, t, d = x.shape
        qkv = Dense(3 * d, self.qkv_bias, self.kernel_init, _ZEROS, name="qkv")(x)
        query, key, value = jnp.moveaxis(qkv.reshape(b, t, 3, self.heads, d // self.heads), 2, 0)
        if self.qk_norm:
            query, key = LayerNorm(name="q_norm")(query), LayerNorm(name="k_norm")(key)
        y = jax.nn.dot_product_attention(query, key, value).reshape(b, t, d)
        y = Dense(d, self.proj_bias, self.kernel_init, _ZEROS, name="proj")(y)
        return nn.Dropout(self.drop_rate, deterministic=not train)(y)


class Mlp(nn.Module):
    """Two linear layers and an activation, over the last axis: `fc1` and `fc2`."""

    hidden: int
    features: int = 0
    """0: as many as come in."""
    act: str = "gelu"
    use_bias: bool = True
    drop_rate: float = 0.0
    kernel_init: Initializer = truncated_normal()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        drop = nn.Dropout(self.drop_rate, deterministic=not train)
        y = Dense(self.hidden, self.use_bias, self.kernel_init, _ZEROS, name="fc1")(x)
        y = drop(activation(self.act)(y))
        features = self.features or x.shape[-1]
        return drop(Dense(features, self.use_bias, self.kernel_init, _ZEROS, name="fc2")(y))
