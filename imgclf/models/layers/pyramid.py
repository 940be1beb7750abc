"""Pooling to a given number of places, whatever the size of the map."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def adaptive_max(x_bhwc: jax.Array, height: int, width: int) -> jax.Array:
    """The maxima of `height` x `width` cells that cover the map; they may overlap, as PyTorch's."""
    rows = [x_bhwc[:, a:b].max(1) for a, b in _cells(x_bhwc.shape[1], height)]
    x = jnp.stack(rows, 1)
    return jnp.stack([x[:, :, a:b].max(2) for a, b in _cells(x_bhwc.shape[2], width)], 2)


def spatial_pyramid(x_bhwc: jax.Array, levels: Sequence[int] = (1, 2, 4)) -> jax.Array:
    """The maxima of n x n cells for each of the levels, one after another (arXiv:1406.4729).

    Of any size of map (b, h, w, c): (b, c * sum of n^2), the places of a level row by row.

    >>> spatial_pyramid(jnp.ones((2, 13, 9, 8))).shape
    (2, 168)
    """
    maps = [adaptive_max(x_bhwc, n, n).reshape(len(x_bhwc), -1) for n in levels]
    return jnp.concatenate(maps, -1)


def _cells(size: int, cells: int) -> list[tuple[int, int]]:
    return [(i * size // cells, -(-(i + 1) * size // cells)) for i in range(cells)]
