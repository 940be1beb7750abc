"""Batch normalisation in training and its gradient, with few passes over the images, on CPU."""

from functools import partial

import jax
import jax.numpy as jnp

from imgclf.models.layers.fast_sums import channel_sums

Three = tuple[jax.Array, jax.Array, jax.Array]
Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalised(epsilon: float, x_bhwc: jax.Array, scale: jax.Array, bias: jax.Array) -> Three:
    """The images normalised over all axes but the last, their mean and their variance."""
    return _forward(epsilon, x_bhwc, scale, bias)[0]


def _forward(epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[Three, Kept]:
    n = x.size // x.shape[-1]
    (total,) = channel_sums(lambda x: (x,), x)
    mean = total / n
    (squares,) = channel_sums(lambda x: (jnp.square(x - mean),), x)
    var = squares / n
    y = (x - mean) * (jax.lax.rsqrt(var + epsilon) * scale) + bias
    return (y, mean, var), (x, mean, var, scale)


def _backward(epsilon: float, kept: Kept, gradients: Three) -> Three:
    x, mean, var, scale = kept
    of_y, of_mean, of_var = gradients
    n = x.size // x.shape[-1]
    deviation = jax.lax.rsqrt(var + epsilon)
    by_bias, along = channel_sums(lambda x, of_y: (of_y, of_y * (x - mean)), x, of_y)
    factor = scale * deviation
    # A change of x changes y itself, and mean and variance, and y by these.
    slope = (2 * of_var - factor * jnp.square(deviation) * along) / n
    by_x = factor * of_y + slope * (x - mean) + (of_mean - factor * by_bias) / n
    return by_x, along * deviation, by_bias


normalised.defvjp(_forward, _backward)
