"""Averages over as many windows as are asked for, whatever the size of the image."""

import jax
import jax.numpy as jnp


def adaptive_average(x_bhwc: jax.Array, size: int) -> jax.Array:
    """The means of `size` x `size` windows, which may overlap, by PyTorch's rule.

    Window i of n goes from floor(i * side / n) up to ceil((i + 1) * side / n).
    """
    for axis in (1, 2):
        side = x_bhwc.shape[axis]
        if side != size:
            windows = [(i * side // size, -(-(i + 1) * side // size)) for i in range(size)]
            parts = [
                jax.lax.slice_in_dim(x_bhwc, *window, axis=axis).mean(axis) for window in windows
            ]
            x_bhwc = jnp.stack(parts, axis)
    return x_bhwc


def flattened(x_bhwc: jax.Array) -> jax.Array:
    """Each image as a vector (b, c * h * w), in PyTorch's order: channel, row, column."""
    return x_bhwc.transpose(0, 3, 1, 2).reshape(len(x_bhwc), -1)
