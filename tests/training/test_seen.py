"""The sheet shows what a step is given, and nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from imgclf.augmentation import Flip, MixupOrCutmix, Translate, compose
from imgclf.recipe import load, resolve
from imgclf.training.feed import Streamed
from imgclf.training.mesh import batch_sharding, make_mesh
from imgclf.training.seen import seen
from imgclf.training.sheet import label_in_words
from imgclf.training.state import State
from imgclf.training.step import train_step


@pytest.fixture
def resolved(tmp_path):
    """Photographs of varying size in batches of 4, flipped and mixed, in 40 steps."""
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(5):
            image = Image.fromarray(rng.integers(0, 256, (30 + i, 40, 3), np.uint8))
            image.save(tmp_path / name / f"{i}.png")
    from imgclf import Steps
    from imgclf.data import Folder

    recipe = load("imagenette").recipe
    source = Folder(str(tmp_path))
    data = dataclasses.replace(recipe.data, train=source, evaluate={}, batch_size=4)
    model = dataclasses.replace(recipe.model, network="cnn", dtype="float32")
    preprocess = dataclasses.replace(model.preprocess, size=16)
    model = dataclasses.replace(model, preprocess=preprocess)
    augment = (Flip(), Translate(2), MixupOrCutmix())
    return resolve(
        dataclasses.replace(
            recipe, data=data, model=model, augment=augment, length=Steps(40), best="", seed=3
        )
    )


class _GivenError(Exception):
    """Carries out of the step what its task is given."""


def given(resolved, step):
    """What `train_step` itself hands to the task in step `step`."""

    class Spy:
        def loss(self, network, params, model_state, batch, key, progress):
            raise _GivenError({name: np.asarray(value) for name, value in batch.items()})

    recipe = resolved.recipe
    feed = Streamed(resolved, batch_sharding(make_mesh(recipe.mesh)), lambda _: lambda _: None)
    (batch,) = feed.batches(step, step + 1)
    state = State(jnp.int32(step), {"w": jnp.zeros(())}, {}, None, None)
    with pytest.raises(_GivenError) as caught:
        train_step(
            state,
            batch,
            network=resolved.network,
            task=Spy(),
            augment=jax.jit(compose(recipe.augment, 2)),
            optimizer=None,
            seed=recipe.seed,
            steps=resolved.steps,
        )
    return caught.value.args[0]


def test_the_first_draw_is_what_the_step_is_given_and_the_next_ones_differ(resolved):
    found, real = seen(resolved, images=3, draws=3, step=7), given(resolved, 7)
    expected = np.clip(np.rint(real["image"][:3]), 0, 255)
    np.testing.assert_array_equal(found.drawn[0], expected)
    np.testing.assert_array_equal(found.drawn_labels[0], real["label"][:3])
    assert found.drawn.shape == (3, 3, 16, 16, 3) and found.drawn_labels.shape == (3, 3, 2)
    assert (found.drawn[0] != found.drawn[1]).any() and (found.drawn[1] != found.drawn[2]).any()


def test_names_labels_and_stored_images_belong_together(resolved):
    found = seen(resolved, images=99, draws=1)
    assert len(found.names) == len(found.stored) == len(found.labels) == 4
    for name, image, label in zip(found.names, found.stored, found.labels, strict=True):
        with Image.open(f"{resolved.recipe.data.train.path}/{name}") as opened:
            np.testing.assert_array_equal(np.asarray(opened), image)
        assert resolved.classes[label] == name.split("/")[0]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (np.int32(1), "dog"),
        ([0, 1, 0], "dog"),
        ([0.3, 0.7, 0], "0.7 dog + 0.3 cat"),
        ([0.98, 0.02, 0], "cat"),
        ([1, 0, 1], "1 cat + 1 cow"),
        ([0, 0, 0], "none"),
    ],
)
def test_labels_are_said_as_shares_where_they_are_mixed(label, words):
    assert label_in_words(np.asarray(label), ("cat", "dog", "cow")) == words
