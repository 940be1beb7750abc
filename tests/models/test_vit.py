import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from imgclf import models
from imgclf.errors import UserError
from imgclf.optimizers import decayed

KEY = jax.random.key(0)
SMALL = {"width": 16, "depth": 2, "heads": 2, "image_size": 64, "patch": 16}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("vit_tiny_patch16_224", "norm"),
        pytest.param("vit_small_patch16_224", "norm", marks=SLOW),
        pytest.param("vit_base_patch32_224", "norm", marks=SLOW),
        pytest.param("deit_tiny_distilled_patch16_224", "norm", marks=SLOW),
        pytest.param("deit3_small_patch16_224", "norm", marks=SLOW),
        pytest.param("vit_base_patch16_siglip_224", "norm", marks=SLOW),
        pytest.param("vit_small_patch14_dinov2", "norm", marks=SLOW),  # of 518 px
    ],
)
def test_weights_by_formula_give_timms_answers(same_as_reference, name, last):
    same_as_reference(name, last=last)


@pytest.fixture
def images():
    return jax.random.normal(jax.random.key(1), (4, 64, 64, 3))


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "deit3_small_patch16_224", "vit_base_patch16_siglip_224"]
)
def test_the_loop_over_depth_is_the_same_network_with_the_same_file(
    name, images, tmp_path, quickly, answer, weights
):
    options = SMALL | {"zero_init_head": False}
    plain, scanned = (models.create(name, 5, scan=scan, **options) for scan in (False, True))
    params, state = weights(plain, images)
    stacked, _ = models.stack(plain, params, state)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(
        jnp.shape, jax.eval_shape(scanned.initialise, KEY, images)[0]
    )
    apart, _ = models.unstack(scanned, stacked, state)
    jax.tree.map(np.testing.assert_array_equal, apart, params)

    def gradient(network, params):
        def loss(params):
            return jnp.square(network.apply(params, state, images, train=False)[0].logits).sum()

        return quickly(jax.grad(loss))(params)

    for a, b in zip(
        jax.tree.leaves(models.stack(plain, gradient(plain, params), state)[0]),
        jax.tree.leaves(gradient(scanned, stacked)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(a).max())
    models.save_weights(plain, params, state, tmp_path / "plain.safetensors")
    models.save_weights(scanned, stacked, state, tmp_path / "scanned.safetensors")
    one, other = (load_file(tmp_path / f"{n}.safetensors") for n in ("plain", "scanned"))
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key])
    shape = {"image_shape": (64, 64, 3)}
    loaded = models.load(name, tmp_path / "plain.safetensors", scan=True, **shape, **options)
    jax.tree.map(np.testing.assert_array_equal, loaded[1], stacked)
    stages = [
        answer(network, given, state, images, capture=network.stages).captured
        for network, given in ((plain, params), (scanned, stacked))
    ]
    for stage in plain.stages:
        np.testing.assert_allclose(stages[0][stage], stages[1][stage], rtol=1e-4, atol=1e-5)


def test_stacked_blocks_are_decayed_as_single_ones_are(images):
    plain, scanned = (
        jax.eval_shape(
            models.create("deit3_small_patch16_224", 5, scan=scan, **SMALL).initialise, KEY, images
        )[0]
        for scan in (False, True)
    )
    assert decayed(scanned)["blocks"]["0-1"] == decayed(plain)["blocks"]["0"]


@pytest.mark.parametrize("scan", [False, True])
def test_blocks_are_left_out_in_training_only(images, scan, answer, weights):
    network = models.create(
        "vit_tiny_patch16_224", 5, scan=scan, stochastic_depth=0.5, zero_init_head=False, **SMALL
    )
    given = weights(network, images)

    def logits(seed, train):
        return answer(network, *given, images, train, jax.random.key(seed)).logits

    assert np.abs(logits(1, True) - logits(2, True)).max() > 1e-4
    np.testing.assert_array_equal(logits(1, False), logits(2, False))


