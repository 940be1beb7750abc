from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgclf import models
from imgclf.errors import UserError
from imgclf.models import Outputs
from imgclf.preprocess import Preprocess

KEY = jax.random.key(0)
IMAGES = jax.random.normal(KEY, (4, 8, 8, 1))


class Mine(nn.Module):
    """A person's module: plain logits, dropout, a norm of Flax's, a value sown."""

    num_classes: int
    also_in_training: bool = False

    @nn.compact
    def __call__(self, images, train):
        x = images.mean((1, 2))
        x = nn.Dense(16, name="first")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        self.sow("intermediates", "hidden", x)
        if self.also_in_training and train:
            nn.Dense(3, name="other_head")(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(self.num_classes, name="head")(x)


@pytest.fixture(scope="module")
def mine():
    network = models.create(Mine, 5)
    return network, *network.initialise(KEY, IMAGES)


def test_initial_values_do_not_depend_on_the_images(mine):
    network, params, model_state = mine
    others = network.initialise(KEY, jax.ShapeDtypeStruct((1, 32, 9, 1), jnp.uint8))
    jax.tree.map(np.testing.assert_array_equal, others, (params, model_state))
    assert set(model_state) == {"batch_stats"}, "sown values are no state"
    np.testing.assert_array_equal(model_state["batch_stats"]["norm"]["mean"], np.zeros(16))


def test_initialise_works_under_jit_and_eval_shape(mine):
    network, *values = mine
    for made in (
        jax.eval_shape(network.initialise, KEY, IMAGES),
        jax.jit(network.initialise)(KEY, IMAGES),
    ):
        assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, tuple(values))


def test_initialise_works_with_a_key_from_outside_of_jit(mine):
    network, params, model_state = mine
    same = jax.jit(lambda images: network.initialise(KEY, images))(IMAGES)
    jax.tree.map(np.testing.assert_array_equal, same, (params, model_state))


def test_what_only_training_uses_gets_parameters_too():
    network = models.create(Mine, 5, also_in_training=True)
    params, _ = jax.eval_shape(network.initialise, KEY, IMAGES)
    assert "other_head" in params


def test_training_changes_the_statistics_and_evaluation_does_not(mine):
    network, params, model_state = mine
    _, after = network.apply(params, model_state, IMAGES, train=True, key=KEY)
    assert np.any(after["batch_stats"]["norm"]["mean"] != 0)
    outputs, after = network.apply(params, model_state, IMAGES, train=False)
    assert after is model_state
    assert outputs.logits.shape == (4, 5)


def test_training_without_a_key_says_that_one_is_missing(mine):
    network, params, model_state = mine
    with pytest.raises(UserError, match=r"The `key` must be given to apply `Mine` in training"):
        network.apply(params, model_state, IMAGES, train=True)


def test_the_key_decides_the_dropout(mine):
    network, params, model_state = mine

    def logits(seed):
        key = jax.random.key(seed)
        return network.apply(params, model_state, IMAGES, train=True, key=key)[0].logits

    np.testing.assert_array_equal(logits(1), logits(1))
    assert np.any(logits(1) != logits(2))


def test_captured_values_are_those_asked_for(mine):
    network, params, model_state = mine
    outputs, after = network.apply(
        params, model_state, IMAGES, train=True, key=KEY, capture=("first", "hidden", "head")
    )
    assert jax.tree.map(jnp.shape, outputs.captured) == {
        "first": (4, 16),
        "hidden": (4, 16),
        "head": (4, 5),
    }
    assert set(after) == {"batch_stats"}
    np.testing.assert_array_equal(outputs.captured["head"], outputs.logits)


def test_a_nested_submodule_is_captured_by_its_dotted_path():
    network = models.create("cnn", 10, width=4)
    params, model_state = network.initialise(KEY, IMAGES)
    outputs, _ = network.apply(params, model_state, IMAGES, train=False, capture=("stage2.bn1",))
    assert outputs.captured["stage2.bn1"].shape == (4, 4, 4, 8)
    with pytest.raises(UserError, match=r"Unknown submodule 'stage3'; did you mean 'stage[12]'"):
        network.apply(params, model_state, IMAGES, train=False, capture=("stage3",))


@pytest.mark.parametrize("what", ["params", "model_state"])
def test_parameters_that_are_no_dict_are_refused(what):
    network = models.create("cnn", 3, width=4)
    params, model_state = network.initialise(KEY, IMAGES)
    given = {"params": params, "model_state": model_state} | {what: (params, model_state)}
    with pytest.raises(UserError, match=f"The `{what}` of `cnn` must be a dict.* got tuple"):
        network.apply(**given, images_bhwc=IMAGES, train=False)


def test_names_of_submodules_are_several_and_images_are_normalised():
    network = models.create("cnn", 3, width=4)
    variables = network.initialise(KEY, IMAGES)
    with pytest.raises(UserError, match=r"must be several names, \['stage1'\]; got 'stage1'"):
        network.apply(*variables, IMAGES, train=False, capture="stage1")
    with pytest.raises(UserError, match="must be normalised already, as floats; got uint8"):
        network.apply(*variables, IMAGES.astype("uint8"), train=False)


def test_a_network_is_a_value():
    one, other = models.create("resnet50", 10), models.create("resnet50", 10)
    assert one == other
    assert hash(one) == hash(other)
    assert one != models.create("resnet50", 10, dtype="bfloat16")


def test_outputs_pass_through_jax():
    outputs = Outputs(jnp.ones((2, 3)), captured={"x": jnp.ones(2)})
    doubled = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree))(outputs)
    assert doubled.features is None
    np.testing.assert_array_equal(doubled.captured["x"], [2, 2])


