import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models

KEY = jax.random.key(0)


@pytest.mark.slow  # 12 s each
def test_weights_by_formula_give_timms_answers(same_as_reference):
    same_as_reference("resnetv2_50")


@pytest.mark.slow
def test_weights_by_formula_give_those_of_bit(same_as_reference):
    # It magnifies rounding errors, as timm's does.
    same_as_reference("resnetv2_50x1_bit", tolerance=5e-4)


@pytest.mark.parametrize("name", ["resnetv2_18d", "resnetv2_50x1_bit"])
def test_the_forms_act_in_training_only_and_classify_every_place(name, answer, weights):
    options = {"depths": (1, 1), "widths": (128, 256), "stem_width": 32}
    network = models.create(name, 10, **options, stochastic_depth=0.5, drop_rate=0.5)
    images = jax.random.normal(jax.random.key(1), (4, 64, 64, 3))
    given = weights(network, images)

    def logits(key, train):
        return answer(network, *given, images, train, key).logits

    keys = [jax.random.key(i) for i in range(2)]
    assert np.abs(logits(keys[0], True) - logits(keys[1], True)).max() > 0.01
    np.testing.assert_array_equal(logits(keys[0], False), logits(keys[1], False))
    every = models.create(name, 10, **options, dense=True)
    found = answer(every, *given, images).logits
    assert found.shape == (4, 8, 8, 10)
    mean = jnp.asarray(found).mean((1, 2))
    np.testing.assert_allclose(mean, logits(keys[0], False), rtol=1e-4, atol=1e-4)
