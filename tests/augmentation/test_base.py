"""How augmentations become one function."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf.augmentation import Augmentation, Flip, Mixup, Translate, compose, example_keys
from imgclf.errors import UserError


@dataclass(frozen=True)
class Brighten(Augmentation):
    """Adds the training's progress; and a person's own kind, too."""

    amount: int = 100

    def __call__(self, key, batch, progress):
        return {**batch, "image": batch["image"] + (self.amount * progress).astype(jnp.uint8)}


@dataclass(frozen=True)
class Note(Augmentation):
    """Adds its random number to those noted."""

    def __call__(self, key, batch, progress):
        return {**batch, "noted": [*batch.get("noted", []), jax.random.bits(key)]}


def batch_of(n=4):
    return {"image": jnp.zeros((n, 8, 8, 3), jnp.uint8), "label": jnp.arange(n) % 3}


def test_own_kind_is_called_with_the_progress():
    result = compose((Brighten(), Brighten(10)), 3)(jax.random.key(0), batch_of(), jnp.float32(0.5))
    assert (result["image"] == 55).all()


def test_two_of_a_kind_draw_different_numbers():
    result = compose((Note(), Note()), 3)(jax.random.key(0), batch_of(), jnp.float32(0))
    assert result["noted"][0] != result["noted"][1]


def test_what_comes_before_keeps_its_numbers_when_one_is_added():
    key, progress = jax.random.key(0), jnp.float32(0)
    alone = compose((Note(),), 3)(key, batch_of(), progress)["noted"]
    first = compose((Note(), Translate()), 3)(key, batch_of(), progress)["noted"]
    assert alone == first


def test_labels_become_one_hot_only_where_they_are_mixed():
    key, progress = jax.random.key(0), jnp.float32(0)
    kept = compose((Flip(), Translate()), 3)(key, batch_of(), progress)["label"]
    assert kept.tolist() == [0, 1, 2, 0] and kept.dtype == jnp.int32
    soft = compose((Flip(), Mixup(p=0.0)), 3)(key, batch_of(), progress)["label"]
    np.testing.assert_array_equal(soft, np.eye(3)[[0, 1, 2, 0]])


def test_no_augmentation_hands_the_batch_on():
    batch = batch_of()
    assert compose((), 3)(jax.random.key(0), batch, jnp.float32(0)) is batch


def test_class_in_place_of_a_value_is_an_error():
    with pytest.raises(UserError, match=r"must hold augmentations, such as Flip\(\); got"):
        compose((Flip,), 3)  # type: ignore[arg-type]


def test_every_example_has_a_key_of_its_own_that_its_place_decides():
    key = jax.random.key(0)
    bits = jax.vmap(jax.random.bits)(example_keys(key, 64))
    assert len(set(bits.tolist())) == 64
    np.testing.assert_array_equal(jax.vmap(jax.random.bits)(example_keys(key, 8)), bits[:8])


def test_mixture_called_without_compose_says_what_it_takes():
    with pytest.raises(UserError, match="takes labels as float32"):
        Mixup()(jax.random.key(0), batch_of(), jnp.float32(0))
