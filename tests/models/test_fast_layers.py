"""Norms and pooling have ways of their own on CPU, which must give what XLA's operations give."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.models.layers import (
    BatchNorm,
    LayerNorm,
    gelu,
    max_pool,
    plain_operations,
    plus,
    relu,
    times,
)
from imgclf.models.layers.channelwise import matmul


def noise(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(1, 2, shape), jnp.float32)


@pytest.fixture(params=["cpu", "gpu"])
def backend(request, monkeypatch):
    """What layers take for the backend; it is the processor that computes."""
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)


@pytest.mark.parametrize(("batch", "groups"), [(6, 1), (16, 1), (8, 2)])
def test_batch_norm_and_its_gradients_are_the_plain_ones(batch, groups, backend):
    x = noise(batch, 5, 3, 4)
    norm = BatchNorm(groups=groups)
    variables = norm.init(jax.random.key(0), x, True)
    variables["batch_stats"]["mean"] = noise(4, seed=3)
    params = {"scale": noise(4), "bias": noise(4, seed=1)}

    def loss(params, x):
        given = {**variables, "params": params}
        y, changed = norm.apply(given, x, True, mutable=["batch_stats"])
        stats = changed["batch_stats"]
        # The statistics, too, so that what goes back through them is seen.
        through = jnp.sin(stats["mean"]).sum() + jnp.square(stats["var"]).sum()
        return (y * noise(*x.shape, seed=2)).sum() + through, (y, stats)

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    got = run(params, x)
    with plain_operations():
        expected = run(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), got, expected)


def test_batch_norm_is_never_blown_up_and_soon_right_far_from_its_running_mean(backend):
    x, norm = 1e4 + noise(64, 8, 8, 4), BatchNorm()
    variables = norm.init(jax.random.key(0), x, True)
    run = jax.jit(lambda variables: norm.apply(variables, x, True, mutable=["batch_stats"]))
    for _ in range(150):
        y, changed = run(variables)
        variables = {**variables, **changed}
        assert np.abs(y).max() < 6
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-3)
    np.testing.assert_allclose(changed["batch_stats"]["var"], 4, rtol=0.1)


@pytest.mark.parametrize("shape", [(3, 5, 24), (2, 4, 3, 24)])
def test_layer_norm_and_its_gradients_are_the_plain_ones(shape, backend):
    x, norm = noise(*shape), LayerNorm()
    params = {"params": {"scale": noise(24, seed=1), "bias": noise(24, seed=3)}}

    def loss(params, x):
        y = norm.apply(params, x)
        return (y * noise(*shape, seed=2)).sum(), y

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    got = run(params, x)
    with plain_operations():
        expected = run(params, x)
        jax.jvp(lambda x: norm.apply(params, x), (x,), (x,))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4), got, expected)


def test_the_variance_of_images_far_from_zero_is_exact_once_the_mean_is_about_known(backend):
    x, norm = 1000 + noise(4, 8, 8, 3), BatchNorm()
    variables = norm.init(jax.random.key(0), x, True)
    variables["batch_stats"]["mean"] = jnp.full(3, 998.0)
    y, _ = norm.apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil"),
    [
        (3, 2, 1, False),
        (2, 2, 0, False),
        (3, 2, 0, True),
        (3, 1, 1, False),
        (3, 2, "SAME", False),
        (2, 3, 0, False),
        (13, 4, 6, False),
    ],
)
@pytest.mark.parametrize("size", [13, 16])
def test_a_maximum_sends_its_gradient_to_the_pixel_that_the_plain_one_does(
    kernel, stride, padding, ceil, size, backend, quickly
):
    x = jnp.round(noise(2, size, size + 1, 3))  # many are equal

    def run(x):
        y, pull = jax.vjp(lambda x: max_pool(x, kernel, stride, padding, ceil), x)
        return y, *pull(noise(*y.shape, seed=1))

    jit = quickly if kernel > 11 else jax.jit  # of so many places each is compiled by itself
    got = jit(run)(x)
    many = jit(jax.vmap(run))(x[None])
    with plain_operations():
        expected = jit(run)(x)
    for a, b, c in zip(got, expected, many, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-5)
        np.testing.assert_allclose(a, c[0], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(6, 4), (6, 5, 4), (16, 5, 4), (6, 5, 3, 4)])
@pytest.mark.parametrize(
    ("function", "size"), [(plus, (4,)), (times, (4,)), (matmul, (4, 3)), (matmul, (4, 9))]
)
def test_gradients_of_what_is_done_with_channels_are_the_plain_ones(function, size, shape, dtype):
    x, weights = noise(*shape).astype(dtype), noise(*size, seed=1)

    def loss(x, weights):
        y = function(x, weights)
        assert y.dtype == dtype
        return (y * noise(*y.shape, seed=2)).sum()

    run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    got = run(x, weights)
    with plain_operations():
        expected = run(x, weights)
    exact = 1e-5 if dtype == "float32" else 0.02
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        a, b = np.float32(a), np.float32(b)
        np.testing.assert_allclose(a, b, rtol=exact, atol=exact * np.abs(b).max())


def test_long_sums_of_short_numbers_do_not_stand_still():
    x = jnp.ones((64, 40, 40, 2), jnp.bfloat16)
    slope = jax.jit(jax.grad(lambda bias: plus(x, bias).sum(dtype=jnp.float32)))(jnp.zeros(2))
    np.testing.assert_allclose(slope, x[..., 0].size, rtol=0.005)


def test_rectified_numbers_have_the_derivatives_of_the_plain_ones():
    x = jnp.array([-2.0, -0.0, 0.0, 1e-30, 3.0, jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(relu(x), jax.nn.relu(x))
    for derivative in (jax.grad, jax.jacfwd):
        got, expected = (jax.vmap(derivative(function))(x) for function in (relu, jax.nn.relu))
        np.testing.assert_array_equal(got, expected)
    assert jnp.isnan(relu(jnp.nan))


def exact_gelu(x):
    """It and its slope, of float64."""
    up_to = np.array([math.erfc(-each * math.sqrt(0.5)) / 2 for each in x])
    return x * up_to, up_to + x * np.exp(-np.square(x) / 2) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize(("dtype", "digits"), [("float32", 1e-6), ("bfloat16", 2**-8)])
def test_gelu_and_its_slope_are_exact_to_the_last_digit_of_their_type(dtype, digits, backend):
    x = jnp.linspace(-8, 8, 801, dtype=dtype)
    y, pull = jax.vjp(gelu, x)
    _, along = jax.jvp(gelu, (x,), (jnp.ones_like(x),))
    for got, exact in zip((y, pull(jnp.ones_like(x))[0]), exact_gelu(np.float64(x)), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(np.float64(got), exact, rtol=digits, atol=2e-6)
    np.testing.assert_array_equal(along, pull(jnp.ones_like(x))[0])
    twice = jax.vmap(jax.grad(jax.grad(gelu)))(jnp.linspace(-3, 3, 25))
    expected = jax.vmap(jax.grad(jax.grad(lambda x: jax.nn.gelu(x, approximate=False))))
    np.testing.assert_allclose(twice, expected(jnp.linspace(-3, 3, 25)), atol=1e-5)


def test_no_gradient_of_a_maximum_is_lost_where_the_norm_before_it_is_worked_out_twice():
    x, norm = noise(2, 9, 9, 8), BatchNorm()
    variables = norm.init(jax.random.key(0), x, True)

    @jax.jit
    def gradient(x):
        def total(x):
            y, _ = norm.apply(variables, x, True, mutable=["batch_stats"])
            return jnp.sin(max_pool(y, 3, 2, padding=1)).sum()

        return jax.grad(total)(x)

    got = gradient(x)
    with plain_operations():
        np.testing.assert_allclose(got, gradient(x), rtol=1e-5, atol=1e-5)


def test_a_whole_network_has_forward_mode_derivatives_with_the_switch(quickly):
    network = models.create("resnet18", 3, width=4)
    images = noise(2, 32, 32, 3)
    params, model_state = quickly(network.initialise)(jax.random.key(0), images)

    def loss(params):
        outputs, _ = network.apply(params, model_state, images, train=True)
        return jnp.square(outputs.logits).sum()

    along = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), params)
    gradient = jax.jit(jax.grad(loss))(params)
    with plain_operations():
        _, slope = jax.jit(lambda params: jax.jvp(loss, (params,), (along,)))(params)
    products = jax.tree.map(lambda a, b: (a * b).sum(), gradient, along)
    assert float(slope) == pytest.approx(float(sum(jax.tree.leaves(products))), rel=1e-3)