def test_images_of_any_size_are_taken_and_a_grid_of_another_is_resized_at_loading(
    tmp_path, images, answer, weights
):
    network = models.create("deit_tiny_distilled_patch16_224", 5, **SMALL)
    params, state = weights(network, images)
    wide = jax.random.normal(KEY, (2, 96, 130, 3))
    assert answer(network, params, state, wide).logits.shape == (2, 5)
    models.save_weights(network, params, state, tmp_path / "w.safetensors")
    options = SMALL | {"image_size": 96}
    other, loaded, _ = models.load(
        "deit_tiny_distilled_patch16_224",
        tmp_path / "w.safetensors",
        image_shape=(96, 96, 3),
        **options,
    )
    assert loaded["pos_embed"].shape == (1, 2 + 36, 16)
    larger = jax.random.normal(KEY, (2, 96, 96, 3))
    np.testing.assert_allclose(
        answer(network, params, state, larger, capture=("norm",)).captured["norm"],
        answer(other, loaded, state, larger, capture=("norm",)).captured["norm"],
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_distilled_one_has_two_heads_that_are_averaged_after_training(images, answer, weights):
    network = models.create("deit_tiny_distilled_patch16_224", 5, zero_init_head=False, **SMALL)
    given = weights(network, images)
    trained, tested = answer(network, *given, images, True, KEY), answer(network, *given, images)
    (other,) = trained.auxiliary
    assert tested.auxiliary == ()
    np.testing.assert_allclose(tested.logits, (trained.logits + other) / 2, rtol=1e-4, atol=1e-5)


def test_weights_without_a_classifier_are_taken_and_said_to_be_such(tmp_path, images, weights):
    name = "vit_base_patch16_siglip_224"
    network = models.create(name, 5, **SMALL)
    models.save_weights(network, *weights(network, images), tmp_path / "w.safetensors")
    stored = load_file(tmp_path / "w.safetensors")
    save_file(
        {k: v for k, v in stored.items() if not k.startswith("head.")}, tmp_path / "w.safetensors"
    )
    with pytest.warns(match="The classifier begins anew: .* has none"):
        _, params, _ = models.load(
            name, tmp_path / "w.safetensors", 3, image_shape=(64, 64, 3), **SMALL
        )
    assert params["head"]["kernel"].shape == (16, 3)


def test_registers_have_no_positions(images):
    options = SMALL | {"width": 64, "image_size": 70, "patch": 14}
    network = models.create("vit_giant_patch14_reg4_dinov2", 5, **options)
    params, _ = jax.eval_shape(network.initialise, KEY, images)
    assert params["reg_token"].shape == (1, 4, 64)
    assert params["pos_embed"].shape == (1, 25, 64)


@pytest.mark.parametrize("pool", ["token", "avg", "map"])
def test_in_bfloat16_attention_is_weighed_in_float32(pool, images, quickly, weights):
    options = SMALL | {"pool": pool, "zero_init_head": False}
    network = models.create("vit_tiny_patch16_224", 5, dtype="bfloat16", **options)
    params, state = weights(network, images)

    def logits(images):
        return network.apply(params, state, images, train=False)[0].logits

    exponentials = re.findall(r"\w+:(\w+)\[[^]]*\] = exp ", str(jax.make_jaxpr(logits)(images)))
    assert set(exponentials) == {"f32"}
    assert len(exponentials) == SMALL["depth"] + (pool == "map")
    found = quickly(logits)(images)
    assert found.dtype == jnp.float32
    assert np.isfinite(found).all()


def test_dropout_is_before_the_classifier_and_in_training_only(images, answer, weights):
    options = SMALL | {"zero_init_head": False}
    network, dropping = (
        models.create("vit_tiny_patch16_224", 5, drop_rate=rate, **options) for rate in (0, 0.5)
    )
    given = weights(network, images)

    def outputs(network, train):
        return answer(network, *given, images, train, KEY)

    np.testing.assert_array_equal(outputs(network, False).logits, outputs(dropping, False).logits)
    trained, plain = outputs(dropping, True), outputs(network, True)
    np.testing.assert_array_equal(trained.features, plain.features)
    assert np.abs(trained.logits - plain.logits).max() > 1e-3


def test_images_smaller_than_a_patch_are_refused():
    for name, patch, options in (
        ("vit_base_patch8_224", 8, {}),
        ("vit_large_patch14_224", 14, {}),
        ("vit_base_patch32_224", 32, {}),
        ("vit_base_patch16_224", 4, {"patch": 4}),
    ):
        network = models.create(name, 5, width=8, heads=2, depth=1, **options)
        assert network.minimum_size == patch
        smallest = jax.ShapeDtypeStruct((1, patch, patch, 3), jnp.float32)
        jax.eval_shape(network.initialise, KEY, smallest)
        with pytest.raises(UserError, match=f"at least {patch} x {patch} px"):
            network.initialise(KEY, jax.ShapeDtypeStruct((1, patch, patch - 1, 3), jnp.float32))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pool": "max"}, "Unknown pool of vit_tiny_patch16_224 'max'"),
        ({"heads": 3}, r"The `heads` of a vision transformer \(=3\) must divide its `width`"),
        ({"class_token": False}, "The `class_token` of a vision transformer must be True"),
    ],
)
def test_a_mistake_is_answered(options, said, images):
    with pytest.raises(UserError, match=said):
        models.create("vit_tiny_patch16_224", 5, **SMALL | options).initialise(KEY, images)
