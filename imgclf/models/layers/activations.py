"""Activations, by the names that recipes and variants use."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from imgclf.errors import unknown
from imgclf.models.layers.plain import once

Activation = Callable[[jax.Array], jax.Array]


@jax.custom_jvp
def relu(x: jax.Array) -> jax.Array:
    """`x` where it is positive, else 0; its derivative needs only that, and not `x`."""
    return once(jnp.maximum(x, 0))


@relu.defjvp
def _of_relu(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    y = relu(*primals)
    return y, jnp.where(y > 0, tangents[0], 0)


def quick_gelu(x: jax.Array) -> jax.Array:
    """`x * sigmoid(1.702 x)`, which OpenAI's CLIP takes for GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def identity(x: jax.Array) -> jax.Array:
    """`x`."""
    return x


_NAMED: dict[str, Activation] = {
    "relu": relu,
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
