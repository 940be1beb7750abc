"""The first convolution on GPUs: of images of few channels, with a large kernel and a stride."""

import jax
import jax.numpy as jnp

from imgclf.models.layers.fast_convolution import Window, plain

FEW = 4
"""Channels, at most. cuDNN would fill them up to eight with zeros, in a pass of its own."""


def suits(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> bool:
    """Whether blocks are better: a pixel is in many windows, and has few channels."""
    large = window.stride > 1 and min(kernel.shape[:2]) > 2 * window.stride
    return large and kernel.shape[2] <= FEW and window.groups == window.dilation == 1


def forward(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution without its stride, over blocks of stride x stride px as channels."""
    stride = window.stride
    (b, *sizes, channels), (*taps, _, features) = x_bhwc.shape, kernel.shape
    around_image, around_kernel, padding, blocks, reaches = [], [], [], [], []
    for size, k, (before, after) in zip(sizes, taps, window.padding, strict=True):
        first = -before % stride  # zeros, so that the kernel begins where a block does
        reach, left = -(-(first + k) // stride), (before + first) // stride
        right = (before + size + after - k) // stride + reach - left - -(-size // stride)
        held = -(-size // stride) + min(0, right)
        around_image.append((0, held * stride - size, 0))
        around_kernel.append((first, reach * stride - first - k))
        padding.append((left, max(0, right)))
        blocks.append(held)
        reaches.append(reach)
    zero = jnp.zeros((), x_bhwc.dtype)
    image = jax.lax.pad(x_bhwc, zero, ((0, 0, 0), *around_image, (0, 0, 0)))
    image = image.reshape(b, blocks[0], stride, blocks[1], stride, channels)
    kernel = jnp.pad(kernel, (*around_kernel, (0, 0), (0, 0)))
    kernel = kernel.reshape(reaches[0], stride, reaches[1], stride, channels, features)
    return plain(
        Window(1, (padding[0], padding[1])),
        image.transpose(0, 1, 3, 2, 4, 5).reshape(b, *blocks, -1),
        kernel.transpose(0, 2, 1, 3, 4, 5).reshape(*reaches, -1, features),
    )
