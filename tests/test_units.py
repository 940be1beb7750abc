import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.errors import UserError
from imgclf.units import Epochs, Examples, Fraction, Never, Steps, Unit, parse


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("10epochs", Epochs(10)),
        ("1epoch", Epochs(1)),
        ("0.5epochs", Epochs(0.5)),
        ("500steps", Steps(500)),
        ("500 steps", Steps(500)),
        ("1e6examples", Examples(1_000_000)),
        ("0.1fraction", Fraction(0.1)),
        ("never", Never()),
    ],
)
def test_a_duration_is_read_as_it_is_written(text: str, unit: Unit) -> None:
    assert parse(text) == unit


@pytest.mark.parametrize(
    "text", ["10", "epochs", "-3steps", "10 weeks", "1.2.3steps", "", "nansteps"]
)
def test_a_duration_without_number_or_unit_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="A duration must be a number with its unit"):
        parse(text)


@given(st.sampled_from([Steps, Epochs, Examples, Fraction]), st.integers(0, 10**5))
def test_text_and_value_of_a_duration_are_the_same(kind: type[Unit], amount: int) -> None:
    assert parse(str(kind(amount))) == kind(amount)


def test_durations_are_counted_in_steps() -> None:
    assert Steps(7).in_steps(10.5) == 7
    assert Epochs(2).in_steps(10.5) == 21
    assert Examples(640).in_steps(10.5, batch_size=64) == 10
    assert Fraction(0.5).in_steps(10.5, steps=30) == 15
    assert Never().in_steps(10.5) == math.inf


def test_examples_and_fractions_need_to_know_of_what() -> None:
    with pytest.raises(UserError, match="640examples"):
        Examples(640).in_steps(10.5)
    with pytest.raises(UserError, match=r"0\.5fraction"):
        Fraction(0.5).in_steps(10.5)
