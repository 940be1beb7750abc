"""What the families that end in a `PooledHead` have in common."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models

TWO_STAGES = {
    "regnety_002": {"depths": (1, 2), "widths": (8, 16), "group_size": 4, "zero_init_last": False},
    "repvgg_b1g4": {"depths": (1, 2), "widths": (8, 16), "stem_width": 8},
    "gernet_s": {
        "design": (("basic", 2, 8, 2), ("bottleneck", 2, 16, 2)),
        "zero_init_last": False,
        "last_width": 24,
    },
    "ese_vovnet19b_dw": {
        "depths": (1, 2),
        "inner_widths": (8, 8),
        "widths": (8, 16),
        "stem_widths": (4, 4, 8),
    },
    "tresnet_m": {"depths": (1, 2), "width": 4, "basic_stages": 1, "zero_init_last": False},
    "nf_resnet26": {"depths": (1, 2), "widths": (8, 16), "stem_width": 8, "zero_init_last": False},
    "dm_nfnet_f0": {
        "depths": (1, 2),
        "widths": (16, 32),
        "stem_width": 16,
        "last_width": 24,
        "group_size": 4,
        "zero_init_last": False,
    },
}
ODD = {"tresnet_m": 20}
"""Widths, in px, of images of which maps are odd; of squares of pixels alone those are."""
every = pytest.mark.parametrize("name", TWO_STAGES)


@pytest.fixture
def made(weights):
    def make(name):
        create = partial(models.create, name, 10, **TWO_STAGES[name])
        return create, weights(create(), jnp.zeros((1, 32, 32, 3)))

    return make


@every
@pytest.mark.parametrize("option", ["drop_rate", "stochastic_depth"])
def test_what_is_dropped_is_dropped_in_training_only(made, answer, name, option):
    create, given = made(name)
    images = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))

    def logits(network, train, key):
        return answer(network, *given, images, train, key).logits

    plain, dropping = create(), create(**{option: 0.5})
    one, two = jax.random.key(1), jax.random.key(2)
    np.testing.assert_array_equal(logits(dropping, False, one), logits(plain, False, one))
    assert np.abs(logits(dropping, True, one) - logits(dropping, True, two)).max() > 1e-5


@every
def test_a_dense_one_gives_a_map_whose_single_place_is_the_pooled_answer(made, answer, name):
    create, given = made(name)

    def logits(network, images):
        return answer(network, *given, images).logits

    small = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    dense = logits(create(dense=True), small)
    assert dense.shape == (2, 1, 1, 10)
    np.testing.assert_allclose(dense[:, 0, 0], logits(create(), small), rtol=1e-4, atol=1e-6)
    large = jnp.zeros((1, 40, ODD.get(name, 17), 3))
    batch, height, width, classes = jax.eval_shape(partial(logits, create(dense=True)), large).shape
    assert (batch, height, classes) == (1, 5, 10)
    assert width in (2, 3)


@every
def test_it_computes_in_the_type_of_the_images_and_answers_in_float32(made, answer, name):
    create, given = made(name)
    network = create(dtype="bfloat16")
    images = jax.random.normal(jax.random.key(1), (2, 40, ODD.get(name, 33), 3))
    outputs = answer(network, *given, images, capture=network.stages)
    assert {stage.dtype for stage in outputs.captured.values()} == {jnp.dtype("bfloat16")}
    assert (outputs.logits.dtype, outputs.features.dtype) == (jnp.float32, jnp.float32)
    assert np.isfinite(outputs.logits).all()
