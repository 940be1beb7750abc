"""What linear layers and norms do with channels, with gradients that are fast on CPU.

XLA would there work out a gradient anew for each of its uses, and sum it up channel by channel, in
steps as long as a pixel.
"""

import jax

from imgclf.models.layers.fast_sums import channel_sums, product
from imgclf.models.layers.plain import on_cpu, once

Two = tuple[jax.Array, jax.Array]


def plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Images or tokens (..., c) plus a number for each channel (c,), in their type."""
    bias = bias.astype(x.dtype)
    return _plus(x, bias) if on_cpu() else x + bias


def times(x: jax.Array, scale: jax.Array) -> jax.Array:
    """Images or tokens (..., c) times a number for each channel (c,), in their type."""
    scale = scale.astype(x.dtype)
    return _times(x, scale) if on_cpu() else x * scale


def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Images or tokens (..., c) times a matrix (c, d), in their type."""
    kernel = kernel.astype(x.dtype)
    return _matmul(x, kernel) if on_cpu() else x @ kernel


@jax.custom_vjp
def _plus(x: jax.Array, bias: jax.Array) -> jax.Array:
    return x + bias


def _gradients_of_plus(_: None, gradient: jax.Array) -> Two:
    gradient = once(gradient)
    (of_bias,) = channel_sums(lambda gradient: (gradient,), gradient)
    return gradient, of_bias


_plus.defvjp(lambda x, bias: (x + bias, None), _gradients_of_plus)


@jax.custom_vjp
def _times(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * scale


def _gradients_of_times(kept: Two, gradient: jax.Array) -> Two:
    x, scale = kept
    gradient = once(gradient)
    (of_scale,) = channel_sums(lambda x, gradient: (x * gradient,), x, gradient)
    return gradient * scale, of_scale


_times.defvjp(lambda x, scale: (x * scale, (x, scale)), _gradients_of_times)


@jax.custom_vjp
def _matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


def _kept_of_matmul(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, Two]:
    x = once(x)
    return x @ kernel, (x, kernel)


def _gradients_of_matmul(kept: Two, gradient: jax.Array) -> Two:
    x, kernel = kept
    gradient = once(gradient)
    return gradient @ kernel.T, product(x, gradient)


_matmul.defvjp(_kept_of_matmul, _gradients_of_matmul)
