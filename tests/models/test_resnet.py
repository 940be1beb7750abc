import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models


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
