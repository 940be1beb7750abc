"""Norms: each is called with `(x, train)`, works in float32 and answers in the type it is given."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers.channelwise import plus, times
from imgclf.models.layers.fast_norm import each_normalised, normalise_each, normalised
from imgclf.models.layers.initial import Initializer
from imgclf.models.layers.plain import are_plain

Norm = Callable[..., Any]
"""Makes a norm: `BatchNorm`, or one with other fields as a `partial` of it."""


class BatchNorm(nn.Module):
    """Batch normalisation (arXiv:1502.03167) over all axes but the last, worked out in float32.

    In training by the batch's own mean and variance, of the whole batch over all devices, and the
    running ones move towards them by 1 - `momentum`; else by the running ones. The variance never
    comes out negative; the running one is unbiased (n - 1), as PyTorch's.

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
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shape = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", self.scale_init, shape, jnp.float32)
        bias = self.param("bias", self.bias_init, shape, jnp.float32)

        def normalise(x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
            return (x - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias

        def normalise_by_itself(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            if not are_plain():
                return normalised(self.epsilon, x, scale, bias, running_mean.value)
            axes, x = tuple(range(x.ndim - 1)), x.astype(jnp.float32)
            mean = x.mean(axes)
            var = jnp.square(x - mean).mean(axes)
            return normalise(x, mean, var), mean, var

        if not train:
            y = normalise(x.astype(jnp.float32), running_mean.value, running_var.value)
        elif self.is_initializing():  # Perhaps of one row; only the shape counts.
            y, _, _ = normalise_by_itself(x)
        else:
            if self.groups == 1:
                y, mean, var = normalise_by_itself(x)
            else:
                y, mean_gc, var_gc = jax.vmap(normalise_by_itself)(self._in_groups(x))
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


class LayerNorm(nn.Module):
    """Layer normalisation (arXiv:1607.06450) over the last axis."""

    epsilon: float = 1e-6
    use_bias: bool = True
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        y = (normalise_each if are_plain() else each_normalised)(self.epsilon, x)
        y = times(y, self.param("scale", self.scale_init, (x.shape[-1],), jnp.float32))
        if self.use_bias:
            y = plus(y, self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32))
        return y.astype(x.dtype)


class GroupNorm(nn.Module):
    """Group normalisation (arXiv:1803.08494): each image by itself, in `groups` of channels.

    One group is what MetaFormers take: all channels and places of an image together. Raises a
    `UserError` where the groups do not divide the channels.
    """

    groups: int = 32
    epsilon: float = 1e-5
    use_bias: bool = True
    scale_init: Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        channels = x.shape[-1]
        if channels % self.groups:
            raise UserError(
                f"The `groups` of `GroupNorm` (={self.groups}) must divide the channels "
                f"(={channels})"
            )
        y = x.astype(jnp.float32).reshape(len(x), -1, self.groups, channels // self.groups)
        mean = y.mean((1, 3), keepdims=True)
        var = jnp.square(y - mean).mean((1, 3), keepdims=True)
        y = ((y - mean) * jax.lax.rsqrt(var + self.epsilon)).reshape(x.shape)
        y = times(y, self.param("scale", self.scale_init, (channels,), jnp.float32))
        if self.use_bias:
            y = plus(y, self.param("bias", nn.initializers.zeros, (channels,), jnp.float32))
        return y.astype(x.dtype)


def norm_of(group_norm: bool, batch_groups: int) -> Norm:
    """Group norms, or else batch norms by so many groups of the batch; both is a `UserError`."""
    if group_norm and batch_groups != 1:
        raise UserError(
            "The `batch_groups` of a network with group norms, which normalise each image by "
            f"itself, must be 1; got {batch_groups}"
        )
    return GroupNorm if group_norm else partial(BatchNorm, groups=batch_groups)


class GRN(nn.Module):
    """Global response normalisation (ConvNeXt V2, arXiv:2301.00808) of images (b, h, w, c)."""

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        shape, y = (x.shape[-1],), x.astype(jnp.float32)
        scale = self.param("scale", nn.initializers.zeros, shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        norm = jnp.sqrt(jnp.square(y).sum((1, 2), keepdims=True))
        relative = norm / (norm.mean(-1, keepdims=True) + self.epsilon)
        return (y + plus(times(y * relative, scale), bias)).astype(x.dtype)
