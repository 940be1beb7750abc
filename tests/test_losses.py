"""Losses against their formulas."""

from types import SimpleNamespace

import numpy as np
import pytest

from imgclf.errors import UserError
from imgclf.losses import CrossEntropy, SigmoidCrossEntropy

LOGITS = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]], np.float32)
LABELS = np.array([1, 0], np.int32)
SOFT = np.array([[0.2, 0.8, 0.0], [0.5, 0.0, 0.5]], np.float32)


def value(loss, labels, logits=LOGITS):
    return np.asarray(loss(SimpleNamespace(logits=logits), {"label": labels}))


def softmax(logits):
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(-1, keepdims=True)


def binary(target):
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    return -(target * np.log(p) + (1 - target) * np.log(1 - p))


def test_cross_entropy_is_minus_the_log_of_the_true_probability():
    expected = -np.log(softmax(LOGITS)[[0, 1], LABELS])
    np.testing.assert_allclose(value(CrossEntropy(), LABELS), expected, rtol=1e-6)


def test_cross_entropy_of_soft_labels_weighs_the_classes():
    expected = -(SOFT * np.log(softmax(LOGITS))).sum(-1)
    np.testing.assert_allclose(value(CrossEntropy(), SOFT), expected, rtol=1e-6)


def test_smoothing_spreads_its_share_over_all_classes_the_true_one_too():
    target = 0.7 * np.eye(3)[LABELS] + 0.3 / 3
    expected = -(target * np.log(softmax(LOGITS))).sum(-1)
    np.testing.assert_allclose(value(CrossEntropy(0.3), LABELS), expected, rtol=1e-6)


def test_weights_of_classes_multiply_the_smoothed_target_class_by_class():
    weights = (1.0, 3.0, 0.5)
    expected = -np.array(weights)[LABELS] * np.log(softmax(LOGITS)[[0, 1], LABELS])
    np.testing.assert_allclose(
        value(CrossEntropy(class_weights=weights), LABELS), expected, rtol=1e-6
    )
    target = 0.7 * np.eye(3)[LABELS] + 0.3 / 3
    smoothed = -(np.array(weights) * target * np.log(softmax(LOGITS))).sum(-1)
    np.testing.assert_allclose(value(CrossEntropy(0.3, weights), LABELS), smoothed, rtol=1e-6)


def test_weights_for_another_number_of_classes_are_an_error():
    with pytest.raises(UserError, match="must be one for each of the 3 classes; got 2"):
        value(CrossEntropy(class_weights=(1.0, 2.0)), LABELS)


def test_sigmoid_sums_the_classes_and_mean_divides_by_their_number():
    expected = binary(np.eye(3)[LABELS])
    np.testing.assert_allclose(value(SigmoidCrossEntropy(), LABELS), expected.sum(-1), rtol=1e-6)
    mean = value(SigmoidCrossEntropy(reduction="mean"), LABELS)
    np.testing.assert_allclose(mean, expected.mean(-1), rtol=1e-6)


def test_sigmoid_takes_several_true_classes_and_smooths_them_after():
    many = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    expected = binary(0.9 * many + 0.1 / 3).sum(-1)
    np.testing.assert_allclose(value(SigmoidCrossEntropy(0.1), many), expected, rtol=1e-6)


def test_unknown_reduction_is_an_error():
    with pytest.raises(UserError, match="must be 'sum' or 'mean'; got 'max'"):
        value(SigmoidCrossEntropy(reduction="max"), LABELS)  # type: ignore[arg-type]
