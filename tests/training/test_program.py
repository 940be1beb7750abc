"""The first state of a run, and what is made on the way to it."""

import dataclasses
import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import optax

from imgclf import Data, Mesh, Model, Recipe, models
from imgclf.data import Digits
from imgclf.optimizers import Optimizer
from imgclf.recipe import resolve
from imgclf.training.mesh import make_mesh
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
