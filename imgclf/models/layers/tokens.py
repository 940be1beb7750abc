"""Layers of transformers: patches and their positions, attention, and the perceptron between."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.activations import activation
from imgclf.models.layers.convolution import Conv
from imgclf.models.layers.initial import Initializer, truncated_normal
from imgclf.models.layers.linear import Dense
from imgclf.models.layers.norms import LayerNorm
from imgclf.models.layers.pooling import not_empty

_ZEROS = nn.initializers.zeros


class PatchEmbed(nn.Module):
    """Squares of `patch` x `patch` px as vectors: images (b, h, w, c) to (b, h', w', d).

    The convolution is called `proj`.
    """

    features: int
    patch: int = 16
    use_bias: bool = True
    kernel_init: Initializer = truncated_normal()
    bias_init: Initializer | None = _ZEROS
    """None: uniform within 1 / sqrt(inputs), as PyTorch's convolution."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        patches = Conv(
            self.features,
            self.patch,
            self.patch,
            padding=0,
            use_bias=self.use_bias,
            kernel_init=self.kernel_init,
            bias_init=self.bias_init,
            name="proj",
        )
        return not_empty(patches(x))


def resized_positions(positions: jax.Array, prefix: int, grid: tuple[int, int]) -> jax.Array:
    """Position embeddings (1, prefix + s * s, d) as they are for another grid of patches.

    The first `prefix`, of tokens that have no place, stay; the square of the others is resized by
    cubic interpolation, anti-aliased, in float32, as timm does it.

    >>> resized_positions(jax.numpy.ones((1, 1 + 4 * 4, 8)), 1, (3, 5)).shape
    (1, 16, 8)
    """
    side, d = math.isqrt(positions.shape[1] - prefix), positions.shape[2]
    if grid == (side, side):
        return positions
    square = positions[:, prefix:].reshape(1, side, side, d)
    resized = jax.image.resize(square, (1, *grid, d), "cubic", antialias=True)
    return jnp.concatenate([positions[:, :prefix], resized.reshape(1, -1, d)], 1)


class Attention(nn.Module):
    """Multi-head self-attention over tokens (b, t, d), as timm's: `qkv` and `proj`.

    The softmax is worked out in float32, whatever the type of the tokens.
    """

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


class GatedMlp(nn.Module):
    """SwiGLU (arXiv:2002.05202): one half of `fc1`, by SiLU, times the other; then `fc2`."""

    hidden: int
    """Outputs of `fc1`, both halves together; of an odd number, one less."""
    kernel_init: Initializer = truncated_normal()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        half = self.hidden // 2

        def gate_begins_as_one(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            gate_key, key = jax.random.split(key)
            gate = 1e-6 * jax.random.normal(gate_key, (shape[0], half), dtype)
            return jnp.concatenate([self.kernel_init(key, (shape[0], half), dtype), gate], 1)

        def bias(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            return (jnp.arange(2 * half) >= half).astype(dtype)

        y = Dense(2 * half, True, gate_begins_as_one, bias, name="fc1")(x)
        y = jax.nn.silu(y[..., :half]) * y[..., half:]
        return Dense(x.shape[-1], True, self.kernel_init, _ZEROS, name="fc2")(y)


class LatentPool(nn.Module):
    """Tokens (b, t, d) to one vector (b, d) each: what a trained query, `latent`, attends to.

    The "MAP" head of arXiv:2106.04560: attention, and a perceptron with a shortcut.
    """

    heads: int
    hidden: int
    """Width of the perceptron."""
    act: str = "gelu"
    kernel_init: Initializer = truncated_normal()

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        b, t, d = x.shape
        init = nn.initializers.truncated_normal(d**-0.5)
        latent = self.param("latent", init, (1, 1, d), jnp.float32).astype(x.dtype)
        query = Dense(d, True, self.kernel_init, _ZEROS, name="q")(latent)
        key_value = Dense(2 * d, True, self.kernel_init, _ZEROS, name="kv")(x)
        key, value = jnp.moveaxis(key_value.reshape(b, t, 2, self.heads, d // self.heads), 2, 0)
        query = jnp.broadcast_to(query.reshape(1, 1, self.heads, -1), (b, 1, *key.shape[2:]))
        y = jax.nn.dot_product_attention(query, key, value).reshape(b, d)
        y = Dense(d, True, self.kernel_init, _ZEROS, name="proj")(y)
        mlp = Mlp(self.hidden, act=self.act, kernel_init=self.kernel_init, name="mlp")
        return y + mlp(LayerNorm(name="norm")(y), train)
