"""The linear layer."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.channelwise import matmul, plus
from imgclf.models.layers.initial import Initializer, bias_uniform, linear_uniform


class Dense(nn.Module):
    """Linear layer over the last axis; the kernel's layout is (inputs, outputs)."""

    features: int
    use_bias: bool = True
    kernel_init: Initializer = linear_uniform
    bias_init: Initializer | None = None
    """Without it: uniform within 1 / sqrt(inputs), as PyTorch's."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features), jnp.float32)
        y = matmul(x, kernel)
        if self.use_bias:
            bias_init = self.bias_init or bias_uniform(inputs)
            bias = self.param("bias", bias_init, (self.features,), jnp.float32)
            y = plus(y, bias)
        return y
