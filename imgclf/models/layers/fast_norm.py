"""Normalisation in training and its gradient, with few passes over the images."""

from functools import partial

import jax
import jax.numpy as jnp

from imgclf.models.layers.fast_sums import channel_sums
from imgclf.models.layers.plain import on_cpu

Three = tuple[jax.Array, jax.Array, jax.Array]
Kept = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def normalised(
    epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array
) -> Three:
    """Images (..., c) normalised over all axes but the last, their mean and their variance.

    All in float32. `near` is about where the mean will be, and only rounding depends on it: on
    accelerators, where a pass takes as long as the images take from memory, both are summed up in
    one, of the differences from `near`. Where the mean is d from there, the variance is wrong by
    some 1e-7 d^2, and never less than that, so that rounding is not blown up to an image.
    """
    return _forward(epsilon, x, scale, bias, near)[0]


def _forward(
    epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array, near: jax.Array
) -> tuple[Three, Kept]:
    n, x_float = x.size // x.shape[-1], x.astype(jnp.float32)
    if on_cpu():
        (total,) = channel_sums(lambda x: (x,), x_float)
        mean = total / n
        (squares,) = channel_sums(lambda x: (jnp.square(x - mean),), x_float)
        var = squares / n
    else:
        total, squares = channel_sums(lambda x: (x - near, jnp.square(x - near)), x_float)
        mean, away = near + total / n, jnp.square(total / n)
        var = jnp.maximum(squares / n - away, jnp.finfo(jnp.float32).eps * away)
    y = (x_float - mean) * (jax.lax.rsqrt(var + epsilon) * scale) + bias
    return (y, mean, var), (x, mean, var, scale)


def _backward(epsilon: float, kept: Kept, gradients: Three) -> tuple[jax.Array, ...]:
    x, mean, var, scale = kept
    of_y, of_mean, of_var = gradients
    n, x_float = x.size // x.shape[-1], x.astype(jnp.float32)
    deviation = jax.lax.rsqrt(var + epsilon)
    by_bias, along = channel_sums(lambda x, of_y: (of_y, of_y * (x - mean)), x_float, of_y)
    factor = scale * deviation
    # A change of x changes y itself, and mean and variance, and y by these.
    slope = (2 * of_var - factor * jnp.square(deviation) * along) / n
    by_x = factor * of_y + slope * (x_float - mean) + (of_mean - factor * by_bias) / n
    return by_x.astype(x.dtype), along * deviation, by_bias, jnp.zeros_like(mean)


normalised.defvjp(_forward, _backward)


def normalise_each(epsilon: float, x: jax.Array) -> jax.Array:
    """Each vector (c,) of images or tokens (..., c), normalised by itself, in float32."""
    x = x.astype(jnp.float32)
    mean, scale = _of_each(epsilon, x)
    return (x - mean) * scale


each_normalised = jax.custom_vjp(normalise_each, nondiff_argnums=(0,))
"""The same, with a gradient that takes mean and deviation as known: XLA would otherwise make one
operation of all sums over a vector, which takes three times as long on a GPU."""


def _of_each(epsilon: float, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and 1 / deviation."""
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    return mean, jax.lax.rsqrt(var + epsilon)


def _backward_of_each(epsilon: float, x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    x_float = x.astype(jnp.float32)
    mean, scale = jax.lax.optimization_barrier(_of_each(epsilon, x_float))
    y = (x_float - mean) * scale
    along = (gradient * y).mean(-1, keepdims=True)
    by_x = scale * (gradient - gradient.mean(-1, keepdims=True) - y * along)
    return (by_x.astype(x.dtype),)


each_normalised.defvjp(lambda epsilon, x: (normalise_each(epsilon, x), x), _backward_of_each)
