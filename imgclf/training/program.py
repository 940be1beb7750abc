"""The compiled program of a run: `jit`, donation, sharding and loops, put around the step here."""

import time
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from imgclf.augmentation import compose
from imgclf.errors import UserError
from imgclf.recipe.resolution import Resolved
from imgclf.recipe.value import Average
from imgclf.tasks import Batch, Metrics, ModelState, Params
from imgclf.training.backend import compiler_options
from imgclf.training.feed import Resident, Streamed, example_batch
from imgclf.training.mesh import batch_sharding, gathering, replicated, state_shardings
from imgclf.training.meter import check_metrics
from imgclf.training.signals import interruptible
from imgclf.training.state import State, initial_state

SCAN = 32
"""Most updates in one dispatch, where many are made in a loop on the device."""

Step = Callable[..., tuple[State, Metrics]]


class Program:
    """The functions of one run, bound to its recipe and laid out on its mesh."""

    def __init__(self, resolved: Resolved, mesh: jax.sharding.Mesh, step: Step, donate: bool):
        recipe = resolved.recipe
        self.resolved, self.mesh, self._donate = resolved, mesh, donate
        self.schedule = recipe.schedule.build(resolved.steps, resolved.steps_per_epoch)
        self._initial = partial(
            initial_state,
            recipe.seed,
            task=recipe.task,
            network=resolved.network,
            optimizer=self._optimizer,
            averaged=recipe.average.decay > 0,
        )
        batch = example_batch(resolved)
        self._first = batch.get("labelled", batch)
        shapes = jax.eval_shape(self._initial, self._first)
        self.placement = state_shardings(mesh, recipe.mesh.rules, shapes)
        self.state = jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.placement,
        )
        """Shapes, types and placement of the state."""
        self._step = partial(
            step,
            network=resolved.network,
            task=recipe.task,
            augment=compose(recipe.augment, len(resolved.classes)),
            optimizer=self._optimizer(self.state.params),
            seed=recipe.seed,
            steps=resolved.steps,
            accumulate=recipe.accumulate,
            unroll=jax.default_backend() == "cpu",  # see use_scan
            decay=average_decay(recipe.average),
            gather=gathering(self.placement.params),
        )

    def initial(self) -> tuple[State, str]:
        """The state before the first step, and what is to be said of weights that were loaded."""
        quick = quick_compilation()
        make = jax.jit(self._initial, out_shardings=self.placement, compiler_options=quick)
        batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self._first)
        if not self.resolved.recipe.model.weights:
            return _compiled(make.lower(batch))(batch), ""
        whole, note = self._pretrained(batch)
        return _compiled(make.lower(batch, pretrained=whole))(batch, pretrained=whole), note

    def _pretrained(self, batch: Batch) -> tuple[Any, str]:
        """Parameters and model state from the weights file, on the host, and what is to be said.

        The fresh ones that it is to fit are on one device; the rest of the state is not made.
        """
        from imgclf.models import load_weights

        def fresh(batch: Batch) -> tuple[Params, ModelState]:
            state = self._initial(batch)
            return state.params, state.model_state

        make = jax.jit(fresh, compiler_options=quick_compilation())
        params, model_state = _compiled(make.lower(batch))(batch)
        resolved, path = self.resolved, self.resolved.recipe.model.weights
        *pretrained, note = load_weights(resolved.network, params, model_state, path)
        return jax.tree.map(np.asarray, tuple(pretrained)), note

    def rates(self, steps: Collection[int]) -> dict[int, float]:
        """The learning rates of updates, by the step they lead to; all at once, for the log."""
        rate = jax.jit(jax.vmap(lambda t: jnp.asarray(self.schedule(t), jnp.float32)))
        values = rate(np.array(sorted(steps), np.int32) - 1)
        return dict(zip(sorted(steps), np.asarray(values).tolist(), strict=True))

    def compile(self, feed: Streamed | Resident, scan: bool) -> "Stepwise | Scanned":
        """Compiles the step ahead of time, for batches as `feed` gives them."""
        jitted = partial(
            jax.jit,
            donate_argnums=(0,) if self._donate else (),
            out_shardings=(self.placement, replicated(self.mesh)),
            compiler_options=compiler_options(self.resolved.recipe.deterministic),
        )
        if scan and isinstance(feed, Resident):
            function = jitted(self._many)
            ids = feed.ids(0, SCAN)
            lowered = function.lower(self.state, feed.held, ids, np.int32(0))
            return Scanned(_compiled(lowered) if self._donate else function, feed)
        function = jitted(self._step)
        sharding = batch_sharding(self.mesh)
        batch = jax.tree.map(
            lambda each: jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding),
            example_batch(self.resolved),
        )
        lowered = function.lower(self.state, batch)
        check_metrics(lowered.out_info[1])
        return Stepwise(_compiled(lowered) if self._donate else function, feed)

    def _many(
        self, state: State, held: Batch, ids: dict[str, jax.Array], count: jax.Array
    ) -> tuple[State, Metrics]:
        """`count` steps in a loop on the device, over the batches that the rows of `ids` name."""
        sharding = batch_sharding(self.mesh)

        def batch_of(i: int | jax.Array) -> Batch:
            return Resident.gather(held, jax.tree.map(lambda rows: rows[i], ids))

        def one(i: jax.Array, carry: tuple[State, Metrics]) -> tuple[State, Metrics]:
            batch = jax.lax.with_sharding_constraint(batch_of(i), sharding)
            state, metrics = self._step(carry[0], batch)
            return state, jax.tree.map(lambda all_, new: all_.at[i].set(new), carry[1], metrics)

        shapes = jax.eval_shape(self._step, state, batch_of(0))[1]
        check_metrics(shapes)
        metrics = jax.tree.map(lambda x: jnp.zeros((SCAN,), x.dtype), shapes)
        return jax.lax.fori_loop(0, count, one, (state, metrics))

    def _optimizer(self, params: Any) -> optax.GradientTransformation:
        recipe = self.resolved.recipe
        optimizer = recipe.optimizer.build(self.schedule, params)
        if not recipe.clip_norm:
            return optimizer
        return optax.chain(optax.clip_by_global_norm(recipe.clip_norm), optimizer)


