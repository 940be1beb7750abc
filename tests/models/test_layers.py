from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import UserError
from imgclf.models.layers import (
    ActivationName,
    BatchNorm,
    Conv,
    Dense,
    activations,
    global_average,
    max_pool,
    space_to_depth,
    truncated_normal,
)

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [(8, 3, 1, 8), (8, 3, 2, 4), (9, 7, 2, 5), (8, 1, 2, 4)],
)
def test_convolution_is_the_sum_over_a_window_padded_alike_on_both_sides(
    size, kernel, stride, expected
):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1, size, size, 2)).astype(np.float32)
    weights = rng.normal(size=(kernel, kernel, 2, 3)).astype(np.float32)
    y = Conv(3, kernel, stride).apply({"params": {"kernel": weights}}, x)
    pad = kernel // 2
    padded = np.pad(x[0], ((pad, pad), (pad, pad), (0, 0)))
    assert y.shape == (1, expected, expected, 3)
    for row, column in ((0, 0), (expected - 1, 1)):
        window = padded[row * stride :, column * stride :][:kernel, :kernel]
        sums = np.einsum("hwi,hwio->o", window, weights)
        np.testing.assert_allclose(y[0, row, column], sums, rtol=1e-4, atol=1e-4)


def test_groups_divide_the_inputs_and_a_bias_is_there_on_request():
    x = jnp.ones((1, 4, 4, 6))
    variables = jax.eval_shape(Conv(9, 3, groups=3, use_bias=True).init, KEY, x)
    assert jax.tree.map(jnp.shape, variables["params"]) == {"kernel": (3, 3, 2, 9), "bias": (9,)}


def test_no_value_of_a_truncated_normal_is_far_out():
    values = truncated_normal(0.02)(KEY, (2**25,))  # A float32 uniform draw has 2**23 values.
    assert np.abs(values).max() <= 0.1
    assert np.std(values) == pytest.approx(0.02, rel=1e-3)


def test_batch_norm_is_pytorchs_in_training():
    x = np.random.default_rng(0).normal(3, 2, (4, 3, 5, 2)).astype(np.float32)
    norm = BatchNorm()
    y, changed = norm.apply(norm.init(KEY, x, True), x, True, mutable=["batch_stats"])
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-5)
    stats = changed["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * var * 60 / 59, rtol=1e-5)


def test_batch_norm_uses_the_running_statistics_in_evaluation():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    stats = {"mean": jnp.array([1.0, 2.0]), "var": jnp.array([4.0, 9.0])}
    params = {"scale": jnp.array([2.0, 3.0]), "bias": jnp.array([0.0, 1.0])}
    y = BatchNorm(epsilon=0.0).apply({"params": params, "batch_stats": stats}, x, False)
    np.testing.assert_allclose(y, [[0, 1], [2, 3]], rtol=1e-6)


def test_batch_norm_survives_a_large_mean():
    x = 1e4 + jnp.array([[-0.01], [0.01]] * 8)
    norm = BatchNorm()
    y, _ = norm.apply(norm.init(KEY, x, True), x, True, mutable=["batch_stats"])
    assert np.all(np.isfinite(y))
    assert np.std(y) == pytest.approx(1, rel=0.2)


def test_groups_are_normalised_as_if_each_were_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (6, 3, 5, 2)).astype(np.float32)
    x *= np.arange(1, 7, dtype=np.float32).reshape(6, 1, 1, 1)
    weight = rng.normal(size=x.shape).astype(np.float32)
    variables = BatchNorm().init(KEY, x, True)
    variables["params"]["scale"] += 0.5

    def run(groups, x, weight):
        def loss(params, x):
            given = {"params": params, "batch_stats": variables["batch_stats"]}
            y, changed = BatchNorm(groups=groups).apply(given, x, True, mutable=["batch_stats"])
            return (y * weight).sum(), (y, changed["batch_stats"])

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], x)

    (params, of_x), (y, stats) = run(3, x, weight)
    alone = [run(1, x[i : i + 2], weight[i : i + 2]) for i in (0, 2, 4)]
    np.testing.assert_allclose(y, np.concatenate([each[1][0] for each in alone]), atol=1e-5)
    np.testing.assert_allclose(of_x, np.concatenate([each[0][1] for each in alone]), atol=1e-5)
    for name, value in params.items():
        expected = sum(each[0][0][name] for each in alone)
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)
    for name, value in stats.items():
        expected = np.mean([each[1][1][name] for each in alone], axis=0)
        np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize("groups", [4, 0, 12])
def test_groups_that_do_not_divide_the_batch_are_refused_in_training_alone(groups):
    x = jnp.ones((6, 2, 2, 3))
    norm = BatchNorm(groups=groups)
    variables = norm.init(KEY, x[:1], True)
    assert norm.apply(variables, x, False).shape == x.shape
    with pytest.raises(UserError, match=rf"`batch_groups` .* \(={groups}\) .* \(=6\)"):
        norm.apply(variables, x, True, mutable=["batch_stats"])


def test_layers_compute_in_their_inputs_type_and_keep_float32_parameters():
    x = jnp.ones((2, 4, 4, 3), jnp.bfloat16)
    for layer, arguments in ((Conv(4), (x,)), (Dense(4), (x,)), (BatchNorm(), (x, True))):

        def run(layer=layer, arguments=arguments):
            variables = layer.init(KEY, *arguments)
            return variables, *layer.apply(variables, *arguments, mutable=["batch_stats"])

        variables, y, changed = jax.eval_shape(run)
        assert y.dtype == jnp.bfloat16
        kept = jax.tree.leaves((variables, changed))
        assert {leaf.dtype for leaf in kept} == {np.dtype("float32")}


def test_options_take_the_names_of_all_activations():
    assert {*get_args(ActivationName)} == {*activations.NAMED}


def test_padding_never_wins_a_maximum():
    x = -jnp.ones((1, 4, 4, 1))
    np.testing.assert_array_equal(max_pool(x, 3, 2, padding=1), -jnp.ones((1, 2, 2, 1)))


def test_the_global_average_is_float32():
    y = global_average(jnp.ones((2, 3, 5, 4), jnp.bfloat16))
    assert (y.shape, y.dtype) == ((2, 4), jnp.float32)


def test_channels_of_a_place_are_those_of_a_squares_pixels_row_by_row():
    x = np.random.default_rng(0).normal(size=(2, 8, 12, 3)).astype(np.float32)
    y = space_to_depth(jnp.asarray(x), 4)
    assert y.shape == (2, 2, 3, 48)
    for row in range(2):
        for column in range(3):
            square = x[:, 4 * row :, 4 * column :][:, :4, :4]
            np.testing.assert_array_equal(y[:, row, column], square.reshape(2, 48))
    with pytest.raises(UserError, match=r"\(=4\) must divide .*; got 8 x 10 px$"):
        space_to_depth(jnp.zeros((1, 8, 10, 3)), 4)
