"""Activations, by the names that recipes and variants use."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from imgclf.errors import unknown

Activation = Callable[[jax.Array], jax.Array]


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x * sigmoid(1.702 x)`, which OpenAI's CLIP takes for GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def identity(x: jax.Array) -> jax.Array:
    """`x`."""
    return x


_NAMED: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": partial(jax.nn.gelu, approximate=True),
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
    if name not in _NAMED:
        raise unknown("activation", name, _NAMED)
    return _NAMED[name]
