import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models


def test_weights_by_formula_give_timms_answers(same_as_reference):
    same_as_reference("ese_vovnet19b_dw")


def test_it_begins_as_timms():
    options = {"depths": (1, 1), "inner_widths": (64, 64), "widths": (64, 128)}
    network = models.create("ese_vovnet19b", 100, **options)
    params, _ = network.initialise(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    block = params["stages"]["1"]["blocks"]["0"]
    kernel = block["conv_mid"]["0"]["conv"]["kernel"]
    assert np.std(kernel) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    weigh = block["attn"]["fc"]
    assert np.std(weigh["kernel"]) == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    assert 0.9 * 128**-0.5 < np.abs(weigh["bias"]).max() <= 128**-0.5
    linear = params["head"]["fc"]
    assert 0.9 * 128**-0.5 < np.abs(linear["kernel"]).max() <= 128**-0.5
    np.testing.assert_array_equal(linear["bias"], 0)


@pytest.mark.parametrize(("name", "attention"), [("ese_vovnet39b", True), ("vovnet39a", False)])
def test_only_the_last_block_of_a_stage_of_the_second_version_has_attention(name, attention):
    network = models.create(name, 10)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params, _ = jax.eval_shape(network.initialise, jax.random.key(0), images)
    blocks = params["stages"]["2"]["blocks"]
    assert ["attn" in blocks[i] for i in ("0", "1")] == [False, attention]
