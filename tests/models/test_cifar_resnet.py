import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import models
from imgclf.models.cifar_resnet import shortcut


@pytest.mark.parametrize("depth", [20, 56])
def test_real_weights_give_the_references_logits(shared, depth):
    name = f"cifar_resnet{depth}"
    data = shared / "data"
    network, params, model_state = models.load(
        name, data / "weights" / f"cifar10_resnet{depth}.safetensors"
    )
    images = np.load(data / "expected" / "cifar10_inputs_u8.npy").transpose(0, 2, 3, 1) / 255
    images = (images - network.preprocess.mean) / np.array(network.preprocess.std)
    expected = np.load(data / "expected" / f"cifar10_resnet{depth}_logits.npy")[: len(images)]
    apply = jax.jit(lambda *args: network.apply(*args, train=False)[0])
    outputs = apply(params, model_state, images.astype(np.float32))
    assert np.abs(outputs.logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_shortcut_takes_every_second_pixel_and_adds_zero_channels_on_both_sides():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1) + 1
    y = shortcut(x, features=4, stride=2)
    np.testing.assert_array_equal(y[0, :, :, 1], [[1, 3], [9, 11]])
    np.testing.assert_array_equal(y[..., [0, 2, 3]], np.zeros((1, 2, 2, 3)))
