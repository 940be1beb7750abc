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


def shared_out(x: jax.Array) -> jax.Array:
    """(b, ...) as (shares, images of a share, ...)."""
    shares = max(1, math.gcd(len(x), 16) // 2)
    return x.reshape(shares, -1, *x.shape[1:])


def channel_sums(
    function: Callable[..., Sequence[jax.Array]], *arrays_bhwc: jax.Array
) -> list[jax.Array]:
    """Sums (c,) of each of the arrays (..., c) that `function` makes of the arrays' rows."""
    parts = [shared_out(x) for x in arrays_bhwc]
    rows = parts[0].shape[2]

    def row(i: int | jax.Array) -> Sequence[jax.Array]:
        each = (jax.lax.dynamic_index_in_dim(x, i, axis=2, keepdims=False) for x in parts)
        return [y.sum(1) for y in function(*each)]

    def add(i: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        return [total + y for total, y in zip(sums, row(i), strict=True)]

    zeros = [jnp.zeros(y.shape, y.dtype) for y in jax.eval_shape(lambda: row(0))]
    return [total.sum((0, 1)) for total in jax.lax.fori_loop(0, rows, add, zeros)]
