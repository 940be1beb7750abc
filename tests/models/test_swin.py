import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models

NAME = "swin_tiny_patch4_window7_224"
SMALL = {"width": 8, "depths": (2, 2), "heads": (2, 2), "windows": (4, 4)}
KEY = jax.random.key(0)


def test_weights_by_formula_give_timms_answers(same_as_reference):
    same_as_reference(NAME)


@pytest.mark.parametrize("shape", [(32, 32), (36, 52), (40, 100)])
def test_one_set_of_weights_takes_images_of_any_size(shape, answer, weights):
    network = models.create(NAME, 5, dtype="bfloat16", **SMALL)
    given = weights(network, jnp.zeros((1, 64, 64, 3)))
    images = jax.random.normal(KEY, (2, *shape, 3))
    last = network.module.stages[-1]
    outputs = answer(network, *given, images, capture=(last,))
    assert outputs.logits.dtype == jnp.float32
    assert np.isfinite(outputs.logits).all()
    assert outputs.captured[last].shape == (2, -(-shape[0] // 8), -(-shape[1] // 8), 16)


@pytest.mark.parametrize("option", ["drop_rate", "stochastic_depth"])
def test_dropout_and_stochastic_depth_act_in_training_only(option, answer, weights):
    network = models.create(NAME, 5, **SMALL, **{option: 0.5})
    plain = dataclasses.replace(network, module=network.module.clone(**{option: 0.0}))
    images = jax.random.normal(KEY, (4, 32, 32, 3))
    given = weights(network, images)

    def logits(network, train):
        return answer(network, *given, images, train, KEY).logits

    np.testing.assert_array_equal(logits(network, False), logits(plain, False))
    assert np.abs(logits(network, True) - logits(plain, True)).max() > 1e-4
