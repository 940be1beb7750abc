"""Which example stands at which position of the endless training stream: a pure function."""

import math
from dataclasses import dataclass
from typing import final

import numpy as np

from imgclf.errors import UserError

_MASK = (1 << 64) - 1
_ROUNDS = 6
_MOST = 1 << 40
_STRIDE = np.uint64(0xD1B54A32D192ED03)  # odd: each round has a key of its own


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
            places = _permuted(places.astype(np.uint64), self.n, self._keys(epochs))
        return places.astype(np.int64).reshape(positions.shape)

    def _keys(self, epochs: np.ndarray) -> np.ndarray:
        seed = _mixed(np.array([self.seed & _MASK], np.uint64))
        return _mixed(seed ^ epochs.astype(np.uint64))


def _permuted(places: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    wide = math.isqrt(n - 1) + 1
    sides = np.uint64(wide), np.uint64(-(-n // wide))
    places = _feistel(places, sides, keys)
    (outside,) = np.nonzero(places >= n)
    while outside.size:
        places[outside] = _feistel(places[outside], sides, keys[outside])
        outside = outside[places[outside] >= n]
    return places


def _feistel(
    places: np.ndarray, sides: tuple[np.uint64, np.uint64], keys: np.ndarray
) -> np.ndarray:
    # Half a round shifts one coordinate by a function of the other, in turn: this can be undone
    # whatever the function is, so that no two places meet.
    wide, high = sides
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
