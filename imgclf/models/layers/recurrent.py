"""Recurrent layers over tokens, with PyTorch's equations, names and initial values."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.fast_sums import sum_type, wide
from imgclf.models.layers.initial import uniform_within


class Recurrent(nn.Module):
    """`depth` layers of LSTM (Hochreiter and Schmidhuber 1997) or GRU (arXiv:1406.1078).

    Tokens (b, t, d) to the states of the last layer, (b, t, `features`); if it is `bidirectional`,
    those of a second run, from the last token to the first, follow as further channels.
    """

    features: int
    depth: int = 1
    cell: Literal["lstm", "gru"] = "lstm"
    bidirectional: bool = False

    @nn.compact
    def __call__(self, x_btd: jax.Array) -> jax.Array:
        x = x_btd
        for layer in range(self.depth):
            runs = [self._run(x, f"l{layer}")]
            if self.bidirectional:
                runs.append(self._run(x[:, ::-1], f"l{layer}_reverse")[:, ::-1])
            x = jnp.concatenate(runs, -1)
        return x

    def _run(self, x: jax.Array, suffix: str) -> jax.Array:
        width, gates = self.features, 4 if self.cell == "lstm" else 3

        def parameter(name: str, *shape: int) -> jax.Array:
            init = uniform_within(width**-0.5)
            shape = (gates * width, *shape)
            return self.param(f"{name}_{suffix}", init, shape, jnp.float32).astype(x.dtype)

        inputs = x @ parameter("weight_ih", x.shape[-1]).T
        recurrent = parameter("weight_hh", width).T
        inputs, bias = inputs + parameter("bias_ih", *()), parameter("bias_hh", *())
        step = _STEPS[self.cell]

        def advance(
            state: tuple[jax.Array, jax.Array], token: jax.Array
        ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            hidden = wide(state[0].astype(x.dtype) @ recurrent) + bias
            state = step(state, wide(token), hidden)
            return state, state[0].astype(x.dtype)

        # In float32, or what is kept for long would be rounded at every token.
        zeros = jnp.zeros((len(x), width), sum_type(x))
        _, states = jax.lax.scan(advance, (zeros, zeros), inputs.swapaxes(0, 1))
        return states.swapaxes(0, 1)


State = tuple[jax.Array, jax.Array]


def _lstm(state: State, inputs: jax.Array, recurrent: jax.Array) -> State:
    enter, forget, value, leave = jnp.split(inputs + recurrent, 4, -1)
    memory = nn.sigmoid(forget) * state[1] + nn.sigmoid(enter) * jnp.tanh(value)
    return nn.sigmoid(leave) * jnp.tanh(memory), memory


def _gru(state: State, inputs: jax.Array, recurrent: jax.Array) -> State:
    (reset, update, value), (of_reset, of_update, of_value) = (
        jnp.split(each, 3, -1) for each in (inputs, recurrent)
    )
    value = jnp.tanh(value + nn.sigmoid(reset + of_reset) * of_value)
    update = nn.sigmoid(update + of_update)
    hidden = (1 - update) * value + update * state[0]
    return hidden, hidden


_STEPS: dict[str, Callable[[State, jax.Array, jax.Array], State]] = {"lstm": _lstm, "gru": _gru}
