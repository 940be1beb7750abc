"""What every optimizer promises."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imgclf.errors import UserError
from imgclf.optimizers import LAMB, SGD, AdamW, Optimizer

KINDS = {
    "sgd": SGD(weight_decay=1e-2),
    "sgd plain": SGD(momentum=0.0, nesterov=False, weight_decay=1e-2),
    "sgd heavy ball": SGD(nesterov=False, weight_decay=1e-2),
    "adamw": AdamW(),
    "lamb": LAMB(),
}
WRONG = [
    SGD(momentum=1.0),
    SGD(weight_decay=-1.0),
    AdamW(b1=-0.1),
    AdamW(b2=1.0),
    AdamW(eps=-1e-8),
    AdamW(weight_decay=float("nan")),
    LAMB(b1=1.0),
    LAMB(weight_decay=-1e-4),
]


def rate(step):
    return jnp.float32(0.05)


def parameters():
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 8, 8), "bias": (8,), "norm": {"scale": (8,), "bias": (8,)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(random.normal(size=shape), jnp.float32) + 0.5,
        shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def descend(optimizer, params, gradient, steps):
    transformation = optimizer.build(rate, params)

    @jax.jit
    def update(params, state):
        updates, state = transformation.update(gradient(params), state, params)
        return optax.apply_updates(params, updates), state

    state = transformation.init(params)
    for _ in range(steps):
        params, state = update(params, state)
    return params


@pytest.fixture(params=KINDS)
def optimizer(request):
    return KINDS[request.param]


def test_every_kind_is_in_this_battery():
    kinds = {k for k in Optimizer.__subclasses__() if k.__module__ == "imgclf.optimizers"}
    assert {type(optimizer) for optimizer in KINDS.values()} == kinds


def test_a_bowl_is_descended(optimizer):
    def height(params):
        return optax.tree.norm(params, squared=True)

    params = parameters()
    end = descend(optimizer, params, jax.grad(height), 20)
    assert height(end) < 0.5 * height(params)


def test_same_gradients_same_bits(optimizer):
    ends = [descend(optimizer, parameters(), lambda params: params, 3) for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, *ends)


def test_types_and_shapes_of_parameters_are_kept(optimizer):
    end = descend(optimizer, parameters(), lambda params: params, 1)
    assert jax.tree.map(jnp.shape, end) == jax.tree.map(jnp.shape, parameters())
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(end))


def test_norms_and_biases_are_not_decayed_and_kernels_are(optimizer):
    start = parameters()
    end = descend(optimizer, start, lambda params: jax.tree.map(jnp.zeros_like, params), 3)
    assert jnp.linalg.norm(end.pop("kernel")) < jnp.linalg.norm(start.pop("kernel"))
    jax.tree.map(np.testing.assert_array_equal, end, start)


def test_rate_zero_moves_nothing(optimizer):
    params = parameters()
    transformation = optimizer.build(lambda step: jnp.float32(0), params)
    updates, _ = transformation.update(params, transformation.init(params), params)
    assert all(not leaf.any() for leaf in jax.tree.leaves(updates))


def test_rate_of_each_update_is_the_schedules_at_its_step(optimizer):
    params = parameters()
    transformation = optimizer.build(lambda step: jnp.where(step == 1, 0.1, 0.0), params)
    state, moved = transformation.init(params), []
    for _ in range(3):
        updates, state = transformation.update(params, state, params)
        moved.append(bool(optax.tree.norm(updates) > 0))
    assert moved == [False, True, False]


def test_shapes_are_enough_to_build_it(optimizer):
    params = parameters()
    transformation = optimizer.build(rate, jax.eval_shape(lambda: params))
    abstract = jax.eval_shape(transformation.init, params)
    state = transformation.init(params)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(lambda leaf: leaf.shape, abstract)


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_bad_value_is_one_line_that_names_the_field(wrong):
    with pytest.raises(UserError, match=r"^The `\w+` of `\w+` must [^\n]*; got [^\n]*$"):
        wrong.build(rate, parameters())


def test_value_can_be_hashed_compared_and_pickled(optimizer):
    assert pickle.loads(pickle.dumps(optimizer)) == optimizer
    assert hash(pickle.loads(pickle.dumps(optimizer))) == hash(optimizer)
