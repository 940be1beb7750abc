"""MobileNets, MnasNets and EfficientNets: one network, many tables."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.models.efficient_blocks import EdgeResidual, Row, Style
from imgclf.models.efficient_network import scaled
from imgclf.models.layers import blur_pool

NARROW = {"width": 0.25, "depth": 0.1, "stem_width": 8, "head_width": 16}
IMAGES = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("mobilenetv1_100", ""),
        ("mobilenetv3_small_100", "blocks.5"),
        pytest.param("mobilenetv2_100", "", marks=pytest.mark.slow),
        pytest.param("mobilenetv3_large_100", "blocks.6", marks=pytest.mark.slow),
        pytest.param("mobilenetv4_conv_small", "blocks.4", marks=pytest.mark.slow),
        pytest.param("mnasnet_100", "", marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", "", marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_b0", "", marks=pytest.mark.slow),
        pytest.param("tf_efficientnet_lite0", "", marks=pytest.mark.slow),
        pytest.param("tf_efficientnetv2_s", "", marks=pytest.mark.slow),
        pytest.param("efficientnetv2_rw_t", "", marks=pytest.mark.slow),
    ],
)
def test_weights_by_formula_give_timms_answers(same_as_reference, name, last):
    same_as_reference(name, last=last)


def narrow(name, **options):
    return models.create(name, 10, **(NARROW | options))


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("efficientnet_b1", (2, 3, 3, 4, 4, 5, 2)),
        ("efficientnet_lite4", (1, 4, 4, 6, 6, 8, 1)),
        ("mobilenetv2_120d", (1, 3, 5, 6, 5, 5, 1)),
        ("efficientnetv2_rw_t", (2, 4, 4, 6, 9, 14)),
    ],
)
def test_depths_are_rounded_up_and_the_ends_of_some_kept(name, blocks):
    shapes, _ = jax.eval_shape(models.create(name, 10).initialise, jax.random.key(0), IMAGES)
    stages = shapes["blocks"]
    assert tuple(len(stages[str(i)]) for i in range(len(stages))) == blocks


def test_further_repeats_go_to_the_last_rows_first():
    module = models.create("mobilenetv3_large_150d", 10).module
    table = scaled(module.table, module.width, module.depth, module.style.act)
    assert [row.expansion for row in table[3]] == [6, 2.5, 2.5, 2.3, 2.3]
    assert [row.stride for row in table[3]] == [2, 1, 1, 1, 1]


@pytest.mark.parametrize("option", ["drop_rate", "stochastic_depth"])
def test_what_is_random_is_so_in_training_only(option, answer, weights):
    plain = narrow("mobilenetv2_100", depth=0.3)
    random = narrow("mobilenetv2_100", **{"depth": 0.3, option: 0.5})
    given = weights(plain, IMAGES)
    images = jax.random.normal(jax.random.key(1), (4, 64, 64, 3))

    def logits(network, train, seed):
        return answer(network, *given, images, train, jax.random.key(seed)).logits

    np.testing.assert_array_equal(logits(random, False, 0), logits(plain, False, 0))
    assert np.abs(logits(random, True, 0) - logits(random, True, 1)).max() > 1e-4


@pytest.mark.parametrize("name", ["mobilenetv1_100", "mobilenetv4_conv_small", "efficientnet_b0"])
def test_a_dense_network_says_at_one_place_what_a_pooling_one_says_of_the_image(
    name, answer, weights
):
    pooling, dense = narrow(name), narrow(name, dense=True)
    given = weights(pooling, IMAGES)
    images = jax.random.normal(jax.random.key(1), (2, 96, 70, 3))
    small = images[:, :32, :32]
    at_place = answer(dense, *given, small).logits
    of_image = answer(pooling, *given, small).logits
    assert at_place.shape == (2, 1, 1, 10)
    np.testing.assert_allclose(at_place[:, 0, 0], of_image, rtol=1e-4, atol=1e-5)
    shapes = jax.eval_shape(partial(answer, dense), *given, images)
    assert shapes.logits.shape == (2, 3, 3, 10)


@pytest.mark.parametrize("name", ["mobilenetv3_small_100", "tf_efficientnetv2_b0"])
def test_bfloat16_gives_finite_float32_logits_near_the_exact_ones(name, answer, weights):
    exact, short = narrow(name), narrow(name, dtype="bfloat16")
    given = weights(exact, IMAGES)
    images = jax.random.normal(jax.random.key(1), (2, 65, 47, 3))
    wanted = answer(exact, *given, images).logits
    outputs = answer(short, *given, images, capture=("blocks.1",))
    assert outputs.captured["blocks.1"].dtype == jnp.bfloat16
    assert outputs.logits.dtype == jnp.float32 and np.isfinite(outputs.logits).all()
    np.testing.assert_allclose(outputs.logits, wanted, atol=0.1 * np.abs(wanted).max())


def test_maps_are_halved_where_the_table_says(answer, weights):
    network = narrow("mobilenetv2_100")
    run = partial(answer, network, capture=network.stages)
    outputs = jax.eval_shape(run, *weights(network, IMAGES), IMAGES)
    sides = [outputs.captured[stage].shape[1] for stage in network.stages]
    assert sides == [32, 16, 8, 4, 4, 2, 2]


def test_antialiasing_takes_the_place_of_strides(quickly):
    names = ("", "average", "blur")
    row = Row(EdgeResidual, 1, 3, 2, 8, act="relu")
    x = jax.random.normal(jax.random.key(1), (1, 8, 8, 8))
    blocks = {name: EdgeResidual(row, Style(antialias=name)) for name in names}
    variables = quickly(lambda key: blocks[""].init(key, x, False))(jax.random.key(0))
    maps = quickly(
        lambda: {name: each.apply(variables, x, False) for name, each in blocks.items()}
    )()
    assert {y.shape for y in maps.values()} == {(1, 4, 4, 8)}
    assert np.abs(maps[""] - maps["average"]).max() > 0.01
    assert np.abs(maps["blur"] - maps["average"]).max() > 0.01


def test_a_blurred_constant_stays_so_inside_and_a_point_becomes_the_kernel():
    x = jnp.zeros((1, 7, 7, 2)).at[0, 2, 2, 0].set(1.0).at[..., 1].set(3.0)
    y = blur_pool(x, 2, edges="constant")
    assert y.shape == (1, 4, 4, 2)
    np.testing.assert_allclose(y[0, 1:3, 1:3, 1], 3.0)
    np.testing.assert_allclose(y[0, 0, 0, 1], 3.0 * 9 / 16)
    np.testing.assert_allclose(y[0, :3, :3, 0], [[0, 0, 0], [0, 0.25, 0], [0, 0, 0]])
    every = blur_pool(x, 1, edges="constant")[0, 1:4, 1:4, 0]
    np.testing.assert_allclose(every, np.outer([1, 2, 1], [1, 2, 1]) / 16)
