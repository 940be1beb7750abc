"""The convolutional networks of 2012 to 2018: AlexNet, VGG, GoogLeNet and their successors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import UserError, models
from imgclf.models.layers import adaptive_average, average_pool, max_pool

KEY = jax.random.key(0)
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("squeezenet1_1", ""),
        ("shufflenet_v2_x1_0", ""),
        pytest.param("googlenet", "", marks=SLOW),
        pytest.param("inception_v3", "", marks=SLOW),
        pytest.param("densenet121", "", marks=SLOW),
        pytest.param("alexnet", "features", marks=SLOW),
        pytest.param("vgg11", "features", marks=SLOW),
        pytest.param("vgg16_bn", "features", marks=SLOW),
    ],
)
def test_weights_by_formula_give_the_originals_answers(same_as_reference, name, last):
    same_as_reference(name, last=last)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vgg11", {"depths": (1, 1, 1), "width": 4, "hidden": 16}),
        ("vgg11_bn", {"depths": (1, 1, 1), "width": 4, "hidden": 16}),
    ],
)
def test_a_vgg_takes_the_weights_of_either_layout(name, options, tmp_path, answer, weights):
    images = jax.random.normal(KEY, (2, 56, 56, 3))  # 7 x 7 places
    logits, stored = [], None
    for layout in ("timm", "torchvision"):
        network = models.create(name, 5, layout=layout, **options)
        if stored is None:
            given = weights(network, images)
            stored = tmp_path / "weights.safetensors"
            models.save_weights(network, *given, stored)
        network, *given = models.load(
            name, stored, image_shape=(56, 56, 3), layout=layout, **options
        )
        logits.append(answer(network, *given, images).logits)
        models.save_weights(network, *given, stored)  # in the other layout, for the way back
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


def test_windows_beyond_the_edge_are_pytorchs():
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    # ceil_mode: the third window holds the last row (column) and nothing beyond.
    assert max_pool(x, 3, 2, ceil=True)[0, :, :, 0].tolist() == [
        [14, 16, 17],
        [26, 28, 29],
        [32, 34, 35],
    ]
    found = average_pool(x, 3, 2, ceil=True)[0, :, :, 0]
    np.testing.assert_allclose(found[2], [np.mean([24, 25, 26, 30, 31, 32]), 30, 31.5])
    with_padding = average_pool(x, 3, 1, padding=1)[0, 0, 0, 0]
    assert with_padding == pytest.approx((0 + 1 + 6 + 7) / 9)
    without = average_pool(x, 3, 1, padding=1, count_padding=False)[0, 0, 0, 0]
    assert without == pytest.approx((0 + 1 + 6 + 7) / 4)
    np.testing.assert_allclose(
        adaptive_average(x, 4)[0, :, 0, 0],
        [
            np.mean([0, 1, 6, 7]),
            np.mean([6, 7, 12, 13]),
            np.mean([18, 19, 24, 25]),
            np.mean([24, 25, 30, 31]),
        ],
    )


@pytest.mark.parametrize(
    ("name", "size", "head", "count"),
    [
        ("googlenet", 64, "aux1.fc2", 2),
        pytest.param("inception_v3", 299, "AuxLogits.fc", 1, marks=pytest.mark.slow),
    ],
)
def test_heads_in_the_middle_learn_when_asked_and_are_not_missed_otherwise(
    name, size, head, count, tmp_path, weights
):
    options = {"share": 0.05}
    network = models.create(name, 5, auxiliary=True, **options)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)

    def run(key, images, train):
        params, state = network.initialise(key, images)
        return network.apply(params, state, images, train=train, key=key)[0].auxiliary

    for train, wanted in ((True, count), (False, 0)):
        found = jax.eval_shape(lambda key, images: run(key, images, train), KEY, images)  # noqa: B023
        assert [each.shape for each in found] == [(2, 5)] * wanted
    params, state = weights(network, images)
    models.save_weights(network, params, state, tmp_path / "w.safetensors")
    _, *loaded = models.load(
        name, tmp_path / "w.safetensors", image_shape=(size, size, 3), **options
    )
    assert models.count_parameters(loaded[0]) < models.count_parameters(params)
    other, changed = models.reset_classifier(network, params, 3, KEY)
    leaf = changed
    for part in head.split("."):
        leaf = leaf[part]
    assert other.num_classes == 3 and leaf["kernel"].shape[-1] == 3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("densenet121", {"depths": (2, 2), "growth": 4, "stem_widths": (8,)}),
        ("squeezenet1_1", {"squeezed": (2, 2, 4, 4, 4, 4, 4, 4)}),
        ("shufflenet_v2_x0_5", {"widths": (8, 16, 16), "depths": (2, 2), "stem_width": 8}),
        ("googlenet", {"share": 0.1}),
    ],
)
def test_the_mean_over_classified_places_is_the_answer_for_the_image(
    name, options, answer, weights
):
    network = models.create(name, 10, **options)
    images = jax.random.normal(KEY, (2, 96, 64, 3))
    given = weights(network, images)
    whole = answer(network, *given, images).logits
    every = models.create(name, 10, dense=True, **options)
    found = answer(every, *given, images).logits
    assert found.ndim == 4 and found.shape[1] > found.shape[2] > 1
    np.testing.assert_allclose(found.mean((1, 2)), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "blocks", "stages"),
    [
        ("googlenet", ("3a", "3b", "4a"), ("conv3", "inception3b")),
        ("inception_v3", ("Mixed_5d", "Mixed_6a"), ("Conv2d_2b_3x3", "Mixed_5d")),
    ],
)
def test_of_fewer_blocks_the_stages_that_are_there_can_be_captured(name, blocks, stages):
    network = models.create(name, 3, share=0.05, blocks=blocks)
    assert network.stages == stages
    images = jax.ShapeDtypeStruct((1, *network.image_shape), "float32")

    def run(key, images):
        params, model_state = network.initialise(key, images)
        return network.apply(params, model_state, images, train=False, capture=stages)[0]

    assert set(jax.eval_shape(run, jax.random.key(0), images).captured) == set(stages)
    unknown = models.create(name, 3, blocks=(*blocks, blocks[0] + "x"))
    with pytest.raises(UserError, match=f"Unknown block '{blocks[0]}x'; did you mean"):
        jax.eval_shape(unknown.initialise, jax.random.key(0), images)


def test_a_vgg_classifies_places_in_timms_layout_alone():
    images = jax.ShapeDtypeStruct((1, 40, 120, 3), jnp.float32)
    small = {"depths": (1, 1), "width": 4, "hidden": 8, "dense": True}

    def answer(network, images):
        variables = network.initialise(jax.random.key(0), images)
        return network.apply(*variables, images, train=False)[0].logits

    # As timm has it: 10 x 30 places, of which each 7 x 7 are looked at.
    network = models.create("vgg11", 10, layout="timm", **small)
    assert jax.eval_shape(partial(answer, network), images).shape == (1, 4, 24, 10)
    # A side of fewer than 7 places becomes 7, the other stays.
    low = jax.ShapeDtypeStruct((1, 32, 120, 3), jnp.float32)
    network = models.create("vgg11", 10, layout="timm", **small | {"depths": (1, 1, 1)})
    assert jax.eval_shape(partial(answer, network), low).shape == (1, 1, 9, 10)
    network = models.create("vgg11", 10, **small)
    with pytest.raises(UserError, match='`dense` of a VGG needs hidden layers with `layout="timm"'):
        jax.eval_shape(partial(answer, network), images)


def test_a_second_classifier_of_inception_v3_says_which_images_it_needs():
    network = models.create("inception_v3", 10, auxiliary=True, share=0.05)
    with pytest.raises(UserError, match="with `auxiliary` must be at least 299 x 299 px"):
        network.initialise(jax.random.key(0), jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32))
