"""What every network of the table must do; one compiled training step a family."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from imgclf import UserError, models
from imgclf.models.layers import plain_operations

KEY = jax.random.key(0)

TABLE_OF_BLOCKS = {"width": 0.25, "depth": 0.1, "stem_width": 8, "head_width": 16}

# For each kind of block a narrow and shallow network, in which no parameter begins cut off.
NARROW = {
    "cifar_resnet20": {"width": 4, "depth": 1},
    "cnn": {"width": 4},
    "gernet_s": {
        "design": (("basic", 1, 8, 2), ("bottleneck", 1, 16, 2), ("depthwise", 1, 8, 1)),
        "last_width": 16,
        "zero_init_last": False,
    },
    "nf_regnet_b0": {
        "depths": (1, 1),
        "widths": (8, 16),
        "stem_width": 8,
        "last_width": 16,
        "zero_init_last": False,
    },
    "dm_nfnet_f0": {
        "depths": (1, 1),
        "widths": (16, 32),
        "stem_width": 16,
        "last_width": 32,
        "group_size": 4,
        "zero_init_last": False,
    },
    "eca_nfnet_l0": {
        "depths": (1, 1),
        "widths": (32, 64),
        "stem_width": 16,
        "last_width": 32,
        "group_size": 4,
        "zero_init_last": False,
    },
    "regnety_002": {
        "depths": (1, 1),
        "widths": (8, 16),
        "group_size": 4,
        "stem_width": 8,
        "zero_init_last": False,
    },
    "repvgg_b1g4": {"depths": (1, 2), "widths": (8, 16), "stem_width": 8},
    "efficientnet_b0": TABLE_OF_BLOCKS,
    "tf_efficientnetv2_b0": TABLE_OF_BLOCKS,
    "mnasnet_100": TABLE_OF_BLOCKS,
    "mobilenetv1_100": TABLE_OF_BLOCKS | {"head_width": 0},
    "mobilenetv3_small_100": TABLE_OF_BLOCKS,
    "mobilenetv4_conv_small": TABLE_OF_BLOCKS,
    "caformer_s18": {"depths": (1, 1, 1), "widths": (8, 16, 32)},
    "cnn_lstm": {"width": 4},
    "gmlp_ti16_224": {"depth": 1, "width": 8, "zero_init_head": False},
    "gru": {"width": 8},
    "lstm": {"width": 8, "bidirectional": True, "depth": 2},
    "mixer_s16_224": {"depth": 1, "width": 8, "patch": 8, "zero_init_head": False},
    "poolformer_s12": {"depths": (1, 1), "widths": (8, 16)},
    "resmlp_12_224": {"depth": 1, "width": 8, "patch": 8, "zero_init_head": False},
    "resnet18": {"width": 4, "depths": (1, 1), "zero_init_last": False},
    "resnet50": {"width": 4, "depths": (1, 1), "zero_init_last": False},
    "alexnet": {"width": 4, "hidden": 16, "drop_rate": 0.0},
    "vgg11": {"depths": (1, 1), "width": 4, "hidden": 16, "drop_rate": 0.0},
    "vgg11_bn": {"depths": (1, 1), "width": 4, "hidden": 16, "drop_rate": 0.0},
    "googlenet": {"share": 0.1, "blocks": ("3a", "4a", "5a")},
    "inception_v3": {
        "share": 0.05,
        "blocks": ("Mixed_5b", "Mixed_6a", "Mixed_6b", "Mixed_7a", "Mixed_7b"),
    },
    "squeezenet1_1": {"squeezed": (2, 2, 4, 4, 4, 4, 4, 4)},
    "densenet121": {"depths": (2, 2), "growth": 4, "stem_widths": (8,)},
    "shufflenet_v2_x0_5": {"widths": (8, 16, 16), "depths": (2, 2), "stem_width": 8},
    "vit_tiny_patch16_224": {"width": 8, "depth": 2, "heads": 2, "zero_init_head": False},
    "deit_tiny_distilled_patch16_224": {
        "width": 8,
        "depth": 1,
        "heads": 2,
        "zero_init_head": False,
    },
    "resnetv2_18": {"depths": (1, 1), "widths": (8, 16), "stem_width": 8},
    "resnetv2_50x1_bit": {"depths": (1, 1), "widths": (128, 256), "stem_width": 32},
    "ese_vovnet19b_dw": {
        "depths": (1, 1),
        "inner_widths": (8, 8),
        "widths": (8, 16),
        "stem_widths": (4, 4, 8),
    },
    "vovnet39a": {
        "depths": (1, 1),
        "inner_widths": (8, 8),
        "widths": (8, 16),
        "stem_widths": (4, 4, 8),
    },
    "tresnet_m": {
        "depths": (1, 1, 1),
        "width": 4,
        "basic_stages": 1,
        "zero_init_last": False,
    },
    "convnextv2_atto": {"widths": (4, 8), "depths": (1, 1)},
    "swin_tiny_patch4_window7_224": {"width": 8, "depths": (2, 2), "heads": (2, 2)},
    "swinv2_tiny_window8_256": {
        "width": 8,
        "depths": (2, 2),
        "heads": (2, 2),
        "zero_init_last": False,
    },
}


FIRST = {models.entry(name).family: name for name in reversed(models.names())}
"""A name of each family; some of the others are looked at in the slow tests."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FIRST.values() else pytest.mark.slow)
        for name in dict.fromkeys((*FIRST.values(), *models.names()[::6]))
    ],
)
def test_shapes_and_types_are_as_promised(name):
    network = models.create(name, 7, dtype="bfloat16")
    network.preprocess.check(channels=3)
    images = jax.ShapeDtypeStruct((2, *network.image_shape), jnp.float32)

    def run(key, images):
        params, model_state = network.initialise(key, images)
        answer = network.apply(
            params, model_state, images, train=True, key=key, capture=network.stages
        )
        return params, model_state, *answer

    params, before, outputs, after = jax.eval_shape(run, KEY, images)
    assert (outputs.logits.shape, outputs.logits.dtype) == ((2, 7), jnp.float32)
    assert (outputs.features.shape[0], outputs.features.ndim) == (2, 2)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, after))} == {np.dtype("float32")}
    assert jax.tree.structure(before) == jax.tree.structure(after)
    kernels = {".".join(keys[:-1]): leaf.shape for keys, leaf in flatten_dict(params).items()}
    assert network.module.classifier in kernels, "the head that a new class count replaces"
    assert network.module.stem in kernels, "the convolution that reads the image"
    assert len(network.stages) >= 2
    assert all(outputs.captured[stage].ndim in (3, 4) for stage in network.stages)


