"""Schedules: their shape, their ends, and who may call them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.errors import UserError
from imgclf.schedules import Constant, Cosine, Linear
from imgclf.units import Epochs, Examples, Fraction, Never, Steps

KINDS = [Constant, Cosine, Linear]


def values(schedule, steps, steps_per_epoch=10.0):
    return np.asarray(schedule.build(steps, steps_per_epoch)(jnp.arange(steps)))


@pytest.mark.parametrize("kind", KINDS)
def test_warmup_rises_evenly_from_above_zero_to_the_peak(kind):
    rates = values(kind(peak=1.0, warmup=Epochs(0.4)), 100)
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)
    assert rates.argmax() == 4


@pytest.mark.parametrize("kind", KINDS)
def test_without_warmup_the_first_update_is_at_the_peak(kind):
    assert values(kind(peak=0.3), 7)[0] == np.float32(0.3)


def test_constant_stays():
    assert (values(Constant(0.3, warmup=Steps(2)), 9)[2:] == np.float32(0.3)).all()


@pytest.mark.parametrize("kind", [Cosine, Linear])
def test_end_is_reached_just_after_the_last_update_and_kept(kind):
    rate = kind(peak=1.0, warmup=Steps(3), end=0.25).build(50, 10)
    assert float(rate(49)) > 0.25
    assert float(rate(50)) == float(rate(51)) == 0.25


def test_cosine_and_linear_are_their_formulas():
    steps = np.arange(10, 40)
    done = (steps - 10) / 30
    cosine = 0.1 + 0.9 * (1 + np.cos(np.pi * done)) / 2
    linear = 0.1 + 0.9 * (1 - done)
    settings = {"peak": 1.0, "warmup": Epochs(1), "end": 0.1}
    np.testing.assert_allclose(values(Cosine(**settings), 40)[10:], cosine, rtol=1e-5)
    np.testing.assert_allclose(values(Linear(**settings), 40)[10:], linear, rtol=1e-5)


@settings(deadline=None, max_examples=50)
@given(
    kind=st.sampled_from(KINDS),
    steps=st.integers(1, 60),
    share=st.floats(0, 1),
    peak=st.floats(1e-4, 10),
)
def test_every_update_moves_and_none_exceeds_the_peak(kind, steps, share, peak):
    rate = kind(peak=peak, warmup=Fraction(share)).build(steps, 10.0)
    rates = np.asarray(rate(jnp.arange(60)))[:steps]
    assert rates.min() > 0
    assert rates.max() <= np.float32(peak)


@pytest.mark.parametrize("kind", KINDS)
def test_int_and_traced_step_give_the_same(kind):
    rate = kind(peak=0.1, warmup=Steps(5)).build(100, 10)
    assert rate(7).dtype == jnp.float32
    np.testing.assert_allclose(jax.jit(rate)(jnp.int32(7)), rate(7), rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("warmup", [Epochs(11), Steps(101), Fraction(1.5), Never(), Steps(-1)])
def test_warmup_longer_than_the_run_is_an_error(kind, warmup):
    with pytest.raises(UserError, match=rf"^The `warmup` of `{kind.__name__}` must .*100 steps"):
        kind(peak=0.1, warmup=warmup).build(100, 10)


def test_warmup_in_examples_says_which_units_there_are():
    with pytest.raises(UserError, match="must be given in steps, epochs"):
        Cosine(peak=0.1, warmup=Examples(1000)).build(100, 10)


@pytest.mark.parametrize("wrong", [Constant(-0.1), Cosine(0.1, end=-1.0), Linear(float("nan"))])
def test_negative_rate_is_an_error(wrong):
    with pytest.raises(UserError, match=r"^The `\w+` of `\w+` must be 0 or more; got"):
        wrong.build(100, 10)
