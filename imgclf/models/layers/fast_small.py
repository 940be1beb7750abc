"""Weight gradients on GPUs of groups in images that come out no larger than the kernel.

A weight gradient is a convolution by the output's gradient. XLA tells it from a forward one by its
kernel, which is larger than its result. Where it is not, as in ConvNeXt's last stage, 7 x 7 of
7 x 7 px, XLA takes it for a forward one of few, large images, in fourteen times the time.
"""

from functools import partial

import jax
import jax.numpy as jnp

from imgclf.models.layers.fast_convolution import Window, plain


def suits(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> bool:
    """Whether XLA would not recognise it."""
    return window.groups > 1 and any(_missing(window, x_bhwc, kernel))


def forward(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution of which it is the weight gradient: with zeros behind, that make the output
    larger than the kernel, and without them."""
    rows, columns = _missing(window, x_bhwc, kernel)
    behind = ((0, 0), (0, rows * window.stride), (0, columns * window.stride), (0, 0))
    y = plain(window, jnp.pad(x_bhwc, behind), kernel)
    return y[:, : y.shape[1] - rows, : y.shape[2] - columns]


def _missing(window: Window, x_bhwc: jax.Array, kernel: jax.Array) -> list[int]:
    """Rows and columns by which the output is not larger than the kernel."""
    y = jax.eval_shape(partial(plain, window), x_bhwc, kernel)
    sizes = zip(kernel.shape[:2], y.shape[1:3], strict=True)
    return [max(0, taps + 1 - size) for taps, size in sizes]
