import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models


def test_weights_by_formula_give_timms_answers(same_as_reference):
    same_as_reference("gernet_s")


def test_it_begins_as_timms():
    design = (("basic", 1, 32, 2), ("bottleneck", 1, 128, 2), ("depthwise", 1, 128, 2))
    network = models.create("gernet_s", 100, design=design, last_width=64)
    params, _ = network.initialise(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    basic, bottleneck, depthwise = (params["stages"][str(i)]["0"] for i in range(3))
    assert bottleneck["conv2_kxk"]["conv"]["kernel"].shape == (3, 3, 32, 32)
    kernel = depthwise["conv2_kxk"]["conv"]["kernel"]
    assert kernel.shape == (3, 3, 1, 384)
    assert np.std(kernel) == pytest.approx((2 / 9) ** 0.5, rel=0.05)
    assert np.std(basic["conv2_kxk"]["conv"]["kernel"]) == pytest.approx(
        (2 / (9 * 32)) ** 0.5, rel=0.05
    )
    np.testing.assert_array_equal(basic["conv2_kxk"]["bn"]["scale"], 0)
    np.testing.assert_array_equal(bottleneck["conv3_1x1"]["bn"]["scale"], 0)
    np.testing.assert_array_equal(bottleneck["shortcut"]["bn"]["scale"], 1)
    assert np.std(params["head"]["fc"]["kernel"]) == pytest.approx(0.01, rel=0.05)
    np.testing.assert_array_equal(params["head"]["fc"]["bias"], 0)
