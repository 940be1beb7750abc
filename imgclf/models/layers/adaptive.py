"""Averages over as many windows as are asked for, whatever the size of the image."""

import jax
import jax.numpy as jnp

from imgclf.models.layers.pooling import not_empty


def adaptive_average(x_bhwc: jax.Array, size: int | tuple[int, int]) -> jax.Array:
    """The means of `size` x `size` windows, or rows and columns of them, by PyTorch's rule.

    Window i of n goes from floor(i * side / n) up to ceil((i + 1) * side / n); they may overlap.
    """
    x_bhwc = not_empty(x_bhwc)
    for axis, n in zip((1, 2), (size, size) if isinstance(size, int) else size, strict=True):
        side = x_bhwc.shape[axis]
        if side != n:
            windows = [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)]
            parts = [
                jax.lax.slice_in_dim(x_bhwc, *window, axis=axis).mean(axis) for window in windows
            ]
            x_bhwc = jnp.stack(parts, axis)
    return x_bhwc


def flattened(x_bhwc: jax.Array) -> jax.Array:
    """Each image as a vector (b, c * h * w), in PyTorch's order: channel, row, column."""
    return x_bhwc.transpose(0, 3, 1, 2).reshape(len(x_bhwc), -1)
