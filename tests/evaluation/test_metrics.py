"""Metrics against scikit-learn's, and at their edges."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.special
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from imgclf.errors import UserError
from imgclf.evaluation import (
    Predictions,
    accuracy,
    are_sets,
    confusion,
    cross_entropy,
    evaluate,
    per_class,
    top_k_correct,
)


def random_case(seed, n=200, k=7):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, k)).astype(np.float32)
    labels = random.integers(0, k, n).astype(np.int32)
    logits[np.arange(n), labels] += 1
    return logits, labels


def predictions(logits, labels):
    names = tuple(str(i) for i in range(logits.shape[1]))
    return Predictions(logits, labels, [str(i) for i in range(len(logits))], names)


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_scikit_learns(seed):
    logits, labels = random_case(seed)
    labels[labels == 3] = 4  # a class that does not occur
    said = logits.argmax(-1)
    metrics = evaluate(predictions(logits, labels))
    assert metrics.right == (said == labels).sum() and metrics.total == 200
    np.testing.assert_array_equal(
        metrics.confusion, reference.confusion_matrix(labels, said, labels=range(7))
    )
    expected = reference.precision_recall_fscore_support(
        labels, said, labels=range(7), zero_division=0
    )
    ours = metrics.per_class
    for found, right in zip(
        (ours.precision, ours.recall, ours.f1, ours.support), expected, strict=True
    ):
        np.testing.assert_allclose(found, right)
    for average, found in (("macro", ours.macro()), ("weighted", ours.weighted())):
        expected = reference.precision_recall_fscore_support(
            labels, said, average=average, zero_division=0
        )
        np.testing.assert_allclose(list(found.values()), expected[:3])
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=-1)
    loss = reference.log_loss(labels, probabilities, labels=range(7))
    np.testing.assert_allclose(metrics.loss, loss, rtol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 5, 7, 9])
def test_top_k_is_scikit_learns_where_no_logits_are_equal(k):
    logits, labels = random_case(0)
    expected = reference.top_k_accuracy_score(labels, logits, k=min(k, 6), normalize=False)
    expected = len(logits) if k >= 7 else expected
    assert top_k_correct(logits, labels, k).sum() == expected


@given(
    rows=st.lists(st.lists(st.integers(-2, 2), min_size=4, max_size=4), min_size=1, max_size=20),
    label=st.integers(0, 3),
    k=st.integers(1, 4),
)
def test_equal_logits_are_taken_in_the_order_of_the_classes(rows, label, k):
    logits, labels = np.array(rows, np.float32), np.full(len(rows), label, np.int32)
    top = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    expected = (top == label).any(axis=1)
    np.testing.assert_array_equal(top_k_correct(logits, labels, k), expected)


def test_all_equal_logits_are_not_all_right():
    logits, labels = np.zeros((10, 10), np.float32), np.arange(10, dtype=np.int32)
    assert top_k_correct(logits, labels, 1).sum() == 1
    assert top_k_correct(logits, labels, 5).sum() == 5


def test_logit_that_is_not_a_number_is_wrong_and_makes_the_loss_so():
    logits, labels = random_case(0, n=6, k=3)
    logits[:, 0] = np.nan
    metrics = evaluate(predictions(logits, labels))
    assert metrics.right == metrics.top5_right == metrics.confusion.sum() == 0
    assert np.isnan(metrics.loss)


def test_infinite_logit_warns_nobody():
    logits, labels = random_case(0, n=6, k=3)
    logits[2, 1] = np.inf
    assert np.isnan(cross_entropy(logits, labels))


def test_soft_labels_count_by_their_greatest_class_and_weigh_the_loss():
    logits, labels = random_case(0, k=3)
    soft = 0.8 * np.eye(3, dtype=np.float32)[labels] + np.float32(0.2 / 3)
    assert accuracy(logits, soft) == accuracy(logits, labels)
    np.testing.assert_array_equal(confusion(logits, soft), confusion(logits, labels))
    uniform = cross_entropy(logits, np.full((200, 3), 1 / 3, np.float32))
    expected = 0.8 * cross_entropy(logits, labels) + 0.2 * uniform
    assert cross_entropy(logits, soft) == pytest.approx(expected, rel=1e-6)


def test_many_examples_in_pieces_give_what_they_give_whole():
    logits, labels = random_case(0, n=10_000, k=3)
    parts = [(logits[i : i + 2500], labels[i : i + 2500]) for i in range(0, 10_000, 2500)]
    assert cross_entropy(logits, labels) == pytest.approx(
        np.mean([cross_entropy(*part) for part in parts]), rel=1e-12
    )
    expected = np.concatenate([top_k_correct(*part, 1) for part in parts])
    np.testing.assert_array_equal(top_k_correct(logits, labels, 1), expected)


def test_no_examples_give_zeros_and_no_warning():
    metrics = evaluate(predictions(np.zeros((0, 3), np.float32), np.zeros(0, np.int32)))
    assert set(metrics.as_dict().values()) == {0}


def test_classes_never_met_do_not_pull_the_mean_down():
    matrix = np.diag([5, 5, 0, 0])
    assert per_class(matrix).macro() == {"precision": 1.0, "recall": 1.0, "f1": 1.0}


def test_numbers_go_into_json():
    found = evaluate(predictions(*random_case(0))).as_dict()
    assert json.loads(json.dumps(found)) == found
    assert found["accuracy"] == found["right"] / found["total"]
    assert found["top5_accuracy"] > found["accuracy"] > 0.3


def test_predictions_that_do_not_fit_are_refused():
    logits, _ = random_case(0)
    with pytest.raises(UserError, match="labels"):
        evaluate(predictions(logits, np.zeros(3, np.int32)))


@pytest.mark.parametrize("seed", range(3))
def test_of_sets_of_classes_numbers_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((200, 7)) < 0.3).astype(np.float32)
    labels[:, 3] = 0  # a class that does not occur
    logits = (rng.normal(size=(200, 7)) + labels - 0.5).astype(np.float32)
    said = logits > 0
    found = evaluate(predictions(logits, labels))
    options = {"average": None, "zero_division": 0}
    for name, own in (("precision", "precision"), ("recall", "recall"), ("f1", "f1")):
        expected = getattr(reference, f"{name}_score")(labels, said, **options)
        np.testing.assert_allclose(getattr(found.per_class, own), expected)
    others = np.delete(np.arange(7), 3)
    expected = reference.average_precision_score(labels[:, others], logits[:, others])
    assert found.as_dict()["mean_average_precision"] == pytest.approx(expected)
    assert np.isnan(found.average_precision[3])
    own = -labels * np.log(scipy.special.expit(logits))
    others = -(1 - labels) * np.log(scipy.special.expit(-logits))
    assert found.loss == pytest.approx((own + others).sum(1).mean(), rel=1e-5)
    assert found.right == labels[np.arange(200), logits.argmax(1)].sum()
    assert found.confusion[1, 2] == (said[:, 2] & (labels[:, 1] > 0)).sum()


def test_sets_of_classes_are_told_from_shares_of_one():
    shares = np.array([[0.5, 0.5, 0], [0, 0.2, 0.8]], np.float32)
    assert not are_sets(shares) and not are_sets(np.array([0, 1]))
    assert are_sets(np.ceil(shares)) and are_sets(np.zeros((1, 3)))
    assert "mean_average_precision" not in evaluate(predictions(shares, shares)).as_dict()


def test_rounded_soft_labels_are_no_sets_of_classes():
    rng = np.random.default_rng(0)
    labels = rng.dirichlet(np.ones(10), 500).round(2).astype(np.float32)
    logits = rng.normal(size=(500, 10)).astype(np.float32)
    assert (np.abs(labels.sum(1) - 1) > 5e-3).any() and not are_sets(labels)
    found = evaluate(predictions(logits, labels))
    assert found.right == (logits.argmax(1) == labels.argmax(1)).sum()
    assert found.loss == cross_entropy(logits, labels) and found.mean_average_precision is None


def test_one_of_k_is_a_set_where_classes_are_independent():
    logits, labels = random_case(0)
    one_hot = np.eye(7, dtype=np.float32)[labels]
    assert not are_sets(one_hot) and are_sets(one_hot, independent=True)
    found = evaluate(dataclasses.replace(predictions(logits, one_hot), independent=True))
    expected = reference.average_precision_score(one_hot, logits)
    assert found.mean_average_precision == pytest.approx(expected)
    assert found.right == (logits.argmax(1) == labels).sum()


def test_an_odd_logit_costs_its_own_example_alone():
    labels = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]], np.float32)
    logits = np.array([[np.nan, 1, 0], [0, np.inf, 1], [2, 0, 1]], np.float32)
    found = evaluate(predictions(logits, labels))
    assert (found.right, found.total) == (2, 3)


def test_probabilities_of_independent_classes_are_sigmoids():
    logits = np.array([[-100, 0, 3, 100]], np.float32)
    shares = dataclasses.replace(
        predictions(logits, np.array([0])), independent=True
    ).probabilities()
    np.testing.assert_allclose(shares, scipy.special.expit(logits.astype(float)), atol=1e-7)
