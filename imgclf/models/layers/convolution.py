"""The one convolution of all families."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers import fast_convolution, fast_depthwise, fast_small, fast_stem
from imgclf.models.layers.channelwise import plus
from imgclf.models.layers.fast_convolution import Window, plain
from imgclf.models.layers.initial import Initializer, bias_uniform, he_fan_out
from imgclf.models.layers.plain import are_plain, by_platform, once

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
    """Convolution of images with a kernel (height, width, inputs / groups, outputs).

    On CPU it and its gradients are computed in ways that are fast there, on other devices by XLA's
    own operation, but for what XLA is slow at on GPUs: the same but for rounding. Forward-mode
    derivatives (`jax.jvp`, `jax.linearize`) need `plain_operations`.
    """
    if isinstance(padding, str):
        extents = [dilation * (taps - 1) + 1 for taps in kernel.shape[:2]]
        rows, columns = jax.lax.padtype_to_pads(
            x_bhwc.shape[1:3], extents, (stride, stride), padding
        )
        padding = rows, columns
    window = Window(stride, padding, groups, dilation)
    if are_plain() or dilation > 1:
        return plain(window, x_bhwc, kernel)
    return _convolve(window, x_bhwc, kernel)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _convolve(window: Window, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return by_platform(
        x,
        kernel,
        cpu=partial(_fast(window, kernel).forward, window) if window.groups > 1 else None,
        gpu=partial(fast_stem.forward, window) if fast_stem.suits(window, x, kernel) else None,
        default=partial(plain, window),
    )


def _kept(
    window: Window, x: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    x = once(x)
    return _convolve(window, x, kernel), (x, kernel)


def _gradients(
    window: Window, kept: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    gradient = once(gradient)
    fast = _fast(window, kernel)

    def of_plain_by_input(kernel: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda x: plain(window, x, kernel), x)(gradient)[0]

    def by_kernel_through(
        forward: Callable[..., jax.Array], x: jax.Array, gradient: jax.Array
    ) -> jax.Array:
        return jax.linear_transpose(lambda kernel: forward(window, x, kernel), kernel)(gradient)[0]

    # Chosen one by one, so that XLA can leave out the one that is not asked for.
    by_input = by_platform(
        kernel,
        gradient,
        cpu=partial(fast.input_gradient, window, x.shape),
        default=of_plain_by_input,
    )
    on_gpu = [way for way in (fast_stem, fast_small) if way.suits(window, x, kernel)]
    by_kernel = by_platform(
        x,
        gradient,
        cpu=lambda x, gradient: fast.weight_gradient(window, x, kernel, gradient),
        gpu=partial(by_kernel_through, on_gpu[0].forward) if on_gpu else None,
        default=partial(by_kernel_through, plain),
    )
    return by_input, by_kernel


_convolve.defvjp(_kept, _gradients)


def _fast(window: Window, kernel: jax.Array) -> ModuleType:
    return fast_depthwise if fast_depthwise.suits(window, kernel) else fast_convolution


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
            y = plus(y, self.param("bias", bias_init, (self.features,)))
        return y
