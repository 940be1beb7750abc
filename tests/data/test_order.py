"""The order of examples: each once an epoch, from (seed, position) alone, the same for ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data.order import Order
from imgclf.errors import UserError

sizes = st.integers(1, 700)
seeds = st.integers(-(2**70), 2**70)
M = (1 << 64) - 1


def mixed(x):
    x = (x + 0x9E3779B97F4A7C15) & M
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M
    return x ^ (x >> 31)


def one_at_a_time(n, seed, position):
    """The same order in Python's whole numbers, which cannot overflow."""
    epoch, place = divmod(position, n)
    wide = next(w for w in range(1, n + 1) if w * w >= n)
    high = -(-n // wide)
    while True:
        key = mixed(mixed(seed & M) ^ epoch)
        y, x = divmod(place, wide)
        for _ in range(6):
            key = (key + 0xD1B54A32D192ED03) & M
            x = (x + mixed(key ^ y) % wide) % wide
            key = (key + 0xD1B54A32D192ED03) & M
            y = (y + mixed(key ^ x) % high) % high
        place = y * wide + x
        if place < n:
            return place


@given(n=sizes, seed=seeds, epoch=st.integers(0, 2**20))
def test_every_epoch_holds_every_example_once(n, seed, epoch):
    ids = Order(n, seed).ids(epoch * n + np.arange(n))
    assert ids.dtype == np.int64
    np.testing.assert_array_equal(np.sort(ids), np.arange(n))


@given(n=st.integers(2, 700), seed=seeds, start=st.integers(0, 2**40))
@settings(max_examples=50)
def test_many_positions_at_once_give_the_same_as_one_at_a_time(n, seed, start):
    positions = start + np.arange(40)
    expected = [one_at_a_time(n, seed, int(p)) for p in positions]
    assert Order(n, seed).ids(positions).tolist() == expected


def test_the_order_of_a_seed_does_not_change_between_versions():
    first = [7, 1, 3, 2, 0, 4, 8, 5, 6, 9]
    second = [9, 1, 6, 8, 0, 3, 7, 4, 5, 2]
    assert Order(10, 0).ids(np.arange(20)).tolist() == first + second
    far = np.array([0, 1, 2, 10**9])
    assert Order(1_281_167, 7).ids(far).tolist() == [163941, 511071, 51788, 846664]


@given(n=st.integers(20, 700), seed=st.integers(0, 2**32))
def test_epochs_and_seeds_have_orders_of_their_own(n, seed):
    two = Order(n, seed).ids(np.arange(2 * n)).reshape(2, n)
    assert (two[0] != two[1]).any()
    assert (two[0] != np.arange(n)).any()
    assert (two[0] != Order(n, seed + 1).ids(np.arange(n))).any()


@pytest.mark.parametrize("n", [2, 5, 6, 17])
def test_every_example_is_equally_likely_at_every_place_of_an_epoch(n):
    epochs = 20_000
    ids = Order(n, 3).ids(np.arange(n * epochs)).reshape(epochs, n)
    counts = np.stack([np.bincount(ids[:, place], minlength=n) for place in range(n)])
    spread = np.sqrt(epochs / n * (1 - 1 / n))
    assert np.abs(counts - epochs / n).max() < 5 * spread


def test_neighbours_in_the_source_are_as_likely_to_follow_each_other_as_any_two():
    n, epochs = 11, 20_000
    ids = Order(n, 5).ids(np.arange(n * epochs)).reshape(epochs, n)
    pairs = np.bincount(ids[:, 0] * n + ids[:, 1], minlength=n * n).reshape(n, n)
    assert (np.diag(pairs) == 0).all()
    expected = epochs / (n * (n - 1))
    assert np.abs(pairs[~np.eye(n, dtype=bool)] - expected).max() < 5 * np.sqrt(expected)


def test_without_shuffling_each_epoch_is_in_the_order_of_the_source():
    assert Order(3, 0, shuffle=False).ids(np.arange(7)).tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_one_example_and_a_million_millions_work():
    assert Order(1, 9).ids(np.arange(3)).tolist() == [0, 0, 0]
    n = 2**40
    ids = Order(n, 9).ids(np.arange(1000) + 5 * n)
    assert len(set(ids.tolist())) == 1000
    assert 0 <= ids.min() < n // 100 and n - n // 100 < ids.max() < n


def test_the_shape_of_the_positions_is_kept():
    positions = np.arange(6).reshape(2, 3)
    order = Order(7, 1)
    np.testing.assert_array_equal(order.ids(positions).reshape(-1), order.ids(np.arange(6)))
    assert order.ids(np.array(4)).shape == ()


@pytest.mark.parametrize("n", [0, -1, 2**40 + 1])
def test_no_examples_or_too_many_are_refused_in_a_line(n):
    with pytest.raises(UserError, match=r"The `n` of `Order` must be 1 to 2\*\*40 examples; got"):
        Order(n, 0).ids(np.arange(1))
