"""Sums over all places of all images, fast on CPU: row by row.

XLA sums up each channel by itself there, in steps as long as a pixel. Here a row is added to a row,
number by number, and what has been summed up stays in the processor's cache. There are several such
sums, each of a share of the images, so that devices that share them add up once and not for each
row.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from imgclf.models.layers.plain import on_cpu


def sum_type(x: jax.Array) -> jnp.dtype:
    """Float32, or the type of `x` where it has more digits."""
    return jnp.promote_types(x.dtype, jnp.float32)


def wide(x: jax.Array) -> jax.Array:
    """`x` in that type."""
    return x.astype(sum_type(x))


def shared_out(x: jax.Array) -> jax.Array:
    """(b, ...) as (shares, images of a share, ...): up to eight of eight or more, or one for each
    device."""
    shares = math.gcd(len(x), max(min(8, len(x) // 8), jax.device_count()))
    return x.reshape(shares, -1, *x.shape[1:])


def channel_sums(
    function: Callable[..., Sequence[jax.Array]], *arrays: jax.Array
) -> list[jax.Array]:
    """Sums (c,), in their type, of each of the arrays (..., c) that `function` makes of the rows of
    images (b, h, w, c), of tokens (b, t, c), or of vectors (b, c)."""
    if arrays[0].ndim < 3 or not on_cpu():
        return [y.sum(tuple(range(y.ndim - 1))) for y in function(*arrays)]
    parts = [shared_out(x if x.ndim > 3 else x[:, :, None]) for x in arrays]
    rows = parts[0].shape[2]

    def row(i: int | jax.Array) -> Sequence[jax.Array]:
        each = (jax.lax.dynamic_index_in_dim(x, i, axis=2, keepdims=False) for x in parts)
        # A long sum of short numbers would stand still.
        return [y.sum(1) for y in function(*map(wide, each))]

    def add(i: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        return [total + y for total, y in zip(sums, row(i), strict=True)]

    zeros = [jnp.zeros(y.shape, y.dtype) for y in jax.eval_shape(lambda: row(0))]
    totals = jax.lax.fori_loop(0, rows, add, zeros)
    return [total.sum(tuple(range(total.ndim - 1))).astype(arrays[0].dtype) for total in totals]


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    """Sum (c, d) over all places of the products of the channels of (..., c) and (..., d)."""
    if x.shape[-1] > y.shape[-1]:
        # Fast only with the fewer channels first; but for the barrier XLA would change them back.
        return jax.lax.optimization_barrier(product(y, x)).T
    places = tuple(range(x.ndim - 1))
    return jax.lax.dot_general(x, y, ((places, places), ((), ())))
