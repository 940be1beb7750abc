import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf.errors import UserError
from imgclf.losses import SigmoidCrossEntropy
from imgclf.models import create
from imgclf.preprocess import IMAGENET, Preprocess
from imgclf.tasks import Classify, masked_mean, normalise


def test_images_are_normalised_as_the_reference_does() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    expected = (images / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    np.testing.assert_allclose(normalise(images, IMAGENET), expected, atol=1e-6)
    one = normalise(images, Preprocess(mean=(0.5,), std=(0.25,)))
    np.testing.assert_allclose(one, (images / 255 - 0.5) / 0.25, atol=1e-6)


def test_masked_rows_count_nowhere_even_if_they_are_not_finite() -> None:
    values = jnp.array([1.0, jnp.nan, 3.0, jnp.inf])
    assert masked_mean(values, jnp.array([True, False, True, False])) == 2
    assert masked_mean(values, jnp.zeros(4, bool)) == 0


@pytest.mark.parametrize("shape", [(), (4, 1), (4, 10), (1,)])
def test_a_loss_that_is_not_one_number_an_example_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"example of the batch, \(4,\); got numbers of the shape"):
        masked_mean(jnp.zeros(shape), jnp.ones(4, bool))


def batch(soft: bool) -> dict:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 5, 6).astype(np.int32)
    return {
        "image": rng.integers(0, 256, (6, 8, 8, 1), dtype=np.uint8),
        "label": np.eye(5, dtype=np.float32)[label] if soft else label,
        "mask": np.array([True] * 4 + [False] * 2),
    }


def test_padding_changes_neither_loss_nor_accuracy_nor_is_it_differently_taken_when_soft() -> None:
    network = create("cnn", 5, preprocess=Preprocess(size=8), width=4)
    task = Classify(SigmoidCrossEntropy())
    params, state = task.initialise(network, jax.random.key(0), batch(False))
    outputs = task.predict(network, params, state, batch(False))
    assert outputs.logits.shape == (6, 5)
    found = []
    for soft in (False, True):
        loss, (new, metrics) = task.loss(
            network, params, state, batch(soft), jax.random.key(1), jnp.float32(0)
        )
        found.append((float(loss), float(metrics["accuracy"])))
        assert jax.tree.structure(new) == jax.tree.structure(state)
    assert found[0] == found[1]
    other = batch(False)
    other["label"] = np.where(other["mask"], other["label"], 4).astype(np.int32)
    again, (_, metrics) = task.loss(
        network, params, state, other, jax.random.key(1), jnp.float32(0)
    )
    assert (float(again), float(metrics["accuracy"])) == found[0]
