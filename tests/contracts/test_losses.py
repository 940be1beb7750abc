"""What every loss promises."""

import pickle
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imgclf.errors import UserError
from imgclf.losses import CrossEntropy, Loss, SigmoidCrossEntropy

KINDS = {
    "cross-entropy": CrossEntropy(),
    "cross-entropy smoothed": CrossEntropy(label_smoothing=0.1),
    "cross-entropy weighted": CrossEntropy(class_weights=(1.0, 2.0, 0.5, 1.0, 3.0)),
    "sigmoid": SigmoidCrossEntropy(),
    "sigmoid smoothed mean": SigmoidCrossEntropy(label_smoothing=0.1, reduction="mean"),
}
EXAMPLES, CLASSES = 16, 5


def inputs():
    random = np.random.default_rng(0)
    logits = random.normal(size=(EXAMPLES, CLASSES)).astype(np.float32)
    return logits, {"label": random.integers(0, CLASSES, EXAMPLES).astype(np.int32)}


def value(loss, logits, batch):
    return loss(SimpleNamespace(logits=jnp.asarray(logits)), batch)


@pytest.fixture(params=KINDS)
def loss(request):
    return KINDS[request.param]


def test_every_kind_is_in_this_battery():
    kinds = {kind for kind in Loss.__subclasses__() if kind.__module__ == "imgclf.losses"}
    assert {type(loss) for loss in KINDS.values()} == kinds


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_one_float32_number_for_each_example_whatever_the_logits_are(loss, dtype):
    logits, batch = inputs()
    logits = jnp.asarray(logits).astype(dtype)
    result = value(loss, logits, batch)
    assert result.shape == (EXAMPLES,) and result.dtype == jnp.float32
    assert bool((result > 0).all())
    exact = value(loss, logits.astype(jnp.float32), batch)
    np.testing.assert_array_equal(result, exact)


def test_jit_changes_nothing(loss):
    logits, batch = inputs()
    traced = jax.jit(lambda logits, batch: value(loss, logits, batch))(logits, batch)
    np.testing.assert_allclose(traced, value(loss, logits, batch), rtol=1e-6)


def test_integer_and_one_hot_labels_come_to_the_same(loss):
    logits, batch = inputs()
    soft = {"label": np.eye(CLASSES, dtype=np.float32)[batch["label"]]}
    np.testing.assert_array_equal(value(loss, logits, soft), value(loss, logits, batch))


def test_loss_is_linear_in_the_labels_so_that_mixing_may_come_first(loss):
    logits, batch = inputs()
    one = np.eye(CLASSES, dtype=np.float32)[batch["label"]]
    other = one[::-1]
    mixed = value(loss, logits, {"label": 0.3 * one + 0.7 * other})
    parts = [np.asarray(value(loss, logits, {"label": label})) for label in (one, other)]
    np.testing.assert_allclose(mixed, 0.3 * parts[0] + 0.7 * parts[1], rtol=1e-5)


def test_an_example_is_not_touched_by_another(loss):
    logits, batch = inputs()
    changed = logits.copy()
    changed[3] += 5 * np.arange(CLASSES)
    differs = np.asarray(value(loss, logits, batch) != value(loss, changed, batch))
    assert differs.nonzero()[0].tolist() == [3]


def test_raising_the_true_logit_lowers_the_loss(loss):
    logits, batch = inputs()
    gradient = jax.grad(lambda logits: value(loss, logits, batch).sum())(0 * logits)
    assert bool((jnp.take_along_axis(gradient, batch["label"][:, None], 1) < 0).all())


def test_huge_logits_give_finite_losses_and_gradients(loss):
    logits, batch = inputs()
    total, gradient = jax.value_and_grad(lambda x: value(loss, x, batch).sum())(1e4 * logits)
    assert np.isfinite(total) and np.isfinite(gradient).all()


def test_labels_of_other_classes_are_an_error(loss):
    logits, _ = inputs()
    with pytest.raises(UserError, match="must have the network's 5 classes; got 4"):
        value(loss, logits, {"label": np.zeros((EXAMPLES, 4), np.float32)})


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
@pytest.mark.parametrize("kind", [CrossEntropy, SigmoidCrossEntropy])
def test_bad_smoothing_is_one_line(kind, smoothing):
    logits, batch = inputs()
    with pytest.raises(UserError, match=r"^The `label_smoothing` of `\w+` must lie in .*; got"):
        value(kind(label_smoothing=smoothing), logits, batch)


def test_value_can_be_hashed_compared_and_pickled(loss):
    assert pickle.loads(pickle.dumps(loss)) == loss
    assert hash(pickle.loads(pickle.dumps(loss))) == hash(loss)
