import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.errors import UserError

KEY = jax.random.key(0)
TINY = {"depth": 2, "width": 32, "patch": 8}
ONE_OF_EACH = ["mixer_s16_224", "gmixer_12_224", "resmlp_12_224", "gmlp_ti16_224"]


@pytest.mark.parametrize(
    "name", ["mixer_s32_224", pytest.param("resmlp_12_224", marks=pytest.mark.slow)]
)
def test_weights_by_formula_give_timms_answers(same_as_reference, name):
    same_as_reference(name)


def test_branches_of_a_deeper_resmlp_begin_smaller():
    network = models.create("resmlp_24_224", 10, **TINY)
    params, _ = network.initialise(KEY, jnp.ones((1, 32, 32, 3)))
    np.testing.assert_array_equal(params["blocks"]["1"]["ls1"], np.float32(1e-5))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_images_of_another_size_are_refused_by_their_patches(name, weights):
    network = models.create(name, 5, **TINY)
    params, state = weights(network, jnp.ones((1, 32, 32, 3)))
    with pytest.raises(UserError, match=r"as many patches of 8 px .* \(=16\); got 20, of 40 x 32"):
        network.apply(params, state, jnp.ones((1, 40, 32, 3)), train=False)
    with pytest.raises(UserError, match=r"`patch` of a mixer \(=8\) must divide .* got 36 x 32 px"):
        network.apply(params, state, jnp.ones((1, 36, 32, 3)), train=False)
    with pytest.raises(UserError, match="must be at least 8 x 8 px; got 8 x 4"):
        network.initialise(KEY, jnp.ones((1, 8, 4, 3)))


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_random_parts_act_in_training_only_and_bfloat16_gives_finite_float32(name, answer, weights):
    options = TINY | {"stochastic_depth": 0.5, "drop_rate": 0.5, "zero_init_head": False}
    network = models.create(name, 5, dtype="bfloat16", **options)
    images = jax.random.normal(KEY, (4, 32, 32, 3))
    given = weights(network, images)

    def logits(train, seed):
        return answer(network, *given, images, train, jax.random.key(seed)).logits

    assert logits(False, 0).dtype == jnp.float32
    assert np.isfinite(logits(False, 0)).all()
    np.testing.assert_array_equal(logits(False, 0), logits(False, 1))
    assert np.any(logits(True, 0) != logits(True, 1))
