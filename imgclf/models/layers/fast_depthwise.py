"""Depthwise convolution (a group for each channel) on CPU: sums of shifted images.

XLA has no fast code for it there. A sum over the kernel's places of the image, shifted, times a
number for each channel is compiled to one loop over the output.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from imgclf.models.layers.fast_convolution import Window
from imgclf.models.layers.fast_sums import shared_out, sum_type, wide

MOST = 121
"""Places of a kernel, at most: each is a term of the sum, and makes the program longer."""


def suits(window: Window, kernel: jax.Array) -> bool:
    """Whether it is such a convolution, and not too large."""
    height, width, inputs, outputs = kernel.shape
    return inputs == 1 and outputs == window.groups > 1 and height * width <= MOST


def forward(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution."""
    (up, down), (left, right) = window.padding
    padded = _padded(x_bhwc, (up, down), (left, right))
    rows, columns = (
        (size - taps) // window.stride + 1
        for size, taps in zip(padded.shape[1:3], kernel.shape[:2], strict=True)
    )
    places = list(np.ndindex(*kernel.shape[:2]))
    return _sum(padded, kernel, places, places, (rows, columns), window.stride)


def input_gradient(
    window: Window, shape: tuple[int, ...], kernel: jax.Array, gradient_bhwc: jax.Array
) -> jax.Array:
    """The gradient by images of that shape, from the one by the output.

    Every stride-th pixel of the image has met the same places of the kernel: of each such phase it
    is a sum by itself.
    """
    stride, axes, around, counts = window.stride, [], [], []
    sizes = (shape[1:3], gradient_bhwc.shape[1:3], kernel.shape[:2], window.padding)
    for size, n, taps, (before, _) in zip(*sizes, strict=True):
        met = [  # by a phase's first pixel: where in the gradient, by which place of the kernel
            [
                ((first + before - place) // stride, place)
                for place in range(taps)
                if (first + before - place) % stride == 0
            ]
            for first in range(stride)
        ]
        counts.append(-(-size // stride))
        low = -min(min(each)[0] for each in met if each)
        high = max(max(each)[0] for each in met if each) + counts[-1] - n
        around.append((low, high))
        axes.append([[(low + at, place) for at, place in each] for each in met])
    padded = _padded(gradient_bhwc, *around)
    phases = []
    for rows, columns in itertools.product(*axes):
        pairs = list(itertools.product(rows, columns))
        at = [(row, column) for (row, _), (column, _) in pairs]
        places = [(i, j) for (_, i), (_, j) in pairs]
        phases.append(_sum(padded, kernel, at, places, (counts[0], counts[1]), 1))
    lines = [jnp.stack(phases[i : i + stride], 3) for i in range(0, stride**2, stride)]
    whole = (shape[0], counts[0] * stride, counts[1] * stride, shape[3])
    found = jnp.stack(lines, 2).reshape(whole)[:, : shape[1], : shape[2]]
    return jax.lax.optimization_barrier(found)  # or each who asks for it would add up anew


def weight_gradient(
    window: Window, x_bhwc: jax.Array, kernel: jax.Array, gradient_bhwc: jax.Array
) -> jax.Array:
    """The gradient by the kernel, from the one by the output.

    Row by row, as `fast_sums` does, with a sum for each place of the kernel, column and channel.
    """
    (up, down), (left, right) = window.padding
    padded = _padded(x_bhwc, (up, down), (left, right))
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
            total + wide(above[:, :, i, j : j + last : stride] * wide(below)).sum(1)
            for total, (i, j) in zip(sums, places, strict=True)
        ]

    zeros = jnp.zeros((len(gradient), columns, channels), sum_type(kernel))
    sums = jax.lax.fori_loop(0, rows, add, [zeros] * len(places))
    return jnp.stack(sums).sum((1, 2)).reshape(kernel.shape).astype(kernel.dtype)


def _sum(
    padded: jax.Array,
    kernel: jax.Array,
    at: Sequence[tuple[int, int]],
    places: Sequence[tuple[int, int]],
    size: tuple[int, int],
    stride: int,
) -> jax.Array:
    """The sum of parts of that size, whose corners are `at`, each times a place of the kernel."""
    b, _, _, channels = padded.shape
    rows, columns = ((each - 1) * stride + 1 for each in size)
    total = jnp.zeros((b, *size, channels), sum_type(padded)) if not at else None
    for (row, column), (i, j) in zip(at, places, strict=True):
        start, stop = (0, row, column, 0), (b, row + rows, column + columns, channels)
        part = jax.lax.slice(padded, start, stop, (1, stride, stride, 1))
        term = wide(part) * wide(kernel[i, j, 0])
        total = term if total is None else total + term
    assert total is not None
    return total.astype(padded.dtype)


def _padded(x: jax.Array, rows: tuple[int, int], columns: tuple[int, int]) -> jax.Array:
    around = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
    padded = jax.lax.pad(x, jnp.zeros((), x.dtype), around)
    return jax.lax.optimization_barrier(padded)  # or each term of a sum would ask what is outside
