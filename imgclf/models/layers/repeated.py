"""Equal blocks one after another, or as one compiled loop over parameters stacked by depth."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def in_turn(
    parent: nn.Module,
    block: Callable[..., Any],
    rates: Sequence[float],
    x: jax.Array,
    train: bool,
    *,
    first: int = 0,
    scan: bool = False,
) -> jax.Array:
    """`x` after equal blocks, one for each rate of stochastic depth; in a method of `parent`.

    `block(rate, name=...)` makes one, which is called with `(x, train)`. They are named by their
    numbers, from `first`; with `scan`, where there are two or more, they are a single one, called
    `stacked_name`, whose variables have a leading axis of depth and which is called with a third
    argument: the rate, known only when it runs. What `capture` finds has the same names.
    """
    numbers = range(first, first + len(rates))
    if not scan or len(numbers) < 2:
        for i, rate in zip(numbers, rates, strict=True):
            x = block(rate, name=str(i))(x, train)
        return x

    captures = parent.is_mutable_collection("intermediates")

    def step(block: Any, x: jax.Array, rate: jax.Array) -> tuple[jax.Array, Any]:
        x = block(x, train, rate)
        return x, x if captures else None

    loop = nn.scan(
        step,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=len(numbers),
    )
    stacked = block(max(rates), name=stacked_name(numbers))
    x, after_each = loop(stacked, x, jnp.array(rates))
    if captures:
        for i, each in zip(numbers, after_each, strict=True):
            parent.sow("intermediates", str(i), each)
    return x


def stacked_name(numbers: range) -> str:
    """What blocks of these numbers are called where they are one.

    >>> stacked_name(range(1, 8))
    '1-7'
    """
    return f"{numbers[0]}-{numbers[-1]}"
