"""Layers that families share. Each computes in the type of its input; parameters are float32.

Conventions are PyTorch's, so that its weights give its answers: explicit symmetric padding, an
unbiased running variance, uniform initial values of linear layers. Images are NHWC.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.errors import UserError

Initializer = Callable[..., jax.Array]
Norm = Callable[..., Any]
"""Makes a layer `(x, train) -> y`: `BatchNorm`, or one with other fields as a `partial` of it."""

he_fan_out: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al. 2015 (arXiv:1502.01852), in the form that keeps the gradients' variance."""
linear_uniform: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within 1 / sqrt(inputs): how PyTorch begins a linear layer's weights."""


class Conv(nn.Module):
    """Convolution with `kernel` x `kernel` weights; `padding` px of zeros on every side.

    Without `padding`, as many as keep the size at stride 1 (kernel // 2). The kernel's layout is
    (height, width, inputs / groups, outputs).
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    groups: int = 1
    use_bias: bool = False
    kernel_init: Initializer = he_fan_out

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel, self.kernel, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        pad = self.kernel // 2 if self.padding is None else self.padding
        y = jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            window_strides=(self.stride, self.stride),
            padding=((pad, pad), (pad, pad)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
        if self.use_bias:
            fan_in = shape[0] * shape[1] * shape[2]
            y = y + self.param("bias", _bias_uniform(fan_in), (self.features,)).astype(x.dtype)
        return y


class Dense(nn.Module):
    """Linear layer over the last axis, with a bias; the kernel's layout is (inputs, outputs)."""

    features: int
    kernel_init: Initializer = linear_uniform
    bias_init: Initializer | None = None
    """Without it: uniform within 1 / sqrt(inputs), as PyTorch's."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        inputs = x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features), jnp.float32)
        bias_init = self.bias_init or _bias_uniform(inputs)
        bias = self.param("bias", bias_init, (self.features,), jnp.float32)
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


class BatchNorm(nn.Module):
    """Batch normalisation (arXiv:1502.03167) over all axes but the last, worked out in float32.

    In training by the batch's own mean and variance, of the whole batch over all devices, and the
    running ones move towards them by 1 - `momentum`; else by the running ones. The variance is the
    mean of squared differences from the mean, which never comes out negative; the running one is
    unbiased (n - 1), as PyTorch's.

    With `groups`, each of so many equal runs of the batch's rows is normalised by itself (ghost
    batch normalisation, arXiv:1705.08741), and the running statistics move towards the mean over
    the groups of their means and unbiased variances. Where the groups are as many as the devices
    that share out the batch, or a multiple, no activation waits for another device. Raises a
    `UserError` for a batch in training that they do not divide.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    scale_init: Initializer = nn.initializers.ones
    groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)

        def normalise(x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
            return (x - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias

        def normalise_by_itself(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            axes = tuple(range(x.ndim - 1))
            mean = x.mean(axes)
            var = jnp.square(x - mean).mean(axes)
            return normalise(x, mean, var), mean, var

        x_float = x.astype(jnp.float32)
        if not train:
            y = normalise(x_float, running_mean.value, running_var.value)
        elif self.is_initializing():  # Perhaps of one row; only the shape counts.
            y, _, _ = normalise_by_itself(x_float)
        else:
            if self.groups == 1:
                y, mean, var = normalise_by_itself(x_float)
            else:
                y, mean_gc, var_gc = jax.vmap(normalise_by_itself)(self._in_groups(x_float))
                y, mean, var = y.reshape(x.shape), mean_gc.mean(0), var_gc.mean(0)
            n = x.size // x.shape[-1] // self.groups
            running_mean.value = self._moved(running_mean.value, mean)
            running_var.value = self._moved(running_var.value, var * (n / max(n - 1, 1)))
        return y.astype(x.dtype)

    def _in_groups(self, x: jax.Array) -> jax.Array:
        if self.groups < 1 or len(x) % self.groups:
            raise UserError(
                f"The `batch_groups` of a network (={self.groups}) must be 1 or more and divide "
                f"the images that are normalised together (={len(x)})"
            )
        return x.reshape(self.groups, -1, *x.shape[1:])

    def _moved(self, running: jax.Array, new: jax.Array) -> jax.Array:
        return self.momentum * running + (1 - self.momentum) * new


def max_pool(x: jax.Array, kernel: int, stride: int, padding: int = 0) -> jax.Array:
    """The greatest of each `kernel` x `kernel` window; padding never wins."""
    pad = (padding, padding)
    return nn.max_pool(x, (kernel, kernel), strides=(stride, stride), padding=(pad, pad))


def global_average(x_bhwc: jax.Array) -> jax.Array:
    """The mean over all places, (b, c), in float32: a head fed by it gives float32 logits."""
    return x_bhwc.mean((1, 2), dtype=jnp.float32)


def _bias_uniform(fan_in: int) -> Initializer:
    bound = fan_in**-0.5

    def uniform(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform
