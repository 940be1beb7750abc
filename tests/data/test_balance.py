import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.data import class_weights
from imgclf.data.balance import quotas
from imgclf.errors import UserError

LABELS = np.repeat([0, 1, 2], [64, 16, 4])


@given(
    shares=st.lists(st.floats(0.001, 1000), min_size=1, max_size=20),
    total=st.integers(20, 10**6),
)
def test_quotas_are_whole_numbers_in_proportion_that_add_up(shares, total):
    shares = np.array(shares)
    numbers = quotas(shares, total)
    assert numbers.sum() == total and numbers.min() >= 1
    exact = total * shares / shares.sum()
    large = exact >= 1
    if large.all():
        assert np.abs(numbers - exact).max() < 1 + 1e-5


@pytest.mark.parametrize(
    ("scheme", "ratio"),
    [("balanced", [1, 4, 16]), ("sqrt", [1, 2, 4])],
)
def test_weights_follow_their_scheme_and_leave_the_mean_over_examples_at_one(scheme, ratio):
    weights = np.array(class_weights(LABELS, 3, scheme))
    np.testing.assert_allclose(weights / weights[0], ratio)
    np.testing.assert_allclose(weights[LABELS].mean(), 1)


def test_effective_weights_are_those_of_the_paper_up_to_their_scale():
    weights = np.array(class_weights(LABELS, 3, "effective", beta=0.9))
    paper = np.array([0.1 / (1 - 0.9**n) for n in (64, 16, 4)])
    np.testing.assert_allclose(weights / weights[0], paper / paper[0])
    np.testing.assert_allclose(weights[LABELS].mean(), 1)


def test_several_labels_are_counted_and_a_class_without_examples_gets_a_finite_weight():
    several = np.array([[1, 0, 0], [1, 1, 0]], np.float32)
    assert class_weights(several, 3) == pytest.approx((0.75, 1.5, 1.5))


def test_labels_of_other_classes_and_unknown_schemes_are_refused():
    with pytest.raises(UserError, match="The labels must be of 2 classes; got 3"):
        class_weights(LABELS, 2)
    with pytest.raises(UserError, match="did you mean 'balanced'"):
        class_weights(LABELS, 3, "balance")  # type: ignore[arg-type]
