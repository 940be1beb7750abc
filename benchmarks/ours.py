"""The programs of a real run, its step and its prediction: in rounds, with their cost."""

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from imgclf import Recipe
from imgclf.models.summary import count_parameters, multiply_adds
from imgclf.recipe.resolution import resolve
from imgclf.tasks import Batch, ModelState, Params
from imgclf.training.backend import compiler_options
from imgclf.training.feed import Resident, Streamed, example_batch, is_resident
from imgclf.training.mesh import batch_sharding, check_batch, make_mesh
from imgclf.training.program import SCAN, Program, Scanned, Stepwise
from imgclf.training.state import State
from imgclf.training.step import train_step

AHEAD = 2
"""Dispatches under way while the host goes on, as in the loop."""
ENDLESS = 2**31 - 1


class Fixed:
    """A feed that gives the same batch, or the same ids of images on the device, for ever."""

    def __init__(self, batch: Batch | None, resident: Resident | None = None):
        self._batch = batch
        if resident is not None:
            self.held = resident.held
            self._ids = resident.ids(0, SCAN)

    def batches(self, start: int, stop: int) -> Iterator[Batch | None]:
        return itertools.repeat(self._batch)

    def ids(self, start: int, stop: int) -> dict[str, np.ndarray]:
        return self._ids


@dataclass(frozen=True)
class Round:
    """Seconds, in all, of a number of steps."""

    steps: int
    wall: float
    host: float
    """Of the main thread's processor time for each step of the first dispatch, which an idle device
    takes at once: later ones may find its queue full. On CPU, XLA may compute right there."""
    waited: float
    """For batches."""


class Ours:
    """The compiled program of a recipe, its state, and one runner for each kind of input.

    The state begins with `weights` where they are there already: (params, model_state) to copy.
    """

    def __init__(
        self,
        recipe: Recipe,
        scan: bool,
        own_feed: bool,
        weights: tuple[Params, ModelState] | None = None,
    ):
        resolved, mesh = resolve(recipe), make_mesh(recipe.mesh)
        check_batch(mesh, "labelled", recipe.data.batch_size)
        sharding = batch_sharding(mesh)
        program = Program(resolved, mesh, train_step, donate=True)
        feed: Resident | Streamed = (
            Resident(resolved, sharding)
            if is_resident(resolved)
            else Streamed(resolved, sharding, lambda stream: lambda problems: None)
        )
        before = time.perf_counter()
        runner = program.compile(feed, scan)
        self.compile_seconds = time.perf_counter() - before
        self.compiled: Any = runner.function
        self.runners = {"synthetic": _fixed(runner, self.compiled, feed)}
        if own_feed:
            self.runners["recipe"] = runner
            runner.start(0, ENDLESS)
        self.parameters = count_parameters(program.state.params)
        self.batch_size, self.devices = recipe.data.batch_size, mesh.size
        macs = multiply_adds(resolved.network, (1, *resolved.image_shape))
        self._estimate = 6 * macs * recipe.data.batch_size / mesh.size
        self._state = program.initial()[0] if weights is None else _state(program, weights)
        self._done = dict.fromkeys(self.runners, 0)

    def round(self, steps: int, kind: str = "synthetic") -> Round:
        """Makes `steps` steps, or a few more where many are made in a dispatch."""
        runner, first = self.runners[kind], self._done[kind]
        waited, under_way, host = runner.waited, [], 0.0
        before = time.perf_counter()
        while self._done[kind] < first + steps:
            done, since = self._done[kind], time.thread_time()
            self._state, metrics = runner.run(self._state, done, done + runner.size)
            host = host or (time.thread_time() - since) / runner.size
            self._done[kind] += runner.size
            under_way.append(metrics)
            if len(under_way) > AHEAD:
                jax.block_until_ready(under_way.pop(0))
        jax.block_until_ready(self._state)
        return Round(
            self._done[kind] - first,
            time.perf_counter() - before,
            host,
            runner.waited - waited,
        )

    def cost(self) -> tuple[float, str, float]:
        """FLOPs of a step on one device, who counted them, and bytes that go to and from memory.

        XLA does not see into other libraries' kernels, so that its count can be far off; then it is
        six times the multiply-adds of the forward pass: two FLOPs each, and twice as many backward.
        """
        analysis = self.compiled.cost_analysis() or {}
        flops, accessed = analysis.get("flops", 0.0), analysis.get("bytes accessed", 0.0)
        if 0.5 < flops / self._estimate < 2:
            return flops, "cost_analysis", accessed
        return self._estimate, "6 x multiply-adds", accessed

    def memory(self) -> dict[str, int]:
        return memory(self.compiled)

    def close(self) -> None:
        for runner in self.runners.values():
            runner.close()


class Prediction:
    """The compiled prediction of a recipe's network, and one batch that lies on the device."""

    def __init__(self, recipe: Recipe):
        resolved, mesh = resolve(recipe), make_mesh(recipe.mesh)
        network = resolved.network
        batch = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), example_batch(resolved))
        self.weights = network.initialise(jax.random.key(0), batch["image"])
        self._arguments = (*self.weights, jax.device_put(batch, batch_sharding(mesh)))

        def predict(params: Params, model_state: ModelState, batch: Batch) -> jax.Array:
            return recipe.task.predict(network, params, model_state, batch).logits

        function = jax.jit(predict, compiler_options=compiler_options(recipe.deterministic))
        before = time.perf_counter()
        self.compiled: Any = function.lower(*self._arguments).compile()
        self.compile_seconds = time.perf_counter() - before

    def round(self, steps: int) -> Round:
        """Predicts the batch so many times."""
        under_way: list[jax.Array] = []
        before, host = time.perf_counter(), 0.0
        for _ in range(steps):
            since = time.thread_time()
            under_way.append(self.compiled(*self._arguments))
            host = host or time.thread_time() - since
            if len(under_way) > AHEAD:
                under_way.pop(0).block_until_ready()
        jax.block_until_ready(under_way)
        return Round(steps, time.perf_counter() - before, host, 0.0)

    def memory(self) -> dict[str, int]:
        return memory(self.compiled)


def calibrated(program: Ours | Prediction, seconds: float) -> int:
    """Steps that take about so many seconds."""
    if program.round(1).wall > seconds:
        return 1
    made = program.round(2)
    return max(1, round(seconds * made.steps / made.wall))


def memory(compiled: Any) -> dict[str, int]:
    """Bytes on a device: of the program with its arguments, and the most this process took."""
    found = compiled.memory_analysis()
    sizes = (found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes)
    program = {"program": sum(sizes) - found.alias_size_in_bytes}
    taken = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return program if taken is None else program | {"most_in_process": taken}


def _state(program: Program, weights: tuple[Params, ModelState]) -> State:
    blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), program.state)
    params, model_state = weights
    state = replace(blank, params=params, model_state=model_state)
    return jax.device_put(state, program.placement)


def _fixed(runner: Any, compiled: Any, feed: Resident | Streamed) -> Stepwise | Scanned:
    """A runner of the same program whose input costs nothing."""
    if isinstance(runner, Scanned):
        return Scanned(compiled, Fixed(None, feed))
    batches = feed.batches(0, 1)
    fixed = Stepwise(compiled, Fixed(next(batches)))
    batches.close()
    fixed.start(0, ENDLESS)
    return fixed
