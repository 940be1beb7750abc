"""Many names in little memory."""

from collections.abc import Iterable, Sequence
from typing import final, overload

import numpy as np


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
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    def take(self, places: np.ndarray | Sequence[int]) -> "Names":
        """The names at `places` (n,), in that order."""
        places = np.asarray(places, np.int64)
        starts, lengths = self.offsets[places], np.diff(self.offsets)[places]
        offsets = np.zeros(len(places) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - starts, lengths)
        return Names(self.buffer[within], offsets)

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
