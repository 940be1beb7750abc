"""Optimizers, update by update, against PyTorch's formulas written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgclf import models
from imgclf.models.layers import stacked_name
from imgclf.optimizers import LAMB, SGD, AdamW, decayed

UPDATES = 6


def rate(step):
    return 0.1 / (1 + step)


def start_and_gradients():
    random = np.random.default_rng(0)
    start = {"kernel": random.normal(size=(4, 3)), "bias": random.normal(size=3)}
    gradients = [
        {name: random.normal(size=value.shape) for name, value in start.items()}
        for _ in range(UPDATES)
    ]
    return start, gradients


def ours(optimizer):
    start, gradients = start_and_gradients()
    params = {name: jnp.asarray(value, jnp.float32) for name, value in start.items()}
    transformation = optimizer.build(rate, params)
    state, track = transformation.init(params), []
    for gradient in gradients:
        gradient = {name: jnp.asarray(value, jnp.float32) for name, value in gradient.items()}
        updates, state = transformation.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        track.append(params)
    return track


def theirs(update, weight_decay):
    """`update(p, g, state, step, weight_decay) -> p` for each parameter; biases undecayed."""
    params, gradients = start_and_gradients()
    states, track = {name: {} for name in params}, []
    for step, gradient in enumerate(gradients):
        params = {
            name: update(p, gradient[name], states[name], step, weight_decay if p.ndim > 1 else 0.0)
            for name, p in params.items()
        }
        track.append(params)
    return track


def assert_same(track, expected):
    for ours_now, theirs_now in zip(track, expected, strict=True):
        for name in theirs_now:
            np.testing.assert_allclose(ours_now[name], theirs_now[name], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd_moves_as_pytorchs(momentum, nesterov):
    def update(p, g, state, step, weight_decay):
        g = g + weight_decay * p
        state["m"] = momentum * state["m"] + g if "m" in state else g
        return p - rate(step) * (g + momentum * state["m"] if nesterov else state["m"])

    track = ours(SGD(momentum=momentum, nesterov=nesterov, weight_decay=0.01))
    assert_same(track, theirs(update, 0.01))


def adam(g, state, step, b1, b2, eps):
    state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
    state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
    mean, square = state["m"] / (1 - b1 ** (step + 1)), state["v"] / (1 - b2 ** (step + 1))
    return mean / (np.sqrt(square) + eps)


def test_adamw_moves_as_pytorchs():
    def update(p, g, state, step, weight_decay):
        p = p * (1 - rate(step) * weight_decay)
        return p - rate(step) * adam(g, state, step, 0.8, 0.95, 1e-3)

    track = ours(AdamW(b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1))
    assert_same(track, theirs(update, 0.1))


def test_lamb_scales_to_the_norm_of_kernels_only():
    def update(p, g, state, step, weight_decay):
        u = adam(g, state, step, 0.9, 0.999, 1e-6) + weight_decay * p
        trust = np.linalg.norm(p) / np.linalg.norm(u) if p.ndim > 1 else 1.0
        return p - rate(step) * trust * u

    assert_same(ours(LAMB(weight_decay=0.02)), theirs(update, 0.02))


def test_lamb_moves_blocks_that_are_stacked_as_each_by_itself():
    def moved(params, gradient):
        transformation = LAMB().build(rate, params)
        return transformation.update(gradient, transformation.init(params), params)[0]

    random = np.random.default_rng(1)
    size = np.array([1.0, 10.0, 0.1], np.float32)[:, None, None]
    kernels = size * random.normal(size=(3, 4, 5)).astype(np.float32)
    scales, gradient = np.ones((3, 5), np.float32), {"kernel": kernels + 1, "scale": kernels[:, 0]}
    params, stacked = {"kernel": kernels, "scale": scales}, stacked_name(range(3))
    found = moved({"blocks": {stacked: params}}, {"blocks": {stacked: gradient}})
    for i in range(3):
        alone = moved(
            *({name: each[i] for name, each in tree.items()} for tree in (params, gradient))
        )
        for name, update in found["blocks"][stacked].items():
            np.testing.assert_allclose(update[i], alone[name], rtol=1e-5)


@pytest.mark.parametrize(
    ("network", "options", "left_out"),
    [
        (
            "vit_small_patch16_224",
            {"depth": 2, "class_token": True, "registers": 2, "distilled": True},
            {"cls_token", "dist_token", "reg_token", "pos_embed"},
        ),
        (
            "vit_small_patch16_224",
            {"depth": 2, "pool": "map"},
            {"cls_token", "pos_embed", "latent"},
        ),
        ("swin_tiny_patch4_window7_224", {}, {"relative_position_bias_table"}),
        ("swinv2_tiny_window8_256", {}, {"logit_scale"}),
        ("resmlp_12_224", {"depth": 1}, {"alpha", "beta"}),
        ("nf_resnet50", {}, {"gain"}),
    ],
)
def test_tokens_positions_and_factors_are_not_decayed(network, options, left_out):
    made = models.create(network, 10, **options)
    size = made.preprocess.size
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    params, _ = jax.eval_shape(made.initialise, jax.random.key(0), images)
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    matrices = {
        (path[-1].key, is_decayed)
        for (path, leaf), is_decayed in zip(leaves, jax.tree.leaves(decayed(params)), strict=True)
        if leaf.ndim > 1
    }
    assert matrices == {("kernel", True)} | {(name, False) for name in left_out}


def test_what_is_decayed_has_two_dimensions_or_more():
    params = {
        "conv": {"kernel": jnp.zeros((3, 3, 4, 8))},
        "norm": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "head": {"kernel": jnp.zeros((8, 10)), "bias": jnp.zeros(10)},
        "temperature": jnp.zeros(()),
        "own": {"matrix": jnp.zeros((2, 3))},
    }
    assert decayed(params) == {
        "conv": {"kernel": True},
        "norm": {"scale": False, "bias": False},
        "head": {"kernel": True, "bias": False},
        "temperature": False,
        "own": {"matrix": True},
    }
