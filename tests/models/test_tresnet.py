import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf import UserError, models

OPTIONS = {"depths": (1, 1), "width": 4, "basic_stages": 1, "zero_init_last": False}


def test_batch_groups_reach_every_norm(answer, weights):
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    images *= jnp.arange(1.0, 5.0).reshape(4, 1, 1, 1)
    given = weights(models.create("tresnet_m", 10, **OPTIONS), images)

    def logits(groups, images):
        network = models.create("tresnet_m", 10, batch_groups=groups, **OPTIONS)
        return answer(network, *given, images, train=True).logits

    alone = np.concatenate([logits(1, images[:2]), logits(1, images[2:])])
    np.testing.assert_allclose(logits(2, images), alone, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 6])
def test_weights_for_images_of_other_channels_answer_as_before(answer, weights, tmp_path, channels):
    """Where those of one pixel are summed, not those of all that the stem reads as channels."""
    grey = jax.random.normal(jax.random.key(1), (2, 32, 32, 1))
    network = models.create("tresnet_m", 10, **OPTIONS)
    before = network, *weights(network, grey.repeat(3, -1))
    models.save_weights(*before, tmp_path / "small.safetensors")
    with pytest.warns(match=f"`body.conv1.conv` is adapted: .* 3 channels, the images {channels}$"):
        other = models.load(
            "tresnet_m", tmp_path / "small.safetensors", in_channels=channels, **OPTIONS
        )
    expected = answer(*before, grey.repeat(3, -1)).logits
    found = answer(*other, grey.repeat(channels, -1)).logits
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_images_that_are_not_whole_squares_of_pixels_are_refused():
    network = models.create("tresnet_m", 10, **OPTIONS)
    with pytest.raises(UserError, match="must have sides that are multiples of 4 px; got 33 x 32"):
        network.initialise(jax.random.key(0), jnp.zeros((1, 33, 32, 3)))
