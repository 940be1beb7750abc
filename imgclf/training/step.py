"""The step: one pure function from a state and a batch to the next state and its metrics."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from imgclf.models.network import Network
from imgclf.tasks import Batch, Metrics, ModelState, Params, Task
from imgclf.training.state import AUGMENT, LOSS, State


def train_step(
    state: State,
    batch: Batch,
    *,
    network: Network,
    task: Task,
    augment: Callable[[jax.Array, Batch, jax.Array], Batch],
    optimizer: optax.GradientTransformation,
    seed: int,
    steps: int,
    accumulate: int = 1,
    decay: Callable[[jax.Array], jax.Array] | None = None,
    gather: Callable[[Params], Params] = lambda params: params,
) -> tuple[State, Metrics]:
    """One update. `decay(step)` is the share of the average that is kept; None: no average.

    `gather` lays the parameters out as the network computes with them.
    """
    progress = state.step / steps
    key = jax.random.fold_in(jax.random.key(seed), state.step + 1)
    batch = augment(jax.random.fold_in(key, AUGMENT), batch, progress)

    def loss(params: Params, model_state: ModelState, rows: Batch, key: jax.Array) -> Any:
        return task.loss(network, gather(params), model_state, rows, key, progress=progress)

    gradient, model_state, metrics = gradients(
        loss, state, batch, jax.random.fold_in(key, LOSS), accumulate
    )
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if decay is not None:
        mix = partial(optax.incremental_update, step_size=1 - decay(state.step))
        average = jax.tree.map(lambda new, old: mix(new, old), (params, model_state), average)
    metrics = metrics | {"gradient_norm": optax.tree.norm(gradient)}
    return State(state.step + 1, params, model_state, optimizer_state, average), metrics


def gradients(
    loss: Callable[..., Any], state: State, batch: Batch, key: jax.Array, accumulate: int
) -> tuple[Params, ModelState, Metrics]:
    """The gradient of the mean loss over the batch, taken in `accumulate` micro-batches.

    Each micro-batch counts by its share of the mask, and batch statistics are carried from one to
    the next. Micro-batch i has the rows i, i + accumulate, ..., so that no row changes device where
    `accumulate` divides each device's share.
    """
    differentiate = jax.value_and_grad(loss, has_aux=True)
    weight = _examples(batch).astype(jnp.float32)

    def part(model_state: ModelState, i: int) -> tuple[ModelState, tuple[Params, Metrics]]:
        rows = jax.tree.map(lambda value: value[i::accumulate], batch)
        micro_key = jax.random.fold_in(key, i)
        (value, (model_state, metrics)), gradient = differentiate(
            state.params, model_state, rows, micro_key
        )
        share = _examples(rows) / weight if accumulate > 1 else 1.0
        total = (gradient, {"loss": value} | metrics)
        return model_state, jax.tree.map(lambda x: x * share, total)

    model_state, total = part(state.model_state, 0)
    for i in range(1, accumulate):
        model_state, more = part(model_state, i)
        total = jax.tree.map(jnp.add, total, more)
    return total[0], model_state, total[1]


def _examples(batch: Batch) -> jax.Array:
    """How many examples count, of all parts of a batch."""
    return sum(part["mask"].sum() for part in ([batch] if "mask" in batch else batch.values()))
