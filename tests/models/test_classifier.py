import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from imgclf import models
from imgclf.errors import UserError
from imgclf.models.layers import Dense

KEY = jax.random.key(0)


def test_a_fresh_classifier_leaves_all_else_as_it_is():
    network = models.create("cnn", 10, width=4, in_channels=1)
    params, model_state = network.initialise(KEY, jnp.zeros((1, 8, 8, 1)))
    other, changed = models.reset_classifier(network, params, 3, jax.random.key(1))
    assert other == models.create("cnn", 3, width=4, in_channels=1)
    assert changed["fc"]["kernel"].shape[1] == 3 and params["fc"]["kernel"].shape[1] == 10
    for name in params.keys() - {"fc"}:
        jax.tree.map(np.testing.assert_array_equal, changed[name], params[name])
    outputs, _ = other.apply(changed, model_state, jnp.ones((2, 8, 8, 1)), train=False)
    assert outputs.logits.shape == (2, 3)


def test_the_classifier_of_a_persons_own_module_is_found_if_it_says_where():
    class Mine(nn.Module):
        num_classes: int
        classifier = "last"

        @nn.compact
        def __call__(self, images, train):
            return Dense(self.num_classes, name="last")(images.mean((1, 2)))

    network = models.create(Mine, 4)
    params, _ = network.initialise(KEY, jnp.zeros((1, 5, 5, 3)))
    _, changed = models.reset_classifier(network, params, 6, KEY)
    assert changed["last"]["kernel"].shape == (3, 6)
    unsaid = models.create(lambda num_classes: nn.Dense(num_classes), 4)
    with pytest.raises(UserError, match="must have a field `num_classes` and say by"):
        models.reset_classifier(unsaid, {}, 6, KEY)


@pytest.mark.parametrize("side", [8, 32])
def test_the_classifier_is_as_wide_as_the_one_before_whatever_the_size_of_the_images(side):
    images = jnp.ones((1, side, side, 3))
    network = models.create("cnn", 10, width=4)
    params, model_state = network.initialise(KEY, images)
    other, changed = models.reset_classifier(network, params, 3, KEY)
    assert changed["fc"]["kernel"].shape == (params["fc"]["kernel"].shape[0], 3)
    logits = jax.eval_shape(
        lambda params: other.apply(params, model_state, images, train=False)[0].logits, changed
    )
    assert logits.shape == (1, 3)
    odd = {"fc": {"kernel": jnp.zeros((7, 10)), "bias": jnp.zeros(10)}}
    with pytest.raises(UserError, match="must be those of `cnn`; its classifier is of another"):
        models.reset_classifier(network, {**params, **odd}, 3, KEY)
    for wrong in (0, "3"):
        with pytest.raises(UserError, match=f"must be a whole number, at least 1; got {wrong!r}"):
            models.reset_classifier(network, params, wrong, KEY)
