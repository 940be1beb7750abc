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
    unroll: bool = False,
    decay: Callable[[jax.Array], jax.Array] | None = None,
    gather: Callable[[Params], Params] = lambda params: params,
) -> tuple[State, Metrics]:
    """One update. `decay(step)` is the share of the average that is kept; None: no average.

    `unroll` makes the micro-batches without a loop. `gather` lays the parameters out as the network
    computes with them.
    """
    progress = state.step / steps
    key = jax.random.fold_in(jax.random.key(seed), state.step + 1)
    batch = augment(jax.random.fold_in(key, AUGMENT), batch, progress)

    def loss(params: Params, model_state: ModelState, rows: Batch, key: jax.Array) -> Any:
        return task.loss(network, gather(params), model_state, rows, key, progress=progress)

    gradient, model_state, metrics = gradients(
        loss, state, batch, jax.random.fold_in(key, LOSS), accumulate, unroll
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
    loss: Callable[..., Any],
    state: State,
    batch: Batch,
    key: jax.Array,
    accumulate: int,
    unroll: bool = False,
) -> tuple[Params, ModelState, Metrics]:
    """The gradient of the mean loss over the batch, taken in `accumulate` micro-batches.

    They come one after the other, in a loop or unrolled, so that one's activations are gone before
    the next one's are made. Each counts by its share of the mask, and batch statistics are carried
    from one to the next. Micro-batch i has the rows i, i + accumulate, ..., so that no row changes
    device where `accumulate` divides each device's share.
    """
    differentiate = jax.value_and_grad(loss, has_aux=True)

    def part(
        model_state: ModelState, rows: Batch, i: int | jax.Array
    ) -> tuple[Params, ModelState, Metrics]:
        (value, (model_state, metrics)), gradient = differentiate(
            state.params, model_state, rows, jax.random.fold_in(key, i)
        )
        return gradient, model_state, {"loss": value} | metrics

    if accumulate == 1:
        return part(state.model_state, batch, 0)
    weight = _examples(batch).astype(jnp.float32)
    columns = jax.tree.map(lambda x: x.reshape(-1, accumulate, *x.shape[1:]), batch)

    def add(carry: tuple[ModelState, Params], i: jax.Array) -> Any:
        (model_state, total), waited = jax.lax.optimization_barrier((carry, columns))
        rows = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, 1, False), waited)
        gradient, model_state, metrics = part(model_state, rows, i)
        share = _examples(rows) / weight
        total = jax.tree.map(lambda total, x: total + x * share, total, gradient)
        return (model_state, total), jax.tree.map(lambda x: x * share, metrics)

    start = (state.model_state, jax.tree.map(jnp.zeros_like, state.params))
    (model_state, total), each = jax.lax.scan(add, start, jnp.arange(accumulate), unroll=unroll)
    return total, model_state, jax.tree.map(lambda x: x.sum(0), each)


def _examples(batch: Batch) -> jax.Array:
    """How many examples count, of all parts of a batch."""
    return sum(part["mask"].sum() for part in ([batch] if "mask" in batch else batch.values()))
