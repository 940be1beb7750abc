from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models

KEY = jax.random.key(0)
TINY = {"depths": (1, 1, 1, 1), "widths": (8, 16, 32, 32)}


@pytest.mark.parametrize(
    "name",
    [
        "poolformer_s12",
        pytest.param("caformer_s18", marks=pytest.mark.slow),
        pytest.param("convformer_s18", marks=pytest.mark.slow),
    ],
)
def test_weights_by_formula_give_timms_answers(same_as_reference, name):
    same_as_reference(name, last="stages.3")


@pytest.mark.parametrize("name", ["poolformer_s12", "poolformerv2_s12", "caformer_s18"])
def test_a_dense_one_says_of_a_single_place_what_it_says_of_the_image(name, answer, weights):
    images = jax.random.normal(KEY, (2, 32, 32, 3))
    network = models.create(name, 5, **TINY)
    given = weights(network, images)
    dense = models.create(name, 5, dense=True, **TINY)
    found = jax.eval_shape(partial(answer, dense), *given, images).logits
    assert found.shape == (2, 2, 2, 5)
    small = images[:, :8, :8]
    found = answer(dense, *given, small).logits
    logits = answer(network, *given, small).logits
    np.testing.assert_allclose(found[:, 0, 0], logits, atol=1e-5)


def test_random_parts_act_in_training_only_and_bfloat16_gives_finite_float32(answer, weights):
    options = TINY | {"stochastic_depth": 0.5, "drop_rate": 0.5}
    network = models.create("poolformerv2_s12", 5, dtype="bfloat16", **options)
    images = jax.random.normal(KEY, (4, 40, 33, 3))
    given = weights(network, images)

    def logits(train, seed):
        return answer(network, *given, images, train, jax.random.key(seed)).logits

    assert logits(False, 0).dtype == jnp.float32
    assert np.isfinite(logits(False, 0)).all()
    np.testing.assert_array_equal(logits(False, 0), logits(False, 1))
    assert np.any(logits(True, 0) != logits(True, 1))
