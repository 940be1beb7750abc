"""Which example stands at which position of the endless training stream: a pure function."""

from dataclasses import dataclass
from typing import Protocol, final

import numpy as np

from imgclf.errors import UserError

_MASK = (1 << 64) - 1
_ROUNDS = 6
_MOST = 1 << 40
_STRIDE = np.uint64(0xD1B54A32D192ED03)  # odd: each round has a key of its own


class Stream(Protocol):
    """An endless stream of examples, any part of which is had without what comes before it."""

    @property
    def n(self) -> int:
        """How many positions make an epoch."""

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Indices into the source, int64, for `positions` in the stream (0 or more, any shape)."""


@final
@dataclass(frozen=True)
class Order:
    """Every example once an epoch, each epoch in an order of its own.

    Position p belongs to epoch p // n. The example there is a keyed permutation of p % n: a Feistel
    network over a rectangle of n places or a few more, walked until it falls below n (Black and
    Rogaway, 2002). So any part of the stream is had without what comes before it.

    >>> import numpy as np
    >>> Order(n=5, seed=0).ids(np.arange(10)).tolist()
    [0, 1, 4, 3, 2, 0, 4, 3, 2, 1]
    """

    n: int
    """Number of examples of the source, 1 to 2**40."""
    seed: int
    """Whole number that the order is drawn from."""
    shuffle: bool = True
    """False: every epoch in the order of the source."""

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Indices into the source, int64, for `positions` in the stream (0 or more, any shape)."""
        if not 1 <= self.n <= _MOST:
            raise UserError(f"The `n` of `Order` must be 1 to 2**40 examples; got {self.n}")
        positions = np.asarray(positions, np.int64)
        epochs, places = np.divmod(positions.reshape(-1), self.n)
        if self.shuffle and self.n > 1:
            seed = np.array([self.seed & _MASK], np.uint64)
            places = _permuted(places.astype(np.uint64), self.n, _keys(seed, epochs))
        return places.astype(np.int64).reshape(positions.shape)


@final
class GroupOrder:
    """Every group of examples as often as its quota says in each epoch, in an order of its own.

    An epoch has n = `quotas.sum()` positions. A keyed permutation takes each to a group and a rank
    below the group's quota, and the example is the one at position epoch * quota + rank of the
    group's own `Order`: so its members come equally often, to within one, after any epoch.
    """

    def __init__(self, groups: np.ndarray, quotas: np.ndarray, seed: int):
        """`groups`: the group of each example, 0 to g - 1; `quotas`: whole numbers (g,)."""
        self._quotas = np.asarray(quotas, np.int64)
        self._counts = np.bincount(groups, minlength=len(self._quotas)).astype(np.int64)
        if not (self._quotas[self._counts == 0] == 0).all():
            raise ValueError("a group without examples must have a quota of 0")
        small = len(groups) <= np.iinfo(np.int32).max
        self._members = np.argsort(groups, kind="stable").astype(np.int32 if small else np.int64)
        self._starts = np.cumsum(self._counts) - self._counts
        self._ends = np.cumsum(self._quotas)
        self.n = int(self._quotas.sum())
        self._slots = Order(self.n, seed)
        numbers = np.arange(1, len(self._quotas) + 1, dtype=np.uint64)
        self.seeds = _mixed(np.array([seed & _MASK], np.uint64)) ^ _mixed(numbers)

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """Indices into the source, int64, for `positions` in the stream (0 or more, any shape)."""
        positions = np.asarray(positions, np.int64)
        flat = positions.reshape(-1)
        slots = self._slots.ids(flat)
        group = np.searchsorted(self._ends, slots, side="right")
        quota, count = self._quotas[group], self._counts[group]
        rank = slots - (self._ends[group] - quota)
        epochs, places = np.divmod(flat // self.n * quota + rank, count)
        keys = _keys(self.seeds[group], epochs)
        within = _permuted(places.astype(np.uint64), count.astype(np.uint64), keys)
        found = self._members[self._starts[group] + within.astype(np.int64)]
        return found.astype(np.int64).reshape(positions.shape)


def _keys(seeds: np.ndarray, epochs: np.ndarray) -> np.ndarray:
    return _mixed(_mixed(seeds) ^ epochs.astype(np.uint64))


def _permuted(places: np.ndarray, n: int | np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Each place below `n` taken to one below `n`, by the permutation of its key."""
    n = np.broadcast_to(np.asarray(n, np.uint64), places.shape)
    one = np.uint64(1)
    wide = np.sqrt(n - one).astype(np.uint64) + one  # exact for whole numbers below 2**52
    high = (n + wide - one) // wide
    places = _feistel(places, wide, high, keys)
    (outside,) = np.nonzero(places >= n)
    while outside.size:
        places[outside] = _feistel(places[outside], wide[outside], high[outside], keys[outside])
        outside = outside[places[outside] >= n[outside]]
    return places


def _feistel(
    places: np.ndarray, wide: np.ndarray, high: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    # Half a round shifts one coordinate by a function of the other, in turn: this can be undone
    # whatever the function is, so that no two places meet.
    y, x = np.divmod(places, wide)
    for _ in range(_ROUNDS):
        keys = keys + _STRIDE
        x = (x + _mixed(keys ^ y) % wide) % wide
        keys = keys + _STRIDE
        y = (y + _mixed(keys ^ x) % high) % high
    return y * wide + x


def _mixed(x: np.ndarray) -> np.ndarray:
    # splitmix64 (Steele, Lea and Flood, 2014); arrays wrap around silently, as it needs.
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
