import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import Mesh, Model, Preprocess, Recipe, UserError
from imgclf.data import Balanced, Digits, LongTail, Repeated, Sampling, Uniform
from imgclf.recipe import Data, resolve
from imgclf.tasks import Batch
from imgclf.training.feed import Evaluation, Resident, Streamed, is_resident
from imgclf.training.mesh import batch_sharding, make_mesh
from imgclf.training.program import Stepwise

RECIPE = Recipe(
    data=Data(Digits(), {"test": Digits("test")}, batch_size=50, evaluate_batch_size=100),
    model=Model("cnn", dtype="float32"),
)


@pytest.mark.parametrize("sampling", [Uniform(), Balanced(), Repeated(2)])
def test_resident_and_streamed_batches_are_the_same_from_any_start(sampling: Sampling) -> None:
    recipe = dataclasses.replace(RECIPE, data=dataclasses.replace(RECIPE.data, sampling=sampling))
    resolved, sharding = resolve(recipe), batch_sharding(make_mesh(Mesh()))
    for start, stop in ((0, 3), (27, 31)):  # across the end of the first epoch, too
        streamed = list(Streamed(resolved, sharding, lambda _: print).batches(start, stop))
        resident = list(Resident(resolved, sharding).batches(start, stop))
        assert len(streamed) == len(resident) == stop - start
        for a, b in zip(streamed, resident, strict=True):
            assert a.keys() == b.keys() == {"image", "label", "mask"}
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])


def test_an_epoch_shows_every_example_once() -> None:
    feed = Resident(resolve(RECIPE), batch_sharding(make_mesh(Mesh())))
    ids = feed.ids(0, 58)["labelled"].ravel()
    assert sorted(ids[:1437]) == list(range(1437)) == sorted(ids[1437:2874])


def test_a_sampling_of_the_recipe_says_what_is_fed() -> None:
    tail = LongTail(Digits(), 20)
    data = dataclasses.replace(RECIPE.data, train=tail, sampling=Balanced())
    resolved = resolve(dataclasses.replace(RECIPE, data=data))
    feed = Resident(resolved, batch_sharding(make_mesh(Mesh())))
    steps = -(-len(tail) // 50)
    seen = np.bincount(
        tail.labels()[feed.ids(0, steps)["labelled"].ravel()[: len(tail)]], minlength=10
    )
    assert np.ptp(np.bincount(tail.labels())) > 100 and np.ptp(seen) <= 1


def test_evaluation_shows_every_example_once_and_keeps_small_sets() -> None:
    resolved = resolve(RECIPE)
    feed = Evaluation(
        resolved.evaluate["test"],
        RECIPE.data,
        resolved.network.preprocess,
        1,
        batch_sharding(make_mesh(Mesh())),
        print,
    )
    for _ in range(2):
        seen = [ids[ids >= 0] for _, ids in feed.batches()]
        assert np.concatenate(seen).tolist() == list(range(360))
    assert len(feed._kept) == 4


@pytest.mark.parametrize(("choice", "resident"), [("auto", True), ("yes", True), ("no", False)])
def test_small_sets_stay_on_the_device_unless_told_otherwise(choice: str, resident: bool) -> None:
    data = dataclasses.replace(RECIPE.data, resident=choice)  # type: ignore[arg-type]
    assert is_resident(resolve(dataclasses.replace(RECIPE, data=data))) == resident


def test_images_of_other_sizes_cannot_stay_on_the_device() -> None:
    preprocess = Preprocess(size=16)
    recipe = dataclasses.replace(
        RECIPE,
        data=dataclasses.replace(RECIPE.data, resident="yes"),
        model=dataclasses.replace(RECIPE.model, preprocess=preprocess),
    )
    with pytest.raises(UserError, match=r"`Digits` come in other sizes than 16 x 16 x 1"):
        is_resident(resolve(recipe))


def test_the_next_batch_comes_to_the_device_while_a_step_computes() -> None:
    @jax.jit
    def step(state: jax.Array, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Takes a second or more, where a batch takes some milliseconds."""
        state = jax.lax.fori_loop(0, 200, lambda _, x: x @ x * 1e-3, state)
        return state, {"mask": batch["mask"] & (state[0, 0] > 0)}

    feed = Streamed(resolve(RECIPE), batch_sharding(make_mesh(Mesh())), lambda _: print)
    runner = Stepwise(step, feed)
    runner.start(0, 3)
    state, _ = runner.run(jnp.ones((1000, 1000)), 0, 1)  # compiles
    jax.block_until_ready(state)
    state, metrics = runner.run(state, 1, 2)
    runner.run(state, 2, 3)
    assert not metrics["mask"].is_ready()
    runner.close()
