"""Several sources as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from imgclf.data.names import Names
from imgclf.data.parts import column_of, place_of
from imgclf.data.source import Source, fixed_shape
from imgclf.errors import UserError


@final
@dataclass(frozen=True)
class Mixture(Source):
    """All examples of several sources, one source after the other.

    Classes of one name are one class; they stand in the order in which they first appear. The
    sampling `Mixed` says how often each source comes; else all examples come equally often.
    """

    sources: tuple[Source, ...]
    """What is joined: encoded images, or arrays of one shape. Their ids get a number in front."""

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for source in self.sources for name in source.classes))

    def labels(self) -> np.ndarray:
        each = [source.labels() for source in self.sources]
        place = {name: i for i, name in enumerate(self.classes)}
        places = [np.array([place[name] for name in source.classes]) for source in self.sources]
        if all(labels.ndim == 1 for labels in each):
            moved = [to[labels] for to, labels in zip(places, each, strict=True)]
            return np.concatenate(moved).astype(np.int32)
        soft = np.zeros((len(self), len(place)), np.float32)
        starts = self._ends - [len(labels) for labels in each]
        for start, end, to, labels in zip(starts, self._ends, places, each, strict=True):
            if labels.ndim == 1:
                soft[np.arange(start, end), to[labels]] = 1
            else:
                soft[start:end, to] = labels
        return soft

    def ids(self) -> Sequence[str]:
        return self._ids

    def read(self, i: int) -> bytes | np.ndarray:
        source, place = self._found(i)
        return source.read(place)

    def place(self, i: int) -> tuple[str, int]:
        """Where example i lies, where its source says so."""
        return place_of(*self._found(i))

    def _found(self, i: int) -> tuple[Source, int]:
        number = int(np.searchsorted(self._readable_ends, i, side="right"))
        return self.sources[number], i - int(self._ends[number - 1] if number else 0)

    def column(self, name: str) -> Sequence[str]:
        """The values of a column that all the sources have."""
        return [value for source in self.sources for value in column_of(self, source, name)]

    def parts(self) -> np.ndarray:
        """Which of the sources each example comes from: int32 (n,)."""
        sizes = np.diff(self._ends, prepend=0)
        return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    @cached_property
    def _ids(self) -> Names:
        names = (
            f"{number}/{name}"
            for number, source in enumerate(self.sources)
            for name in source.ids()
        )
        return Names.of(names)

    @cached_property
    def _ends(self) -> np.ndarray:
        if not self.sources:
            raise UserError("The `sources` of `Mixture` must be one or more; got none")
        return np.cumsum([len(source) for source in self.sources])

    @cached_property
    def _readable_ends(self) -> np.ndarray:
        shapes = [fixed_shape(source) for source in self.sources]
        if len(set(shapes)) > 1:
            got = ", ".join("encoded" if shape is None else str(shape) for shape in shapes)
            raise UserError(
                "The `sources` of `Mixture` must give encoded images, or arrays of one shape; got "
                f"{got}"
            )
        return self._ends
