from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models

SMALL = {"widths": (8, 16), "depths": (1, 2)}
KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "name",
    [
        "convnextv2_atto",
        pytest.param("convnext_tiny", marks=pytest.mark.slow),
        pytest.param("convnextv2_tiny", marks=pytest.mark.slow),
    ],
)
def test_weights_by_formula_give_timms_answers(same_as_reference, name):
    same_as_reference(name, last="stages.3")


def test_only_the_first_version_has_layer_scale_and_linear_layers():
    images = jnp.zeros((1, 32, 32, 3))
    networks = [models.create(name, 10, **SMALL) for name in ("convnext_tiny", "convnextv2_atto")]
    params = [jax.eval_shape(each.initialise, KEY, images)[0] for each in networks]
    blocks = [each["stages"]["1"]["blocks"]["0"] for each in params]
    assert ["gamma" in block for block in blocks] == [True, False]
    assert blocks[0]["mlp"]["fc1"]["kernel"].shape == (16, 64)
    assert blocks[1]["mlp"]["fc1"]["kernel"].shape == (1, 1, 16, 64)


def test_the_classifier_at_the_only_place_is_the_classifier_of_the_mean(answer, weights):
    network, dense = (models.create("convnext_tiny", 5, dense=d, **SMALL) for d in (False, True))
    images = jax.random.normal(KEY, (2, 8, 8, 3))
    given = weights(network, jnp.zeros((1, 32, 32, 3)))
    places = answer(dense, *given, images).logits
    assert places.shape == (2, 1, 1, 5)
    np.testing.assert_allclose(places[:, 0, 0], answer(network, *given, images).logits, atol=1e-6)
    larger = jax.eval_shape(partial(answer, dense), *given, jnp.zeros((1, 24, 41, 3)))
    assert larger.logits.shape[1:3] == (3, 5)


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_atto_ols", "convnextv2_atto"])
def test_bfloat16_gives_finite_float32_logits(name, answer, weights):
    network = models.create(name, 5, dtype="bfloat16", **SMALL)
    images = jax.random.normal(KEY, (2, 44, 60, 3))
    logits = answer(network, *weights(network, images), images).logits
    assert logits.dtype == jnp.float32
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("option", ["drop_rate", "stochastic_depth"])
def test_dropout_and_stochastic_depth_act_in_training_only(option, answer, weights):
    options = SMALL | {"layer_scale": 1.0}
    plain = models.create("convnext_tiny", 5, **options)
    network = models.create("convnext_tiny", 5, **options, **{option: 0.5})
    images = jax.random.normal(KEY, (4, 32, 32, 3))
    given = weights(network, images)

    def logits(network, train):
        return answer(network, *given, images, train, KEY).logits

    np.testing.assert_array_equal(logits(network, False), logits(plain, False))
    assert np.abs(logits(network, True) - logits(plain, True)).max() > 1e-4
