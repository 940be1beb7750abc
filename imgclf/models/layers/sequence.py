"""Modules one after another."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax import linen as nn


class Numbered(nn.Module):
    """Modules one after another, each called with `(x, train)` and named by its number from "0".

    A part makes its module when it is called with a `name`, as a `partial` of a module does.
    """

    parts: Sequence[Callable[..., Any]]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, part in enumerate(self.parts):
            x = part(name=str(i))(x, train)
        return x
