"""Pooling: over windows, and over all places of an image."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers import fast_pooling
from imgclf.models.layers.convolution import Padding, sides
from imgclf.models.layers.fast_pooling import Sides
from imgclf.models.layers.fast_sums import wide
from imgclf.models.layers.plain import are_plain, by_platform


def max_pool(
    x: jax.Array, kernel: int, stride: int, padding: Padding = 0, ceil: bool = False
) -> jax.Array:
    """The greatest of each `kernel` x `kernel` window; padding never wins.

    With `ceil`, a last window that begins within the padded image counts, too (PyTorch's
    `ceil_mode`).
    """
    pad = _ceiled(x, kernel, stride, sides(padding), padding) if ceil else sides(padding)
    if isinstance(pad, str):
        pad = tuple(jax.lax.padtype_to_pads(x.shape[1:3], (kernel,) * 2, (stride,) * 2, pad))
    pool = _plain_max_pool if are_plain() else _max_pool
    return pool(kernel, stride, pad, x)


def _plain_max_pool(kernel: int, stride: int, pad: Sides, x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (kernel, kernel), strides=(stride, stride), padding=pad)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _max_pool(kernel: int, stride: int, pad: Sides, x: jax.Array) -> jax.Array:
    fast = partial(fast_pooling.forward, kernel, stride, pad)
    plain = partial(_plain_max_pool, kernel, stride, pad)
    return by_platform(x, cpu=fast, default=plain)


def _kept(kernel: int, stride: int, pad: Sides, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return _max_pool(kernel, stride, pad, x), x


def _gradient(
    kernel: int, stride: int, pad: Sides, x: jax.Array, gradient: jax.Array
) -> tuple[jax.Array]:
    def of_plain(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(partial(_plain_max_pool, kernel, stride, pad), x)[1](gradient)[0]

    fast = partial(fast_pooling.input_gradient, kernel, stride, pad)
    return (by_platform(x, gradient, cpu=fast, gpu=fast, default=of_plain),)


_max_pool.defvjp(_kept, _gradient)


def average_pool(
    x: jax.Array,
    kernel: int,
    stride: int,
    padding: Padding = 0,
    ceil: bool = False,
    count_padding: bool = True,
) -> jax.Array:
    """The mean of each `kernel` x `kernel` window, summed in float32.

    Padding counts as zeros unless `count_padding` is False; what `ceil` adds never counts.
    """
    given = sides(padding)
    pad = _ceiled(x, kernel, stride, given, padding) if ceil else given
    mean = partial(nn.avg_pool, window_shape=(kernel, kernel), strides=(stride, stride))
    averages, counted = mean(wide(x), padding=pad), jnp.ones((1, *x.shape[1:3], 1), jnp.float32)
    if isinstance(given, str) or not count_padding:
        return (averages / mean(counted, padding=pad)).astype(x.dtype)
    if pad != given:
        counted = jnp.pad(counted, ((0, 0), *given, (0, 0)), constant_values=1)
        pad = tuple((0, new[1] - old[1]) for new, old in zip(pad, given, strict=True))
        return (averages / mean(counted, padding=pad)).astype(x.dtype)
    return averages.astype(x.dtype)


def global_average(x_bhwc: jax.Array) -> jax.Array:
    """The mean over all places, (b, c), in float32: a head fed by it gives float32 logits.

    Raises a `UserError` where there is no place, as does `pooled`.
    """
    return not_empty(x_bhwc).mean((1, 2), dtype=jnp.float32)


def pooled(x_bhwc: jax.Array, dense: bool) -> jax.Array:
    """What a classifier is fed: the mean over all places or, if it is `dense`, each of them."""
    return not_empty(x_bhwc).astype(jnp.float32) if dense else global_average(x_bhwc)


def not_empty(x_bhwc: jax.Array) -> jax.Array:
    """`x_bhwc`; a `UserError` where images were so small that nothing is left of them."""
    if 0 in x_bhwc.shape[1:3]:
        raise UserError(
            "The images are too small for the network: of their height or width nothing is left "
            f"after its strides (batch, height, width, channels are {x_bhwc.shape})"
        )
    return x_bhwc


def _ceiled(x: jax.Array, kernel: int, stride: int, pad: object, padding: Padding) -> tuple:
    assert isinstance(pad, tuple), padding
    found = []
    for size, (before, after) in zip(x.shape[1:3], pad, strict=True):
        steps = -(-(size + before + after - kernel) // stride)
        if steps * stride >= size + before:  # it would begin in the padding behind the image
            steps -= 1
        found.append((before, max(after, steps * stride + kernel - size - before)))
    return tuple(found)