def test_a_network_of_grey_images_normalises_them_by_the_average_over_colours():
    assert models.create("resnet18", 10, in_channels=1).preprocess.mean == pytest.approx([0.449])
    assert models.create("resnet18", 10, in_channels=1).preprocess.std == pytest.approx([0.226])
    own = Preprocess(mean=(0.1, 0.2, 0.3), std=(0.2,))
    network = models.create("resnet18", 10, preprocess=own, in_channels=1)
    assert (network.preprocess.mean, network.preprocess.std) == (own.mean, own.std)


@pytest.mark.parametrize("shape", [(2, 7, 8, 1), (2, 8, 7, 1)])
def test_images_that_are_too_small_are_refused_with_both_sizes(shape):
    with pytest.raises(UserError, match=f"at least 8 x 8 px; got {shape[1]} x {shape[2]}"):
        models.create("cnn", 10).initialise(KEY, jnp.zeros(shape))


def test_images_without_channels_are_refused():
    with pytest.raises(UserError, match=r"must be \(b, h, w, c\); got \(2, 8, 8\)"):
        models.create("cnn", 10).initialise(KEY, jnp.zeros((2, 8, 8)))


def test_logits_of_another_shape_are_refused():
    network = models.create(lambda num_classes: Mine(num_classes + 1), 5)
    params, model_state = network.initialise(KEY, IMAGES)
    with pytest.raises(UserError, match=r"must have the shape \(4, 5\).*; got \(4, 6\)"):
        network.apply(params, model_state, IMAGES, train=False)


def test_images_of_other_channels_than_the_weights_are_refused():
    network = models.create("cnn", 10, width=4)
    params, model_state = network.initialise(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    with pytest.raises(UserError, match=r"must be \(b, h, w, 3\), as its `params`; got \(1, 3, 8"):
        network.apply(params, model_state, jnp.zeros((1, 3, 8, 8)), train=False)


def test_images_of_another_rank_are_refused_when_it_is_applied_too(mine):
    network, params, model_state = mine
    with pytest.raises(UserError, match=r"must be \(b, h, w, c\); got \(8, 8, 3\)$"):
        network.apply(params, model_state, jnp.zeros((8, 8, 3)), train=False)


def cnn(width, side):
    """(network, params, model_state) for images of that side."""
    network = models.create("cnn", 10, width=width)
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    variables = jax.eval_shape(network.initialise, KEY, images)
    return network, *jax.tree.map(lambda leaf: jnp.ones(leaf.shape), variables)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda params, state: (params, {}), "none called stage1.bn1.mean"),
        (lambda params, state: (params, {"batch_stats": {}}), "none called stage1.bn1.mean"),
        (lambda params, state: ({}, state), "none called fc.bias"),
        (lambda params, state: ({"params": params}, state), "none called fc.bias"),
        (
            lambda params, state: (params, cnn(8, 8)[2]),
            "stage1.bn1.mean of the shape (8,) where (4,) is wanted",
        ),
        (lambda *_: cnn(4, 32)[1:], "fc.kernel of the shape (32, 10) where (8, 10) is wanted"),
        (
            lambda params, state: ({**params, "stage2": cnn(8, 8)[1]["stage2"]}, state),
            "stage2.bn1.bias of the shape (16,) where (8,) is wanted",
        ),
    ],
)
def test_parameters_and_statistics_of_another_network_are_refused_with_the_first_of_them(
    change, got, train
):
    network, params, model_state = cnn(4, 8)
    with pytest.raises(UserError) as error:
        network.apply(*change(params, model_state), jnp.ones((2, 8, 8, 3)), train=train, key=KEY)
    assert str(error.value) == (
        "The `params` and `model_state` of `cnn` must be its own, for images of (8, 8, 3); "
        f"got {got}"
    )


def test_images_of_another_size_than_the_parameters_of_a_cnn_are_for_are_refused():
    network, params, model_state = cnn(4, 8)
    with pytest.raises(UserError, match=r"for images of \(16, 20, 3\); got fc.kernel of the shape"):
        network.apply(params, model_state, jnp.ones((2, 16, 20, 3)), train=False)


def test_an_error_of_a_persons_own_network_whose_parameters_fit_stays_what_it_is():
    class Broken(nn.Module):
        num_classes: int

        @nn.compact
        def __call__(self, images, train):
            if not train:
                raise ValueError("of mine")
            return nn.Dense(self.num_classes)(images.mean((1, 2)))

    network = models.create(Broken, 5)
    with pytest.raises(ValueError, match="of mine"):
        network.apply(*network.initialise(KEY, IMAGES), IMAGES, train=False)


@pytest.mark.parametrize(
    ("name", "side", "options"),
    [
        ("alexnet", 30, {"width": 4, "hidden": 16}),
        ("convnext_tiny", 4, {"widths": (8, 16), "depths": (1, 1)}),
        ("densenet121", 16, {"depths": (1, 1, 1, 1), "growth": 4, "stem_widths": (8,)}),
        ("densenet121", 16, {"depths": (1, 1, 1, 1), "growth": 4, "dense": True}),
        ("swin_tiny_patch4_window7_224", 3, {"width": 8, "depths": (1, 1), "heads": (1, 1)}),
        ("vit_tiny_patch16_224", 15, {"width": 8, "depth": 1, "heads": 1}),
    ],
)
def test_images_of_which_nothing_is_left_are_refused(name, side, options):
    network = models.create(name, 5, **options)
    shapes = jax.eval_shape(network.initialise, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    with pytest.raises(UserError, match="images are too small for the network"):
        jax.eval_shape(partial(network.apply, train=False), *shapes, jnp.zeros((1, side, side, 3)))
