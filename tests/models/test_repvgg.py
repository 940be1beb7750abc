from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.repvgg import fuse

NARROW = {"depths": (1, 3), "widths": (16, 32), "stem_width": 8}


def test_weights_by_formula_give_timms_answers(same_as_reference):
    same_as_reference("repvgg_a0")


@pytest.mark.parametrize("groups", [1, 4])
def test_the_fused_form_gives_the_same_logits(groups, quickly, weights):
    network = models.create("repvgg_a0", 10, groups=groups, **NARROW)
    images = jax.random.normal(jax.random.key(1), (8, 32, 32, 3))
    params, model_state = weights(network, images)

    @partial(quickly, static_argnums=(0, 4))
    def apply(network, params, model_state, images, train):
        outputs, model_state = network.apply(params, model_state, images, train=train)
        return outputs.logits, model_state

    _, model_state = apply(network, params, model_state, 2 * images + 1, True)
    wanted, _ = apply(network, params, model_state, images, False)
    fused, one_branch, nothing = fuse(network, params, model_state)
    template, _ = jax.eval_shape(partial(fused.initialise, images_bhwc=images), jax.random.key(0))
    assert jax.tree.map(jnp.shape, one_branch) == jax.tree.map(jnp.shape, template)
    assert not nothing
    assert models.count_parameters(one_branch) < 0.9 * models.count_parameters(params)
    logits, _ = apply(fused, one_branch, nothing, images, False)
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(logits / scale, wanted / scale, atol=1e-5)
    assert fused.module.stem == "stem.reparam_conv"


def test_only_the_training_form_of_a_repvgg_can_be_fused():
    with pytest.raises(UserError, match="must be a RepVGG in its training form; got `cnn`"):
        fuse(models.create("cnn", 10), {}, {})
    with pytest.raises(UserError, match="got `repvgg_a0` that is fused"):
        fuse(models.create("repvgg_a0", 10, fused=True), {}, {})


def test_the_identity_is_never_dropped(answer, weights):
    network = models.create("repvgg_a0", 10, stochastic_depth=0.999999, **NARROW)
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    given = weights(network, images)
    outputs = answer(network, *given, images, True, jax.random.key(2), capture=("stages.1.2",))
    assert np.abs(outputs.captured["stages.1.2"]).max() > 0


def test_both_convolutions_of_the_stem_are_adapted_to_other_channels(tmp_path, weights):
    network = models.create("repvgg_a0", 10, **NARROW)
    params, model_state = weights(network, jnp.zeros((1, 32, 32, 3)))
    models.save_weights(network, params, model_state, tmp_path / "weights.npz")
    with pytest.warns(match=r"conv_1x1.conv` is adapted.*; The stem"):
        _, grey, _ = models.load("repvgg_a0", tmp_path / "weights.npz", in_channels=1, **NARROW)
    for branch in ("conv_kxk", "conv_1x1"):
        found, colour = (tree["stem"][branch]["conv"]["kernel"] for tree in (grey, params))
        np.testing.assert_allclose(found, colour.sum(2, keepdims=True), rtol=1e-5, atol=1e-6)
