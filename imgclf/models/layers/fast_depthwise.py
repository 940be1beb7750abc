"""Depthwise convolution (a group for each channel) on CPU: sums of shifted images.

XLA has no fast code for it there. A sum over the kernel's places of the image, shifted, times a
number for each channel is compiled to one loop over the output.
"""

import jax
import jax.numpy as jnp

from imgclf.models.layers.fast_convolution import Window
from imgclf.models.layers.fast_sums import shared_out

MOST = 121
"""Places of a kernel, at most: each is a term of the sum, and makes the program longer."""


def suits(window: Window, kernel: jax.Array) -> bool:
    """Whether it is such a convolution, and not too large."""
    height, width, inputs, outputs = kernel.shape
    return inputs == 1 and outputs == window.groups > 1 and height * width <= MOST


def forward(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution."""
    (up, down), (left, right) = window.padding
    padded = _padded(x_bhwc, (up, down, 0), (left, right, 0))
    return _sum(padded, kernel, window.stride)


def input_gradient(
    window: Window, shape: tuple[int, ...], kernel: jax.Array, gradient_bhwc: jax.Array
) -> jax.Array:
    """The gradient by images of that shape, from the one by the output."""
    stride, around = window.stride, []
    sizes = (shape[1:3], gradient_bhwc.shape[1:3], kernel.shape[:2], window.padding)
    for size, n, taps, (before, _) in zip(*sizes, strict=True):
        after = size + before - (n - 1) * stride - 1
        around.append((taps - 1 - before, after, stride - 1))
    return _sum(_padded(gradient_bhwc, *around), jnp.flip(kernel, (0, 1)), 1)


def weight_gradient(
    window: Window, x_bhwc: jax.Array, kernel: jax.Array, gradient_bhwc: jax.Array
) -> jax.Array:
    """The gradient by the kernel, from the one by the output.

    Row by row, as `fast_sums` does, with a sum for each place of the kernel, column and channel.
    """
    (up, down), (left, right) = window.padding
    padded = _padded(x_bhwc, (up, down, 0), (left, right, 0))
    height, width = kernel.shape[:2]
    stride = window.stride
    _, rows, columns, channels = gradient_bhwc.shape
    padded, gradient = shared_out(padded), shared_out(gradient_bhwc)
    places = [(i, j) for i in range(height) for j in range(width)]

    def add(row: jax.Array, sums: list[jax.Array]) -> list[jax.Array]:
        above = jax.lax.dynamic_slice_in_dim(padded, row * stride, height, axis=2)
        below = jax.lax.dynamic_index_in_dim(gradient, row, axis=2, keepdims=False)
        last = (columns - 1) * stride + 1
        return [
            total + _wide(above[:, :, i, j : j + last : stride] * _wide(below)).sum(1)
            for total, (i, j) in zip(sums, places, strict=True)
        ]

    zeros = jnp.zeros((len(gradient), columns, channels), _sum_type(kernel))
    sums = jax.lax.fori_loop(0, rows, add, [zeros] * len(places))
    return jnp.stack(sums).sum((1, 2)).reshape(kernel.shape).astype(kernel.dtype)


def _sum(padded: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    height, width, _, channels = kernel.shape
    b, rows, columns, _ = padded.shape
    rows, columns = rows - height + 1, columns - width + 1
    total: jax.Array | float = 0.0
    for i in range(height):
        for j in range(width):
            start, stop = (0, i, j, 0), (b, i + rows, j + columns, channels)
            shifted = jax.lax.slice(padded, start, stop, (1, stride, stride, 1))
            total = total + _wide(shifted) * _wide(kernel[i, j, 0])
    return jnp.asarray(total).astype(padded.dtype)


def _padded(x: jax.Array, rows: tuple[int, int, int], columns: tuple[int, int, int]) -> jax.Array:
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))
    return jax.lax.optimization_barrier(padded)  # or each term of a sum would ask what is outside


def _wide(x: jax.Array) -> jax.Array:
    return x.astype(_sum_type(x))


def _sum_type(x: jax.Array) -> jnp.dtype:
    return jnp.promote_types(x.dtype, jnp.float32)