def test_every_family_has_a_narrow_form():
    families = {models.entry(name).family for name in models.names()}
    assert {models.entry(name).family for name in NARROW} == families


TAKEN_AWAY = {("mixer_s16_224", "blocks.0.mlp_tokens.fc2.bias")}
"""All channels of a token have the same, which every norm after takes away: its gradient is zero,
or rounding."""


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NARROW)
def test_it_learns_a_batch_and_gradients_reach_every_parameter(name, dtype, quickly):
    network = models.create(name, 5, dtype=dtype, **NARROW[name])
    size = network.minimum_size
    images = jax.random.normal(KEY, (8, size, size, 3))
    labels = jnp.arange(8) % 5
    params, model_state = quickly(network.initialise)(KEY, images)

    @quickly
    def step(params, model_state, cotangent):
        def loss(params):
            outputs, changed = network.apply(params, model_state, images, train=True, key=KEY)
            heads = jnp.stack([outputs.logits, *outputs.auxiliary])
            picked = jnp.take_along_axis(jax.nn.log_softmax(heads), labels[None, :, None], 2)
            return -picked.mean(), changed

        value, pull_back, changed = jax.vjp(loss, params, has_aux=True)
        (gradients,) = pull_back(cotangent)
        params = jax.tree.map(lambda p, g: p - 0.05 * g, params, gradients)
        return value, gradients, params, changed

    _, nans, _, _ = step(params, model_state, jnp.float32(jnp.nan))
    losses = []
    for _ in range(10):
        value, gradients, params, model_state = step(params, model_state, jnp.float32(1))
        losses.append(float(value))
        if len(losses) == 1:
            leaves = jax.tree_util.tree_leaves_with_path(gradients)
            for (path, gradient), nan in zip(leaves, jax.tree.leaves(nans), strict=True):
                parameter = jax.tree_util.keystr(path, simple=True, separator=".")
                assert np.any(np.isnan(nan)), f"no way from the loss to {parameter}"
                if (name, parameter) not in TAKEN_AWAY:
                    assert np.any(gradient != 0), f"no gradient for {parameter}"
    assert 0 < losses[0] < 5
    assert losses[-1] < losses[0]
    assert step._cache_size() == 1, "compiled again"


