import jax
import jax.numpy as jnp
import pytest

from imgclf import models


def test_weights_by_formula_give_timms_answers(same_as_reference):
    same_as_reference("ese_vovnet19b_dw")


@pytest.mark.parametrize(("name", "attention"), [("ese_vovnet39b", True), ("vovnet39a", False)])
def test_only_the_last_block_of_a_stage_of_the_second_version_has_attention(name, attention):
    network = models.create(name, 10)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params, _ = jax.eval_shape(network.initialise, jax.random.key(0), images)
    blocks = params["stages"]["2"]["blocks"]
    assert ["attn" in blocks[i] for i in ("0", "1")] == [False, attention]
