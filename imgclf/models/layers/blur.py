"""Anti-aliased subsampling."""

from typing import Literal

import jax
import jax.numpy as jnp

from imgclf.models.layers.convolution import convolve


def blur_pool(
    x_bhwc: jax.Array, stride: int = 2, edges: Literal["reflect", "constant"] = "reflect"
) -> jax.Array:
    """Every `stride`-th place after a 3 x 3 binomial blur (arXiv:1904.11486).

    Beyond its edges the image is reflected, or zero where they are `constant`.
    """
    row = jnp.array([0.25, 0.5, 0.25], x_bhwc.dtype)
    channels = x_bhwc.shape[-1]
    kernel = jnp.tile((row[:, None] * row)[:, :, None, None], (1, 1, 1, channels))
    x = jnp.pad(x_bhwc, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=edges)
    return convolve(x, kernel, stride, groups=channels)
