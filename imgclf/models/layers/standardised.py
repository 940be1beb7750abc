"""Convolution whose weights are standardised."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.convolution import Padding, convolve, sides
from imgclf.models.layers.initial import Initializer, he_fan_out


class StdConv(nn.Module):
    """Convolution with weight standardisation (arXiv:1903.10520), without a bias.

    Over its inputs, the kernel of each output is brought to mean 0 and variance 1.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: Padding | None = None
    epsilon: float = 1e-8
    kernel_init: Initializer = he_fan_out

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        centred = kernel - kernel.mean((0, 1, 2))
        kernel = centred * jax.lax.rsqrt(jnp.square(centred).mean((0, 1, 2)) + self.epsilon)
        padding = sides(self.kernel // 2 if self.padding is None else self.padding)
        return convolve(x, kernel.astype(x.dtype), self.stride, padding)
