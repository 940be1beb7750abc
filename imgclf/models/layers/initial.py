"""How weights begin."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

Initializer = Callable[..., jax.Array]

he_fan_out: Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""He et al. 2015 (arXiv:1502.01852), in the form that keeps the gradients' variance."""
linear_uniform: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform within 1 / sqrt(inputs): how PyTorch begins a linear or a convolutional layer."""


def he_fan_out_of(groups: int) -> Initializer:
    """He's normal values by the outputs of one of the groups of a convolution."""
    return nn.initializers.variance_scaling(2.0 * groups, "fan_out", "normal")


def last_scale(zero: bool) -> Initializer:
    """A block that ends in a scale of zero begins as its shortcut alone (arXiv:1706.02677)."""
    return nn.initializers.zeros if zero else nn.initializers.ones


def truncated_normal(deviation: float = 0.02) -> Initializer:
    """A normal distribution of this standard deviation, cut off at 2 on either side.

    As in timm: the cut is so far out (2, not two deviations) that it changes nothing. It is never
    farther out than 5 deviations: there float32 has no probability left below 1, and one in 2**23
    values would lie at the cut itself.
    """

    def make(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        limit = min(2.0 / deviation, 5.0)
        return deviation * jax.random.truncated_normal(key, -limit, limit, tuple(shape), dtype)

    return make


def uniform_within(bound: float) -> Initializer:
    """Uniform between -`bound` and `bound`."""

    def uniform(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return uniform


def bias_uniform(fan_in: int) -> Initializer:
    """How PyTorch begins the bias of a layer with so many inputs."""
    return uniform_within(fan_in**-0.5)
