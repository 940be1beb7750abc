"""The step against the same arithmetic written out by hand."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from imgclf import Average
from imgclf.augmentation import Mixup, compose
from imgclf.losses import CrossEntropy
from imgclf.models.network import Network
from imgclf.optimizers import SGD
from imgclf.preprocess import PLAIN
from imgclf.tasks import Classify, normalise
from imgclf.training.program import average_decay
from imgclf.training.state import State, initial_state
from imgclf.training.step import gradients, train_step


class Linear(nn.Module):
    statistics: bool = False

    @nn.compact
    def __call__(self, images: Any, train: bool) -> Any:
        x = images.reshape(len(images), -1)
        if self.statistics:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)
        return nn.Dense(3)(x)


def parts(statistics: bool = False, **changes: Any) -> tuple[State, dict[str, Any]]:
    network = Network(Linear(statistics), PLAIN, 3, "linear")
    task = Classify(CrossEntropy())
    optimizer = SGD(momentum=0.0, nesterov=False).build(lambda step: 0.1, None)
    state = initial_state(
        0,
        batch(),
        task=task,
        network=network,
        optimizer=lambda params: optimizer,
        averaged="decay" in changes,
    )
    augment = compose((), 3)
    kept = {"network": network, "task": task, "augment": augment, "optimizer": optimizer}
    return state, kept | {"seed": 0, "steps": 10} | changes


def batch(rows: int = 8, masked: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (rows, 2, 2, 1), dtype=np.uint8),
        "label": rng.integers(0, 3, rows).astype(np.int32),
        "mask": np.arange(rows) < rows - masked,
    }


def close(a: Any, b: Any, tolerance: float = 1e-6) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance), a, b)


def test_the_step_is_one_gradient_descent_update() -> None:
    state, kept = parts()

    def loss(params: Any) -> jax.Array:
        x = normalise(batch()["image"], PLAIN).reshape(8, -1)
        logits = x @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
        true = jnp.take_along_axis(jax.nn.log_softmax(logits), batch()["label"][:, None], 1)
        return -true.mean()

    gradient = jax.grad(loss)(state.params)
    new, metrics = train_step(state, batch(), **kept)
    close(new.params, jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradient))
    assert int(new.step) == 1 and new.average is None
    np.testing.assert_allclose(metrics["loss"], loss(state.params), rtol=1e-6)
    np.testing.assert_allclose(metrics["gradient_norm"], optax.tree.norm(gradient), rtol=1e-5)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("masked", [0, 3])
def test_accumulation_is_the_gradient_of_the_whole_batch_even_when_masks_are_unequal(
    masked: int, unroll: bool
) -> None:
    state, kept = parts()
    loss = partial(Classify().loss, kept["network"], progress=jnp.float32(0))
    key = jax.random.key(0)
    whole = gradients(loss, state, batch(8, masked), key, 1)
    in_parts = gradients(loss, state, batch(8, masked), key, 4, unroll)
    close(whole[0], in_parts[0])
    close(whole[2], in_parts[2])


def test_batch_statistics_go_from_micro_batch_to_micro_batch_in_order() -> None:
    state, kept = parts(statistics=True)
    loss = partial(Classify().loss, kept["network"], progress=jnp.float32(0))
    _, model_state, _ = gradients(loss, state, batch(), jax.random.key(0), 2)
    mean = jnp.zeros(4)
    images = normalise(batch()["image"], PLAIN).reshape(8, -1)
    for i in range(2):
        mean = 0.5 * mean + 0.5 * images[i::2].mean(0)
    close(model_state["batch_stats"]["BatchNorm_0"]["mean"], mean)


def test_the_average_takes_parameters_and_statistics_alike_with_its_warm_up() -> None:
    decay = average_decay(Average(decay=0.99))
    state, kept = parts(statistics=True, decay=decay)
    close(state.average, (state.params, state.model_state))
    new, _ = train_step(state, batch(), **kept)
    expected = jax.tree.map(
        lambda old, now: 0.1 * old + 0.9 * now,
        (state.params, state.model_state),
        (new.params, new.model_state),
    )
    close(new.average, expected)
    assert new.evaluated is new.average
    assert decay is not None and float(decay(jnp.int32(10_000))) == pytest.approx(0.99)
    assert average_decay(Average()) is None


def test_random_numbers_depend_on_seed_and_step_alone() -> None:
    state, kept = parts(augment=compose((Mixup(),), 3))
    first = train_step(state, batch(), **kept)[0].params
    close(first, train_step(state, batch(), **kept)[0].params, 0)
    later = dataclasses.replace(state, step=state.step + 1)
    for other in (
        train_step(state, batch(), **(kept | {"seed": 1}))[0].params,
        train_step(later, batch(), **kept)[0].params,
    ):
        assert not np.array_equal(other["Dense_0"]["kernel"], first["Dense_0"]["kernel"])


def test_the_step_may_be_donated_with_an_average_that_begins_as_the_parameters() -> None:
    state, kept = parts(decay=average_decay(Average(0.9)))
    step = jax.jit(partial(train_step, **kept), donate_argnums=0)
    new, _ = step(state, batch())
    assert int(step(new, batch())[0].step) == 2