class Stepwise:
    """One update in a dispatch."""

    size = 1

    def __init__(self, function: Callable[..., Any], feed: Streamed | Resident):
        self.function, self.feed = function, feed
        self._batches: Iterator[Batch] = iter(())
        self.waited = 0.0
        """Seconds that batches were waited for."""

    def start(self, step: int, stop: int) -> None:
        """Makes ready for the steps from `step` up to `stop`."""
        self._batches = self.feed.batches(step, stop)

    def run(self, state: State, start: int, stop: int) -> tuple[State, Metrics]:
        """The state after the steps from `start` up to `stop`, and their metrics."""
        before = time.perf_counter()
        batch = next(self._batches)
        self.waited += time.perf_counter() - before
        return self.function(state, batch)

    def close(self) -> None:
        getattr(self._batches, "close", lambda: None)()


class Scanned:
    """Up to `SCAN` updates in a dispatch, on data that lies on the device."""

    size = SCAN

    def __init__(self, function: Callable[..., Any], feed: Resident):
        self.function, self.feed = function, feed
        self.waited = 0.0

    def start(self, step: int, stop: int) -> None:
        pass

    def run(self, state: State, start: int, stop: int) -> tuple[State, Metrics]:
        """The state after the steps from `start` up to `stop`, and their metrics (SCAN,), of which
        those beyond `stop` are void."""
        ids = self.feed.ids(start, start + SCAN)
        return self.function(state, self.feed.held, ids, np.int32(stop - start))

    def close(self) -> None:
        pass


def _compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """Compiled so that a signal is answered; it is traced in the caller's thread and context."""
    return interruptible(lowered.compile)


def quick_compilation() -> dict[str, Any] | None:
    """Options for a program that runs once: on CPU, to optimise it takes longer than it saves."""
    return {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None


def average_decay(average: Average) -> Callable[[jax.Array], jax.Array] | None:
    """The share of the average that update t (from 0) keeps; None where there is no average."""
    if not average.decay:
        return None
    if not average.warmup:
        return lambda t: jnp.float32(average.decay)
    return lambda t: jnp.minimum(average.decay, (1 + t) / (10 + t))


def use_scan(choice: str, resident: bool) -> bool:
    """Whether updates are made in a loop on the device: on accelerators, where the data lie there.

    Raises a `UserError` where they must be and the data are streamed. On CPU never unless asked
    for: XLA computes a convolution's weight gradient some 50 times slower inside a loop.
    """
    if choice == "scan" and not resident:
        raise UserError(
            "`dispatch` is 'scan', but the training images are streamed, and each step takes its "
            "batch from the host: leave it at 'auto'"
        )
    return choice == "scan" or (choice == "auto" and resident and jax.default_backend() != "cpu")
