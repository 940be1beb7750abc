"""Convolutions in the one form that XLA is fast at on CPU.

There XLA hands a convolution to a fast library where images are (image, row, column, channel) and
the kernel is (row, column, input, output), not flipped. It brings others into this form, but not
inside loops (`scan`, `fori_loop`), where both gradients as JAX writes them are computed naively; so
they are written in that form here. A stride in the input's gradient would be multiplications by
zeros, and many small groups are slow, too. `benchmarks/convolution.py` measures all that.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp

from imgclf.models.layers.fast_sums import product

MERGED = 32
"""Inputs, at most, of groups that are merged: fewer at once leave the processor idle."""

MANY = 32
"""Inputs, at least, that are worth a convolution for each phase of a stride."""

Sides = tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Window:
    """How a kernel moves over an image."""

    stride: int
    padding: Sides = ((0, 0), (0, 0))
    """px before and after, of rows and of columns."""
    groups: int = 1
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
    """The convolution, with groups merged and one after another."""
    alone = replace(window, groups=1)
    groups, wide = _merged(window, kernel)
    return _each(groups, lambda x, kernel: plain(alone, x, kernel), x_bhwc, wide)


def input_gradient(
    window: Window, shape: tuple[int, ...], kernel: jax.Array, gradient_bhwc: jax.Array
) -> jax.Array:
    """The gradient by images of that shape, from the one by the output."""
    groups, wide = _merged(window, kernel)
    return _each(groups, partial(_input_gradient, window, shape), wide, gradient_bhwc)


def weight_gradient(
    window: Window, x_bhwc: jax.Array, kernel: jax.Array, gradient_bhwc: jax.Array
) -> jax.Array:
    """The gradient by the kernel, from the one by the output."""
    groups, _ = _merged(window, kernel)
    by_wide = partial(_weight_gradient, window, (kernel.shape[0], kernel.shape[1]))
    wide = _each(groups, by_wide, x_bhwc, gradient_bhwc)
    (by_kernel,) = jax.linear_transpose(lambda kernel: _merged(window, kernel)[1], kernel)(wide)
    return by_kernel


def _merged(window: Window, kernel: jax.Array) -> tuple[int, jax.Array]:
    """How many groups remain, and their kernel: 0 between two groups that were merged."""
    height, width, inputs, outputs = kernel.shape
    most = max(1, min(window.groups, MERGED // inputs))
    n = next(n for n in range(most, 0, -1) if window.groups % n == 0)
    if n == 1:
        return window.groups, kernel
    blocks = kernel.reshape(height, width, 1, inputs, window.groups // n, n, -1)
    own = jnp.eye(n, dtype=bool).reshape(n, 1, 1, n, 1)
    wide = jnp.where(own, blocks, 0).reshape(height, width, n * inputs, outputs)
    return window.groups // n, wide


def _each(groups: int, function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """`function` of each group by itself, whose channels are a share of the last axis.

    XLA, told of the groups, would have devices that share the images exchange them.
    """
    if groups == 1:
        return function(*arrays)

    def share(x: jax.Array, i: int | jax.Array) -> jax.Array:
        channels = x.shape[-1] // groups
        return jax.lax.optimization_barrier(
            jax.lax.dynamic_slice_in_dim(x, i * channels, channels, -1)
        )

    def one(i: int | jax.Array, found: jax.Array) -> jax.Array:
        own = function(*(share(x, i) for x in arrays))
        return jax.lax.dynamic_update_slice_in_dim(found, own, i * own.shape[-1], -1)

    own = jax.eval_shape(lambda: function(*(share(x, 0) for x in arrays)))
    whole = jnp.zeros((*own.shape[:-1], groups * own.shape[-1]), own.dtype)
    return jax.lax.fori_loop(0, groups, one, whole)


def _input_gradient(
    window: Window, shape: tuple[int, ...], kernel: jax.Array, gradient: jax.Array
) -> jax.Array:
    stride = window.stride
    if kernel.shape[:2] == (1, 1):
        y = plain(Window(1), gradient, _turned(kernel, 1))
        around = [
            (-before, size + before - (n - 1) * stride - 1, stride - 1)
            for size, n, _, (before, _) in _axes(window, shape, kernel.shape, gradient)
        ]
        return jax.lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), *around, (0, 0, 0)))
    halved = stride == 2 and all(taps > 1 and taps % 2 for taps in kernel.shape[:2])
    if halved and kernel.shape[2] >= MANY:
        return _by_phases(window, shape, kernel, gradient)
    return _by_blocks(window, shape, kernel, gradient)


def _by_phases(
    window: Window, shape: tuple[int, ...], kernel: jax.Array, gradient: jax.Array
) -> jax.Array:
    """Every stride-th pixel of the image has met the same taps: a convolution without a stride."""
    stride = window.stride
    parts = []
    for phase in itertools.product(range(stride), repeat=2):
        taps, seen, padding = [], [], []
        for first, (size, n, k, (before, _)) in zip(
            phase, _axes(window, shape, kernel.shape, gradient), strict=True
        ):
            nearest = (first + before) % stride
            taps.append(slice(nearest, None, stride))
            low = len(range(nearest, k, stride)) - 1 - (first + before) // stride
            high = (first + before) // stride + -(-size // stride) - n
            seen.append(slice(max(0, -low), n + min(0, high)))
            padding.append((max(0, low), max(0, high)))
        own = Window(1, (padding[0], padding[1]))
        parts.append(plain(own, gradient[:, *seen], _turned(kernel[*taps], 1)))
    b, h, w, c = parts[0].shape
    y = jnp.stack(parts, 3).reshape(b, h, w, stride, stride, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, h * stride, w * stride, c)[:, : shape[1], : shape[2]]


def _by_blocks(
    window: Window, shape: tuple[int, ...], kernel: jax.Array, gradient: jax.Array
) -> jax.Array:
    """One pixel of the gradient is about stride x stride pixels of the image.

    They come out as so many channels of a convolution without a stride.
    """
    stride = window.stride
    turned = _turned(kernel, stride)
    padding, seen, cut = [], [], []
    for size, n, taps, (before, _) in _axes(window, shape, turned.shape, gradient):
        first, last = before // stride, (before + size - 1) // stride
        # XLA is wrong on CPU where it is told to leave out the first places and add some behind.
        seen.append(slice(max(0, first - taps + 1), None))
        padding.append((max(0, taps - 1 - first), last - n + 1))
        cut.append(slice(before - first * stride, before - first * stride + size))
    full = Window(1, (padding[0], padding[1]))
    blocks = plain(full, gradient[:, seen[0], seen[1]], turned)
    b, h, w, _ = blocks.shape
    y = blocks.reshape(b, h, w, stride, stride, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(b, h * stride, w * stride, -1)[:, cut[0], cut[1]]


def _weight_gradient(
    window: Window, taps: tuple[int, int], x: jax.Array, gradient: jax.Array
) -> jax.Array:
    if taps == (1, 1) and window.padding == ((0, 0), (0, 0)):
        seen = jax.lax.optimization_barrier(x[:, :: window.stride, :: window.stride])
        return product(seen, gradient)[None, None]
    # Images and channels change places: the output's gradient is the kernel, and the stride its
    # dilation.
    padding = [
        (before, k + (n - 1) * window.stride - size - before)
        for size, n, k, (before, _) in _axes(window, x.shape, taps, gradient)
    ]
    swapped = Window(1, (padding[0], padding[1]), dilation=window.stride)
    found = plain(swapped, x.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3))
    return found.transpose(1, 2, 0, 3)


def _turned(kernel: jax.Array, stride: int) -> jax.Array:
    """The kernel (taps, taps, outputs, stride x stride x inputs) of the way back."""
    height, width, inputs, outputs = kernel.shape
    extra = [(0, -height % stride), (0, -width % stride), (0, 0), (0, 0)]
    rows, columns = -(-height // stride), -(-width // stride)
    parts = jnp.pad(kernel, extra).reshape(rows, stride, columns, stride, inputs, outputs)
    parts = jax.lax.optimization_barrier(jnp.flip(parts, (0, 2))).transpose(0, 2, 5, 1, 3, 4)
    return parts.reshape(rows, columns, outputs, -1)


def _axes(
    window: Window, shape: tuple[int, ...], taps: tuple[int, ...], gradient: jax.Array
) -> zip:
    """Of rows and of columns: the image's size, the output's, the kernel's, and the padding."""
    sizes = (shape[1:3], gradient.shape[1:3], taps[:2], window.padding)
    return zip(*sizes, strict=True)