WITHOUT_BLOCKS = ("alexnet", "cnn_lstm", "gru", "lstm", "vgg11", "vgg11_bn")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=() if name in ("resnet50", "swin_tiny_patch4_window7_224") else pytest.mark.slow,
        )
        for name in NARROW
    ],
)
def test_with_recompute_less_is_kept_for_the_gradients(name):
    def kept(recompute):
        network = models.create(name, 5, recompute=recompute, **NARROW[name])
        images = jax.ShapeDtypeStruct((8, *[network.minimum_size] * 2, 3), jnp.float32)
        params, model_state = jax.eval_shape(network.initialise, KEY, images)

        def backward(params, model_state, images):
            def logits(params):
                return network.apply(params, model_state, images, train=True, key=KEY)[0].logits

            return jax.vjp(logits, params)[1]

        arrays = jax.tree.leaves(jax.eval_shape(backward, params, model_state, images))
        return sum(array.size for array in arrays)

    if name in WITHOUT_BLOCKS:
        with pytest.raises(UserError, match=f"`recompute` of `{name}` must be False, since it has"):
            kept(True)
    else:
        assert kept(True) < 0.95 * kept(False)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("vit_tiny_patch16_224", {"scan": True}),
        pytest.param("convnextv2_atto", {}, marks=pytest.mark.slow),
        pytest.param("vit_tiny_patch16_224", {}, marks=pytest.mark.slow),
    ],
)
def test_recompute_changes_neither_gradients_nor_statistics_nor_what_is_captured(
    name, options, quickly
):
    options = NARROW[name] | {"stochastic_depth": 0.5} | options
    network = models.create(name, 5, **options)
    images = jax.random.normal(KEY, (8, *[network.minimum_size] * 2, 3))
    params, model_state = quickly(network.initialise)(KEY, images)

    def step(params, recompute):
        used = models.create(name, 5, recompute=recompute, **options)

        def loss(params):
            outputs, changed = used.apply(
                params, model_state, images, train=True, key=KEY, capture=network.stages
            )
            return jnp.square(outputs.logits - jnp.arange(5)).mean(), (changed, outputs.captured)

        return jax.value_and_grad(loss, has_aux=True)(params)

    kept, recomputed = (quickly(partial(step, recompute=each))(params) for each in (False, True))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), kept, recomputed
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    (
        "cnn",
        "convnextv2_atto",
        "densenet121",
        "mobilenetv1_100",
        "regnety_002",
        "resmlp_12_224",
        "resnet18",
        "vit_tiny_patch16_224",
    ),
)
def test_what_is_fast_on_cpu_has_the_gradients_of_the_plain_operations(name, quickly):
    network = models.create(name, 5, **NARROW[name])
    size = network.minimum_size
    images = jax.random.normal(KEY, (8, size, size, 3))
    params, model_state = quickly(network.initialise)(KEY, images)

    # Compiled as in a run, since what could go wrong is what XLA makes of it there.
    @jax.jit
    def gradient(params):
        def loss(params):
            outputs, _ = network.apply(params, model_state, images, train=True, key=KEY)
            return jnp.square(outputs.logits - jnp.arange(5)).mean()

        return jax.grad(loss)(params)

    found = jax.tree.leaves(gradient(params))
    with plain_operations():
        expected = jax.tree.leaves(gradient(params))
    off = sum(np.square(a - b).sum() for a, b in zip(found, expected, strict=True))
    assert off**0.5 < 1e-4 * sum(np.square(b).sum() for b in expected) ** 0.5
