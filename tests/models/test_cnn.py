import jax
import jax.numpy as jnp
import pytest

from imgclf import models


@pytest.mark.parametrize(("size", "stages"), [(8, 2), (15, 2), (16, 3), (28, 3), (32, 4), (224, 4)])
def test_larger_images_get_more_stages(size, stages):
    network = models.create("cnn", 10, width=4)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    params, _ = jax.eval_shape(network.initialise, jax.random.key(0), images)
    assert sorted(params) == ["fc", *(f"stage{i + 1}" for i in range(stages))]
    assert params["fc"]["kernel"].shape == (4 * 2 ** (stages - 1), 10)
