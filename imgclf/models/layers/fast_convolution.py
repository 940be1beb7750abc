"""Convolutions in the one form that XLA is fast at on CPU.

There XLA hands a convolution to a fast library where images are (image, row, column, channel) and
the kernel is (row, column, input, output), not flipped. It brings others into this form, but not
inside loops (`scan`, `fori_loop`), where both gradients as JAX writes them are computed naively; so
they are written in that form here. A stride in the input's gradient would be multiplications by
zeros, and many small groups are slow, too. `benchmarks/convolution.py` measures all that.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

MERGED = 32
"""Inputs, at most, of groups that are merged: fewer at once leave the processor idle."""

Sides = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image."""

    stride: int
    padding: Sides
    """px before and after, of rows and of columns."""
    groups: int
    dilation: int = 1


def plain(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's own convolution with a kernel (height, width, inputs / groups, outputs)."""
    return jax.lax.conv_general_dilated(
        x_bhwc,
        kernel,
        window_strides=(window.stride,) * 2,
        padding=window.padding,
        rhs_dilation=(window.dilation,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=window.groups,
    )


def forward(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution, with small groups merged."""
    return plain(merged(window, kernel), x_bhwc, with_zeros(window, kernel))


def input_gradient(
    window: Window, shape: tuple[int, ...], kernel: jax.Array, gradient_bhwc: jax.Array
) -> jax.Array:
    """The gradient by images of that shape, from the one by the output."""
    wide, kernel = merged(window, kernel), with_zeros(window, kernel)
    stride, groups = wide.stride, wide.groups
    if kernel.shape[:2] == (1, 1):
        y = plain(Window(1, ((0, 0), (0, 0)), groups), gradient_bhwc, _turned(kernel, groups, 1))
        around = [
            (-before, size + before - (n - 1) * stride - 1, stride - 1)
            for size, n, _, (before, _) in _axes(wide, shape, kernel, gradient_bhwc)
        ]
        return jax.lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), *around, (0, 0, 0)))
    # One pixel of the gradient is about stride x stride pixels of the image, which come out as so
    # many channels of a convolution without a stride.
    turned = _turned(kernel, groups, stride)
    padding, seen, cut = [], [], []
    for size, n, taps, (before, _) in _axes(wide, shape, turned, gradient_bhwc):
        first, last = before // stride, (before + size - 1) // stride
        # XLA is wrong on CPU where it is told to leave out the first places and add some behind.
        seen.append(slice(max(0, first - taps + 1), None))
        padding.append((max(0, taps - 1 - first), last - n + 1))
        cut.append(slice(before - first * stride, before - first * stride + size))
    window = Window(1, (padding[0], padding[1]), groups)
    blocks = plain(window, gradient_bhwc[:, seen[0], seen[1]], turned)
    b, h, w, _ = blocks.shape
    y = blocks.reshape(b, h, w, groups, stride, stride, -1).transpose(0, 1, 4, 2, 5, 3, 6)
    return y.reshape(b, h * stride, w * stride, shape[3])[:, cut[0], cut[1]]


def weight_gradient(
    window: Window, x_bhwc: jax.Array, kernel: jax.Array, gradient_bhwc: jax.Array
) -> jax.Array:
    """The gradient by the kernel, from the one by the output."""
    wide = merged(window, kernel)
    shape = jax.eval_shape(partial(with_zeros, window), kernel).shape
    if shape[:2] == (1, 1) and wide.groups == 1 and wide.padding == ((0, 0), (0, 0)):
        x_bhwc = x_bhwc[:, :: wide.stride, :: wide.stride]
        places = (0, 1, 2)
        product = jax.lax.dot_general(x_bhwc, gradient_bhwc, ((places, places), ((), ())))
        return _without_zeros(window, kernel, product.reshape(shape))
    # Images and channels change places: the output's gradient is the kernel, and the stride its
    # dilation.
    b, h, w, _ = x_bhwc.shape
    images = x_bhwc.reshape(b, h, w, wide.groups, -1).transpose(4, 1, 2, 3, 0)
    images = images.reshape(-1, h, w, wide.groups * b)
    padding = [
        (before, taps + (n - 1) * wide.stride - size - before)
        for size, n, taps, (before, _) in _axes(wide, x_bhwc.shape, kernel, gradient_bhwc)
    ]
    swapped = Window(1, (padding[0], padding[1]), wide.groups, wide.stride)
    product = plain(swapped, images, gradient_bhwc.transpose(1, 2, 0, 3))
    return _without_zeros(window, kernel, product.transpose(1, 2, 0, 3))


def merged(window: Window, kernel: jax.Array) -> Window:
    """The window of a convolution with fewer groups that does the same with more zeros."""
    return replace(window, groups=window.groups // _together(window, kernel))


def with_zeros(window: Window, kernel: jax.Array) -> jax.Array:
    """The kernel of that convolution: what lies between two groups that were merged is 0."""
    n = _together(window, kernel)
    if n == 1:
        return kernel
    height, width, inputs, outputs = kernel.shape
    blocks = kernel.reshape(height, width, 1, inputs, window.groups // n, n, -1)
    own = jnp.eye(n, dtype=bool).reshape(n, 1, 1, n, 1)
    return jnp.where(own, blocks, 0).reshape(height, width, n * inputs, outputs)


def _without_zeros(window: Window, kernel: jax.Array, gradient: jax.Array) -> jax.Array:
    (own,) = jax.linear_transpose(partial(with_zeros, window), kernel)(gradient)
    return own


def _together(window: Window, kernel: jax.Array) -> int:
    most = max(1, min(window.groups, MERGED // kernel.shape[2]))
    return next(n for n in range(most, 0, -1) if window.groups % n == 0)


def _turned(kernel: jax.Array, groups: int, stride: int) -> jax.Array:
    """The kernel (taps, taps, outputs / groups, groups x stride x stride x inputs)."""
    height, width, inputs, outputs = kernel.shape
    extra = [(0, -height % stride), (0, -width % stride), (0, 0), (0, 0)]
    rows, columns = -(-height // stride), -(-width // stride)
    parts = jnp.pad(kernel, extra)
    parts = parts.reshape(rows, stride, columns, stride, inputs, groups, outputs // groups)
    parts = jnp.flip(parts, (0, 2)).transpose(0, 2, 6, 5, 1, 3, 4)
    return parts.reshape(rows, columns, outputs // groups, -1)


def _axes(window: Window, shape: tuple[int, ...], kernel: jax.Array, gradient: jax.Array) -> zip:
    """Of rows and of columns: the image's size, the output's, the kernel's, and the padding."""
    sizes = (shape[1:3], gradient.shape[1:3], kernel.shape[:2], window.padding)
    return zip(*sizes, strict=True)
