"""The state of a run: all that a checkpoint holds and a step changes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imgclf.models.network import Network
from imgclf.tasks import Batch, ModelState, Params, Task

INITIALISE, AUGMENT, LOSS = range(3)
"""What a random number is for: folded into the key of its step."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Step, parameters, model state, optimizer state, and the average of the first two."""

    step: jax.Array
    """Updates made, int32."""
    params: Params
    model_state: ModelState
    optimizer_state: Any
    average: tuple[Params, ModelState] | None
    """A moving average of (params, model_state), both averaged alike; None where there is none."""

    @property
    def evaluated(self) -> tuple[Params, ModelState]:
        """The pair that evaluation looks at: the average where there is one."""
        return self.average or (self.params, self.model_state)


def initial_state(
    seed: int,
    batch: Batch,
    *,
    task: Task,
    network: Network,
    optimizer: Callable[[Params], optax.GradientTransformation],
    averaged: bool,
    pretrained: tuple[Params, ModelState] | None = None,
) -> State:
    """The state before the first step, from `pretrained` parameters where they are given."""
    key = jax.random.fold_in(jax.random.key(seed), INITIALISE)
    params, model_state = pretrained or task.initialise(network, key, batch)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        optimizer_state=optimizer(params).init(params),
        average=jax.tree.map(jnp.copy, (params, model_state)) if averaged else None,
    )
