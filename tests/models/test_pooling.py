import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.layers import (
    AttentionPool,
    GeneralisedMean,
    StochasticPool,
    adaptive_max,
    spatial_pyramid,
)

KEY = jax.random.key(0)


def values(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_the_generalised_mean_is_its_formula():
    x = np.abs(values(2, 4, 6, 3))
    y = GeneralisedMean().apply({"params": {"p": jnp.array([2.5])}}, x)
    np.testing.assert_allclose(y, (x**2.5).mean((1, 2)) ** 0.4, rtol=1e-4)
    y = GeneralisedMean(2, 2).apply({"params": {"p": jnp.array([2.5])}}, x)
    np.testing.assert_allclose(y[:, 1, 2], (x[:, 2:, 4:] ** 2.5).mean((1, 2)) ** 0.4, rtol=1e-4)


def test_stochastic_pooling_draws_in_proportion_and_evaluates_the_expected_value():
    window = np.array([1.0, 3.0, -2.0, 0.0], np.float32).reshape(1, 2, 2, 1)
    x = np.tile(window, (4000, 1, 1, 1))
    drawn = StochasticPool().apply({}, x, True, rngs={"dropout": KEY}).ravel()
    assert set(np.unique(drawn)) == {1.0, 3.0}
    assert np.mean(drawn == 3) == pytest.approx(0.75, abs=0.03)
    np.testing.assert_allclose(StochasticPool().apply({}, x[:1], False), [[[[2.5]]]], rtol=1e-6)
    for train in (True, False):
        rngs = {"dropout": KEY}
        y = StochasticPool(3, 2).apply({}, jnp.zeros((1, 7, 8, 2)), train, rngs=rngs)
        np.testing.assert_array_equal(y, np.zeros((1, 3, 3, 2)))


def test_adaptive_maxima_cover_the_map_by_cells_that_may_overlap():
    x = values(2, 7, 5, 3)
    y = adaptive_max(jnp.asarray(x), (3, 2))
    for i, rows in enumerate([(0, 3), (2, 5), (4, 7)]):
        for j, columns in enumerate([(0, 3), (2, 5)]):
            np.testing.assert_array_equal(
                y[:, i, j], x[:, slice(*rows), slice(*columns)].max((1, 2))
            )
    pyramid = spatial_pyramid(jnp.asarray(x), np.array([1, 2]))
    np.testing.assert_array_equal(pyramid[:, :3], x.max((1, 2)))
    np.testing.assert_array_equal(pyramid[:, -3:], x[:, 3:, 2:].max((1, 2)))


def test_attention_pooling_is_a_mean_weighted_by_the_query():
    x = values(2, 3, 4, 4)
    pool = AttentionPool(heads=2)
    params = pool.init(KEY, x)["params"]
    tokens = x.reshape(2, 12, 4)
    kv = tokens @ params["kv"]["kernel"] + params["kv"]["bias"]
    found = []
    for head in (slice(0, 2), slice(2, 4)):
        fit = kv[..., :4][..., head] @ params["latent"][0, 0, head] / 2**0.5
        weights = np.exp(fit) / np.exp(fit).sum(1, keepdims=True)
        found.append((weights[..., None] * kv[..., 4:][..., head]).sum(1))
    expected = np.concatenate(found, -1) @ params["proj"]["kernel"] + params["proj"]["bias"]
    np.testing.assert_allclose(pool.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize("option", ["average", "stochastic", "generalised", "se", "eca", "cbam"])
def test_the_small_network_has_each_by_name_and_its_gradients_are_finite(option, weights):
    attention = option in ("se", "eca", "cbam")
    network = models.create("cnn", 3, width=4, **{"attention" if attention else "pool": option})
    x = jnp.asarray(values(4, 8, 8, 1))
    params, state = weights(network, x)

    def loss(params):
        outputs, _ = network.apply(params, state, x, train=True, key=KEY)
        return jnp.square(outputs.logits).sum()

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("options", [{"pool": "maxi"}, {"attention": "sa"}, {"act": "rel"}])
def test_an_unknown_part_of_the_small_network_is_refused(options):
    with pytest.raises(UserError, match=r"Unknown"):
        models.create("cnn", 3, **options).initialise(KEY, jnp.zeros((1, 8, 8, 1)))
