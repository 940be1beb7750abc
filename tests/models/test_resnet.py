import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from imgclf import UserError, models
from imgclf.optimizers import decayed


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50",
        "ecaresnet50d",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "resnet50d",
                "resnet101",
                "resnext50_32x4d",
                "wide_resnet50_2",
                "seresnet50",
                "resnetblur50",
                "resnetaa50",
            )
        ),
    ],
)
def test_weights_by_formula_give_timms_answers(same_as_reference, name):
    same_as_reference(name)


@pytest.mark.parametrize(
    ("name", "zero", "last"),
    [("resnet18", True, "bn2"), ("resnet50", True, "bn3"), ("resnet50", False, "bn3")],
)
def test_blocks_begin_as_the_identity_unless_told_otherwise(name, zero, last):
    options = {"depths": (1,), "width": 4, "zero_init_last": zero}
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params, _ = models.create(name, 10, **options).initialise(jax.random.key(0), images)
    for norm, values in params["layer1"]["0"].items():
        if norm.startswith("bn"):
            np.testing.assert_array_equal(values["scale"], 0 if zero and norm == last else 1)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_batch_groups_reach_every_norm(name, answer, weights):
    options = {"depths": (1, 1), "width": 4, "zero_init_last": False}
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    images *= jnp.arange(1.0, 5.0).reshape(4, 1, 1, 1)
    given = weights(models.create(name, 10, **options), images)

    def logits(groups, images):
        network = models.create(name, 10, **(options | {"batch_groups": groups}))
        return answer(network, *given, images, train=True).logits

    alone = jnp.concatenate([logits(1, images[:2]), logits(1, images[2:])])
    np.testing.assert_allclose(logits(2, images), alone, rtol=1e-4, atol=1e-4)
    assert np.abs(logits(1, images) - alone).max() > 0.01, "the images do not tell them apart"


def test_a_basic_blocks_first_convolution_may_be_narrower_too():
    network = models.create("resnet18", 10, depths=(1,), width=8, reduce_first=2)
    params, _ = jax.eval_shape(network.initialise, jax.random.key(0), jnp.ones((1, 32, 32, 3)))
    assert params["layer1"]["0"]["conv1"]["kernel"].shape == (3, 3, 8, 4)
    assert params["layer1"]["0"]["conv2"]["kernel"].shape == (3, 3, 4, 8)


@pytest.mark.parametrize("name", ["resnet50_gn", "resnetv2_50x1_bit"])
def test_batch_groups_of_group_norms_are_refused(name):
    network = models.create(name, 10, batch_groups=2)
    with pytest.raises(UserError, match=r"`batch_groups` of a network with group norms.* got 2"):
        network.initialise(jax.random.key(0), jnp.zeros((2, 64, 64, 3)))


def test_the_forms_act_in_training_only_and_classify_every_place(answer, weights):
    options = {"depths": (1, 1), "width": 8, "deep_stem": (4, 4), "zero_init_last": False}
    network = models.create("resnetrs50", 10, **options, stochastic_depth=0.5, drop_rate=0.5)
    images = jax.random.normal(jax.random.key(1), (4, 64, 64, 3))
    given = weights(network, images)

    def logits(key, train):
        return answer(network, *given, images, train, key).logits

    keys = [jax.random.key(i) for i in range(2)]
    assert np.abs(logits(keys[0], train=True) - logits(keys[1], train=True)).max() > 0.01
    np.testing.assert_array_equal(logits(keys[0], train=False), logits(keys[1], train=False))
    every = models.create("resnetrs50", 10, **options, dense=True)
    found = answer(every, *given, images).logits
    assert found.shape == (4, 8, 8, 10)
    np.testing.assert_allclose(
        found.mean((1, 2)), logits(keys[0], train=False), rtol=1e-4, atol=1e-4
    )


# The second stage has one block after the first: that is no loop.
DEEP = {"depths": (4, 2), "width": 4, "zero_init_last": False}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {"batch_groups": 2}),
        pytest.param(
            "seresnext50_32x4d", {"cardinality": 2, "base_width": 64}, marks=pytest.mark.slow
        ),
    ],
)
def test_the_loop_over_depth_is_the_same_network_with_the_same_file(
    name, options, tmp_path, quickly
):
    options = DEEP | options
    plain, scanned = (models.create(name, 5, scan=scan, **options) for scan in (False, True))
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    params, state = quickly(plain.initialise)(jax.random.key(0), images)
    stacked = models.stack(plain, params, state)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(
        jnp.shape, jax.eval_shape(scanned.initialise, jax.random.key(0), images)
    )
    same = partial(jax.tree.map, np.testing.assert_array_equal)
    same(models.unstack(scanned, *stacked), (params, state))
    deeper = models.create(name, 5, scan=True, **(options | {"depths": (5, 2)}))
    with pytest.raises(UserError, match="there is no block 4 in `layer1`"):
        models.stack(deeper, params, state)
    with pytest.raises(UserError, match="there is no block 1-4 in `layer1`"):
        models.unstack(deeper, *stacked)

    @partial(jax.jit, static_argnums=0)
    def answers(network, params, state):
        def loss(params):
            outputs, changed = network.apply(params, state, images, train=True)
            return jnp.square(outputs.logits).sum(), changed

        gradients, changed = jax.grad(loss, has_aux=True)(params)
        tested = network.apply(params, state, images, train=False, capture=network.stages)[0]
        return gradients, changed, tested

    *changed, tested = answers(plain, params, state)
    *changed_by_loop, tested_by_loop = answers(scanned, *stacked)
    for a, b in zip(
        jax.tree.leaves((models.stack(plain, *changed), tested)),
        jax.tree.leaves((changed_by_loop, tested_by_loop)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())

    models.save_weights(plain, params, state, tmp_path / "plain.safetensors")
    models.save_weights(scanned, *stacked, tmp_path / "scanned.safetensors")
    same(*(load_file(tmp_path / f"{each}.safetensors") for each in ("scanned", "plain")))
    same(models.load(name, tmp_path / "plain.safetensors", scan=True, **options)[1:], stacked)
    assert decayed(stacked[0])["layer1"]["1-3"] == decayed(params)["layer1"]["1"]


def test_in_a_loop_too_later_blocks_are_left_out_more_often():
    options = DEEP | {"depths": (5,), "stochastic_depth": 0.9, "scan": True}
    network = models.create("resnet18", 5, **options)
    images = jax.random.normal(jax.random.key(1), (256, 32, 32, 3))
    params, state = network.initialise(jax.random.key(0), images)

    @jax.jit
    def maps(key):
        capture = tuple(f"layer1.{i}" for i in range(5))
        captured = network.apply(params, state, images, train=True, key=key, capture=capture)[0]
        return captured.captured

    left_out = [
        float((before == after).all((1, 2, 3)).mean())
        for before, after in itertools.pairwise(maps(jax.random.key(2)).values())
    ]
    np.testing.assert_allclose(left_out, np.arange(1, 5) * 0.9 / 4, atol=0.1)
