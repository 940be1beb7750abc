"""Pooling by attention."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.initial import truncated_normal
from imgclf.models.layers.linear import Dense


class AttentionPool(nn.Module):
    """The mean over all places, weighted by how well each fits a trained query, `latent`.

    Maps (b, h, w, c) or tokens (b, t, c) to (b, c). Of each head's channels the keys and values
    are linear maps (`kv`) of the places, and the answer is one (`proj`) of the heads' means.
    """

    heads: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, c = len(x), x.shape[-1]
        latent = self.param("latent", truncated_normal(c**-0.5), (1, 1, c), jnp.float32)
        query = jnp.broadcast_to(latent.astype(x.dtype), (b, 1, c))
        kv = Dense(2 * c, name="kv")(x.reshape(b, -1, c))
        key, value = jnp.split(kv, 2, -1)
        query, key, value = (
            each.reshape(b, -1, self.heads, c // self.heads) for each in (query, key, value)
        )
        y = jax.nn.dot_product_attention(query, key, value).reshape(b, c)
        return Dense(c, name="proj")(y)
