"""Activations, by the names that recipes and variants use."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Literal

import jax
import jax.numpy as jnp

from imgclf.errors import unknown
from imgclf.models.layers.fast_sums import wide
from imgclf.models.layers.plain import on_cpu, once

Activation = Callable[[jax.Array], jax.Array]
ActivationName = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "gelu_tanh",
    "quick_gelu",
    "silu",
    "hard_swish",
    "hard_sigmoid",
    "sigmoid",
    "tanh",
    "softmax",
    "identity",
]


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """`x` where it is positive, else 0; its derivative needs only that, and not `x`."""
    return once(jnp.maximum(x, 0))


@relu.defjvp
def _of_relu(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], 0)


def _with_slope(function: Activation) -> Activation:
    """The function, worked out in float32 at least; its slope is all that is kept for the gradient.

    On accelerators XLA would keep what the slope is made of: three arrays, a transformer's widest.
    """

    @jax.custom_jvp
    @wraps(function)
    def result(x: jax.Array) -> jax.Array:
        return function(wide(x)).astype(x.dtype)

    @result.defjvp
    def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
        (x,), (tangent,) = primals, tangents
        y, slope = jax.jvp(function, (wide(x),), (jnp.ones_like(wide(x)),))
        slope = slope.astype(x.dtype)
        slope = slope if on_cpu() else jax.lax.optimization_barrier(slope)
        return y.astype(x.dtype), tangent * slope

    return result


@_with_slope
def gelu(x: jax.Array) -> jax.Array:
    """`x` times the normal distribution up to it (arXiv:1606.08415), by erf, as PyTorch has it."""
    return 0.5 * x * (1 + jax.lax.erf(x * math.sqrt(0.5)))


@_with_slope
def gelu_tanh(x: jax.Array) -> jax.Array:
    """`gelu` by its approximation through tanh."""
    return jax.nn.gelu(x, approximate=True)


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x * sigmoid(1.702 x)`, which OpenAI's CLIP takes for GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def identity(x: jax.Array) -> jax.Array:
    """`x`."""
    return x


NAMED: dict[str, Activation] = {
    "relu": relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "silu": jax.nn.silu,
    "hard_swish": jax.nn.hard_swish,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "softmax": jax.nn.softmax,
    "identity": identity,
}


def activation(name: str) -> Activation:
    """The function of that name; an unknown one is a `UserError` with the nearest.

    >>> activation("leaky_relu")(jax.numpy.array([-1.0, 2.0])).tolist()
    [-0.009999999776482582, 2.0]
    """
    if name not in NAMED:
        raise unknown("activation", name, NAMED)
    return NAMED[name]
