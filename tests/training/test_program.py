"""The first state of a run, and what is made on the way to it."""

import dataclasses
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax

from imgclf import Data, Mesh, Model, Recipe, models
from imgclf.data import Digits, Synthetic
from imgclf.optimizers import Optimizer
from imgclf.recipe import resolve
from imgclf.training.feed import Streamed
from imgclf.training.mesh import batch_sharding, make_mesh
from imgclf.training.program import Program
from imgclf.training.step import train_step

HELD: list[int] = []
"""Bytes on the device whenever an optimizer was built."""


@dataclass(frozen=True)
class Noting(Optimizer):
    def build(self, schedule: optax.Schedule, params: Any) -> optax.GradientTransformation:
        gc.collect()
        HELD.append(sum(each.nbytes for each in jax.live_arrays()))
        return optax.adam(schedule)


def test_a_run_from_weights_makes_its_state_once(tmp_path: Path) -> None:
    recipe = Recipe(
        data=Data(Digits(), {}, batch_size=64),
        model=Model("cnn", dtype="float32", options={"width": 32}),
        optimizer=Noting(),
    )

    def program(recipe: Recipe) -> Program:
        return Program(resolve(recipe), make_mesh(Mesh()), train_step, donate=True)

    made = program(recipe)
    state, _ = made.initial()
    file = str(tmp_path / "weights.npz")
    models.save_weights(made.resolved.network, state.params, state.model_state, file)
    size = sum(each.nbytes for each in jax.tree.leaves(state.params))
    del state
    HELD.clear()
    model = dataclasses.replace(recipe.model, weights=file)
    state, _ = program(dataclasses.replace(recipe, model=model)).initial()
    assert max(HELD) - HELD[0] < 2 * size  # the weights themselves, not the whole state
    assert all(leaf.committed for leaf in jax.tree.leaves(state))


def test_micro_batches_in_a_loop_take_less_memory_than_the_whole_batch() -> None:
    def memory(accumulate: int) -> int:
        recipe = Recipe(
            data=Data(Synthetic(64, 32, 3, 10), {}, batch_size=64, resident="no"),
            model=Model("cnn", dtype="float32"),
            accumulate=accumulate,
        )
        mesh = make_mesh(Mesh())
        made = Program(resolve(recipe), mesh, looping, donate=True)
        feed = Streamed(made.resolved, batch_sharding(mesh), lambda _: lambda _: None)
        return made.compile(feed, scan=False).function.memory_analysis().temp_size_in_bytes

    def looping(*arguments: Any, **kept: Any) -> Any:
        return train_step(*arguments, **(kept | {"unroll": False}))

    assert memory(4) < memory(1) / 2
