"""Pooling to as many places as are asked for, whatever the size of the map."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from imgclf.models.layers.pooling import not_empty


def adaptive_average(x_bhwc: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """The means of `size` x `size` windows, or rows and columns of them, by PyTorch's rule.

    Window i of n goes from floor(i * side / n) up to ceil((i + 1) * side / n); they may overlap.
    """
    return _over_windows(jnp.mean, x_bhwc, size)


def adaptive_max(x_bhwc: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """The maxima of the windows of `adaptive_average`."""
    return _over_windows(jnp.max, x_bhwc, size)


def spatial_pyramid(x_bhwc: jax.Array, levels: Sequence[int] = (1, 2, 4)) -> jax.Array:
    """The maxima of n x n windows for each of the levels, one after another (arXiv:1406.4729).

    Of any size of map (b, h, w, c): (b, c * sum of n^2), the places of a level row by row.

    >>> spatial_pyramid(jnp.ones((2, 13, 9, 8))).shape
    (2, 168)
    """
    maps = [adaptive_max(x_bhwc, n).reshape(len(x_bhwc), -1) for n in levels]
    return jnp.concatenate(maps, -1)


def flattened(x_bhwc: jax.Array) -> jax.Array:
    """Each image as a vector (b, c * h * w), in PyTorch's order: channel, row, column."""
    return x_bhwc.transpose(0, 3, 1, 2).reshape(len(x_bhwc), -1)


def _over_windows(
    pool: Callable[..., jax.Array], x_bhwc: jax.Array, size: int | tuple[int, int]
) -> jax.Array:
    x = not_empty(x_bhwc)
    for axis, n in zip((1, 2), size if isinstance(size, tuple) else (size, size), strict=True):
        side = x.shape[axis]
        if side != n:
            windows = [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)]
            parts = (jax.lax.slice_in_dim(x, *window, axis=axis) for window in windows)
            x = jnp.stack([pool(part, axis) for part in parts], axis)
    return x
