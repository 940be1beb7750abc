"""Many names in little memory."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import final, overload

import numpy as np

_AT_ONCE = 65_536  # names that are gathered together, so that little is needed beside them


@final
class Names(Sequence[str]):
    """Strings, one after another in a byte buffer: a name costs its bytes and 8 more.

    What is no UTF-8 in the name of a file comes back as Python has it (`surrogateescape`).

    >>> names = Names.of(["a/1.png", "ü.png"])
    >>> names[1], len(names), list(names.take([1, 1]))
    ('ü.png', 2, ['ü.png', 'ü.png'])
    """

    def __init__(self, buffer: np.ndarray, offsets: np.ndarray):
        """`buffer`: uint8 (bytes,); `offsets`: int64 (n + 1,), where each name begins, and ends."""
        self.buffer, self.offsets = buffer, offsets

    @classmethod
    def of(cls, names: Iterable[str]) -> "Names":
        """The given names, in their order."""
        buffer, offsets = bytearray(), array("q", [0])
        for name in names:
            buffer += name.encode("utf-8", "surrogateescape")
            offsets.append(len(buffer))
        return cls(np.frombuffer(buffer, np.uint8), np.frombuffer(offsets, np.int64))

    def take(self, places: np.ndarray | Sequence[int]) -> "Names":
        """The names at `places` (n,), in that order."""
        places = np.asarray(places, np.int64)
        offsets = np.zeros(len(places) + 1, np.int64)
        np.cumsum(self.offsets[places + 1] - self.offsets[places], out=offsets[1:])
        buffer = np.empty(offsets[-1], np.uint8)
        for first in range(0, len(places), _AT_ONCE):
            ends = offsets[first : first + _AT_ONCE + 1]
            starts = self.offsets[places[first : first + _AT_ONCE]]
            within = np.arange(ends[0], ends[-1])
            within += np.repeat(starts - ends[:-1], np.diff(ends))
            buffer[ends[0] : ends[-1]] = self.buffer[within]
        return Names(buffer, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Names": ...
    def __getitem__(self, place: int | slice) -> "str | Names":
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        if not -len(self) <= place < len(self):
            raise IndexError(f"there are {len(self)} names; got place {place}")
        place %= len(self)
        start, stop = int(self.offsets[place]), int(self.offsets[place + 1])
        return self.buffer[start:stop].tobytes().decode("utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Names):
            return np.array_equal(self.offsets, other.offsets) and np.array_equal(
                self.buffer, other.buffer
            )
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(map(str.__eq__, self, other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]


def chosen(names: Sequence[str], places: np.ndarray) -> Sequence[str]:
    """The `names` at `places` (n,), in that order: each is looked up when it is asked for."""
    return _Made(places, names.__getitem__)


def counted(before: str, n: int) -> Sequence[str]:
    """`before`0, `before`1, ...: each is made when it is asked for.

    >>> list(counted("record", 3)[1:])
    ['record1', 'record2']
    """
    return _Made(range(n), lambda i: f"{before}{i}")


@final
class _Made(Sequence[str]):
    def __init__(self, places: np.ndarray | Sequence[int], name_of: Callable[[int], str]):
        self._places, self._name_of = places, name_of

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "_Made": ...
    def __getitem__(self, place: int | slice) -> "str | _Made":
        if isinstance(place, slice):
            return _Made(self._places[place], self._name_of)
        return self._name_of(int(self._places[place]))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(map(str.__eq__, self, other))
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]
