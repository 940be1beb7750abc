"""The convolutional networks of 2012 to 2018: AlexNet, VGG, GoogLeNet and their successors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

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
        pytest.param("vgg16_bn", "features", marks=SLOW),
    ],
)
def test_weights_by_formula_give_the_originals_answers(same_as_reference, name, last):
    same_as_reference(name, last=last)


VGGS = (("pre_logits.fc1", "classifier.0"), ("pre_logits.fc2", "classifier.3"))


def as_timms_vgg(theirs):
    """A file of torchvision's VGG in timm's layout."""
    ours = {name: x for name, x in theirs.items() if not name.startswith("classifier.")}
    for (convolution, linear), side in zip(VGGS, (7, 1), strict=True):
        weight = theirs[f"{linear}.weight"]
        ours[f"{convolution}.weight"] = weight.reshape(len(weight), -1, side, side)
        ours[f"{convolution}.bias"] = theirs[f"{linear}.bias"]
    return ours | {f"head.fc.{x}": theirs[f"classifier.6.{x}"] for x in ("weight", "bias")}


@SLOW
def test_weights_by_formula_give_the_answers_of_torchvisions_vgg(same_as_reference):
    same_as_reference("vgg11", last="features", written=as_timms_vgg)


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn"])
def test_a_vgg_takes_the_weights_of_either_layout_and_goes_out_in_timms(
    name, tmp_path, answer, weights
):
    options = {"depths": (1, 1, 1), "width": 4, "hidden": 16}
    images = jax.random.normal(KEY, (2, 56, 56, 3))  # 7 x 7 places
    network = models.create(name, 5, **options)
    params, model_state = weights(network, images)
    models.save_weights(network, params, model_state, tmp_path / "timm.safetensors")
    ours = load_file(tmp_path / "timm.safetensors")
    assert ours["pre_logits.fc1.weight"].shape == (16, 16, 7, 7)
    assert ours["pre_logits.fc2.weight"].shape == (16, 16, 1, 1)
    theirs = {f"classifier.6.{part}": ours[f"head.fc.{part}"] for part in ("weight", "bias")}
    theirs |= {name: x for name, x in ours.items() if name.startswith("features.")}
    for convolution, linear in VGGS:
        theirs[f"{linear}.weight"] = ours[f"{convolution}.weight"].reshape(16, -1)
        theirs[f"{linear}.bias"] = ours[f"{convolution}.bias"]
    save_file(theirs, tmp_path / "torchvision.safetensors")
    network, *loaded = models.load(name, tmp_path / "torchvision.safetensors", **options)
    jax.tree.map(np.testing.assert_array_equal, loaded, [params, model_state])

    outputs = answer(network, params, model_state, images, capture=("features",))
    x = np.asarray(outputs.captured["features"]).transpose(0, 3, 1, 2).reshape(2, -1)
    for linear in ("classifier.0", "classifier.3"):
        x = np.maximum(x @ theirs[f"{linear}.weight"].T + theirs[f"{linear}.bias"], 0)
    wanted = x @ theirs["classifier.6.weight"].T + theirs["classifier.6.bias"]
    np.testing.assert_allclose(outputs.logits, wanted, rtol=1e-4, atol=1e-5)


def test_hidden_layers_of_another_network_are_a_misfit_of_a_vgg(tmp_path, weights):
    network = models.create("vgg11", 5, depths=(1, 1), width=4, hidden=16)
    given = weights(network, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    # MobileNetV3 of torchvision has a layer of that name, too.
    save_file({"classifier.0.weight": np.ones((16, 50), np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match=r"pre_logits.fc1.weight: \(16, 50\) where \(16, 8, 7, 7\)"):
        models.load_weights(network, *given, tmp_path / "w.safetensors")


def test_windows_beyond_the_edge_are_pytorchs():
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    # ceil_mode: the third window holds the last row (column) and nothing beyond.
    assert max_pool(x, 3, 2, ceil=True)[0, :, :, 0].tolist() == [
        [14, 16, 17],
        [26, 28, 29],
        [32, 34, 35],
    ]
    found = average_pool(x, 3, 2, ceil=True)[0, :, :, 0]
    near = average_pool((3 + x / 100).astype(jnp.bfloat16), 3, 1)
    exact = average_pool((3 + x / 100).astype(jnp.bfloat16).astype(jnp.float32), 3, 1)
    np.testing.assert_array_equal(near, exact.astype(jnp.bfloat16), "summed in float32")
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


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn"])
def test_a_vgg_classifies_places_as_timm_has_it(name):
    images = jax.ShapeDtypeStruct((1, 40, 120, 3), jnp.float32)
    small = {"depths": (1, 1), "width": 4, "hidden": 8, "dense": True}

    def answer(network, images):
        variables = network.initialise(jax.random.key(0), images)
        return network.apply(*variables, images, train=False)[0].logits

    # 10 x 30 places, of which each 7 x 7 are looked at.
    network = models.create(name, 10, **small)
    assert jax.eval_shape(partial(answer, network), images).shape == (1, 4, 24, 10)
    # A side of fewer than 7 places becomes 7, the other stays.
    low = jax.ShapeDtypeStruct((1, 32, 120, 3), jnp.float32)
    network = models.create(name, 10, **small | {"depths": (1, 1, 1)})
    assert jax.eval_shape(partial(answer, network), low).shape == (1, 1, 9, 10)


def test_a_second_classifier_of_inception_v3_says_which_images_it_needs():
    network = models.create("inception_v3", 10, auxiliary=True, share=0.05)
    with pytest.raises(UserError, match="with `auxiliary` must be at least 299 x 299 px"):
        network.initialise(jax.random.key(0), jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32))
