"""The one convolution of all families."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.initial import Initializer, bias_uniform, he_fan_out

Padding = int | tuple[int, int] | Literal["SAME"]
"""px of zeros on every side, or above and below, left and right; "SAME" is TensorFlow's rule: as
many as give ceil(size / stride), the odd one below and to the right."""


def convolve(
    x_bhwc: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: tuple[tuple[int, int], tuple[int, int]] | Literal["SAME"] = ((0, 0), (0, 0)),
    groups: int = 1,
    dilation: int = 1,
) -> jax.Array:
    """Convolution of images with a kernel (height, width, inputs / groups, outputs)."""
    return jax.lax.conv_general_dilated(
        x_bhwc,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def sides(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]] | Literal["SAME"]:
    """The padding of each axis, before and after."""
    if isinstance(padding, str):
        return padding
    rows, columns = (padding, padding) if isinstance(padding, int) else padding
    return (rows, rows), (columns, columns)


class Conv(nn.Module):
    """Convolution with `kernel` x `kernel` weights, or (height, width) of them.

    Without `padding`, as many px of zeros as keep the size at stride 1. The kernel's layout is
    (height, width, inputs / groups, outputs).
    """

    features: int
    kernel: int | tuple[int, int] = 3
    stride: int = 1
    padding: Padding | None = None
    groups: int = 1
    use_bias: bool = False
    dilation: int = 1
    kernel_init: Initializer = he_fan_out
    bias_init: Initializer | None = None
    """Without it: uniform within 1 / sqrt(inputs of an output), as PyTorch's."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = (self.kernel,) * 2 if isinstance(self.kernel, int) else self.kernel
        shape = (height, width, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        same = (self.dilation * (height - 1) + 1) // 2, (self.dilation * (width - 1) + 1) // 2
        padding = sides(same if self.padding is None else self.padding)
        kernel = kernel.astype(x.dtype)
        y = convolve(x, kernel, self.stride, padding, self.groups, self.dilation)
        if self.use_bias:
            bias_init = self.bias_init or bias_uniform(height * width * shape[2])
            y = y + self.param("bias", bias_init, (self.features,)).astype(x.dtype)
        return y
