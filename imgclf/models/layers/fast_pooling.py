"""Max pooling, fast on CPU, where XLA goes through all windows one by one.

Its gradient on GPUs, too, where XLA adds up in memory, in whatever order the windows come.
"""

import jax
import jax.numpy as jnp

from imgclf.models.layers.plain import once

Sides = tuple[tuple[int, int], tuple[int, int]]


def forward(kernel: int, stride: int, padding: Sides, x_bhwc: jax.Array) -> jax.Array:
    """The greatest of each window: of its rows, and then of what they have come to."""
    for axis, around in enumerate(padding, start=1):
        window, steps, pad = [1] * 4, [1] * 4, [(0, 0)] * 4
        window[axis], steps[axis], pad[axis] = kernel, stride, around
        lowest = jnp.array(-jnp.inf, x_bhwc.dtype)
        x_bhwc = jax.lax.reduce_window(x_bhwc, lowest, jax.lax.max, window, steps, pad)
        x_bhwc = once(x_bhwc)
    return x_bhwc


def input_gradient(
    kernel: int,
    stride: int,
    padding: Sides,
    x_bhwc: jax.Array,
    gradient_bhwc: jax.Array,
) -> jax.Array:
    """The gradient by the images, from those by the maxima of their windows.

    The first of equal pixels gets it all, as XLA's own and PyTorch's have it.
    """
    b, h, w, channels = gradient_bhwc.shape
    # Windows reach over so many blocks of stride x stride pixels.
    reach = -(-kernel // stride)
    around = ((0, 0), (reach - 1, reach - 1), (reach - 1, reach - 1), (0, 0))
    places = _places(kernel, stride, padding, x_bhwc, gradient_bhwc.shape)
    places = jnp.pad(places, around, constant_values=-1)
    gradient = jnp.pad(gradient_bhwc, around)
    places, gradient = once(places), once(gradient)
    rows, columns = h + reach - 1, w + reach - 1

    def of_pixel(row: int, column: int) -> jax.Array:
        total = jnp.zeros((b, rows, columns, channels), gradient.dtype)
        for i in range(row, kernel, stride):
            for j in range(column, kernel, stride):
                up, left = reach - 1 - i // stride, reach - 1 - j // stride
                window = (slice(None), slice(up, up + rows), slice(left, left + columns))
                total += jnp.where(places[window] == i * kernel + j, gradient[window], 0)
        return total

    blocks = jnp.stack(
        [jnp.stack([of_pixel(i, j) for j in range(stride)], axis=3) for i in range(stride)], axis=2
    )
    padded = blocks.reshape(b, rows * stride, columns * stride, channels)
    (up, _), (left, _) = padding
    below = max(0, up + x_bhwc.shape[1] - padded.shape[1])
    right = max(0, left + x_bhwc.shape[2] - padded.shape[2])
    padded = jnp.pad(padded, ((0, 0), (0, below), (0, right), (0, 0)))
    return padded[:, up : up + x_bhwc.shape[1], left : left + x_bhwc.shape[2]]


def _places(
    kernel: int, stride: int, padding: Sides, x: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Row * `kernel` + column of the first maximum in each of the windows (b, h, w, c).

    Found by comparing pixels with each other. The maxima of the forward pass are no help: `x` may
    be worked out anew here, rounded otherwise, and equal none of them.
    """
    b, h, w, channels = shape
    padded = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=-jnp.inf)
    padded = once(padded)
    most = jnp.full(shape, -jnp.inf, x.dtype)
    found = jnp.full(shape, -1, jnp.int32 if kernel > 11 else jnp.int8)
    for place in range(kernel * kernel):
        i, j = divmod(place, kernel)
        last = (b, i + (h - 1) * stride + 1, j + (w - 1) * stride + 1, channels)
        pixels = jax.lax.slice(padded, (0, i, j, 0), last, (1, stride, stride, 1))
        greater = pixels > most
        found = jnp.where(greater, jnp.asarray(place, found.dtype), found)
        most = jnp.where(greater, pixels, most)
    return found
