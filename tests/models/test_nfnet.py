import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.layers import ScaledStdConv, scaled_activation


@pytest.mark.parametrize(
    "name", ["nf_resnet50", pytest.param("dm_nfnet_f0", marks=pytest.mark.slow)]
)
def test_weights_by_formula_give_timms_answers(same_as_reference, name):
    same_as_reference(name)


def test_standardised_kernels_keep_the_variance_whatever_the_weights():
    x = jax.random.normal(jax.random.key(0), (16, 8, 8, 64))
    layer = ScaledStdConv(32, 3, groups=2)
    variables = layer.init(jax.random.key(1), x)
    assert variables["params"]["gain"].shape == (32, 1, 1, 1)
    variables["params"]["kernel"] = 5 * variables["params"]["kernel"] + 3
    inside = layer.apply(variables, x)[:, 1:-1, 1:-1]
    assert np.std(inside) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "tanh", "leaky_relu", "elu"])
def test_scaled_activations_keep_the_variance_of_a_standard_normal(name):
    x = jax.random.normal(jax.random.key(0), (100_000,))
    assert np.std(scaled_activation(name)(x)) == pytest.approx(1, rel=0.02)


def test_an_activation_without_a_known_gain_is_refused():
    with pytest.raises(UserError, match="Unknown activation with a known gain 'gelu_tanh'"):
        scaled_activation("gelu_tanh")


def test_the_signal_keeps_its_variance_from_stage_to_stage():
    options = {"depths": (2, 2, 2), "widths": (64, 128, 256), "zero_init_last": False}
    network = models.create("nf_resnet26", 10, **options)
    images = jax.random.normal(jax.random.key(0), (4, 64, 64, 3))
    params, _ = network.initialise(jax.random.key(1), images)
    apply = jax.jit(lambda *args: network.apply(*args, train=False, capture=network.stages[1:])[0])
    for stage in apply(params, {}, images).captured.values():
        assert 0.3 < np.std(stage) < 2


@pytest.mark.parametrize("zero", [True, False])
def test_a_branch_begins_as_zero_by_its_gain_unless_told_otherwise(zero):
    options = {"depths": (1,), "widths": (128,), "stem_width": 32, "zero_init_last": zero}
    images = jnp.zeros((1, 32, 32, 3))
    for name in ("nf_resnet26", "dm_nfnet_f0"):
        network = models.create(name, 10, **options)
        params, _ = network.initialise(jax.random.key(0), images)
        block = params["stages"]["0"]["0"]
        of_deepmind = name == "dm_nfnet_f0"
        assert ("skipinit_gain" in block) == of_deepmind
        gain = block["skipinit_gain"] if of_deepmind else block["conv3"]["gain"]
        np.testing.assert_array_equal(gain, 0 if zero else 1)
        np.testing.assert_array_equal(block["conv2"]["gain"], 1)


def test_the_gain_of_a_branch_is_a_scalar_in_a_file_too(tmp_path):
    options = {"depths": (1,), "widths": (128,), "stem_width": 32}
    network = models.create("dm_nfnet_f0", 10, **options)
    params, _ = network.initialise(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    models.save_weights(network, params, {}, tmp_path / "weights.safetensors")
    stored = load_file(tmp_path / "weights.safetensors")
    assert stored["stages.0.0.skipinit_gain"].shape == ()
