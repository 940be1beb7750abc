"""Sources made of other sources: some of the examples of one, or all under other labels."""

import abc
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from imgclf.data.names import Names, chosen
from imgclf.data.source import Source, carried
from imgclf.errors import UserError


class Part(Source):
    """Some of the examples of `source`, in ascending order; a kind says which."""

    source: Source

    @abc.abstractmethod
    def _choose(self) -> np.ndarray:
        """The places in `source` of the examples, ascending."""

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    def labels(self) -> np.ndarray:
        return self.source.labels()[self._chosen]

    def ids(self) -> Sequence[str]:
        return self._ids

    def read(self, i: int) -> bytes | np.ndarray:
        return self.source.read(int(self._chosen[i]))

    def place(self, i: int) -> tuple[str, int]:
        """Where example i lies, where `source` says so."""
        return place_of(self.source, int(self._chosen[i]))

    def column(self, name: str) -> Sequence[str]:
        """The values of a column of `source`, where it has columns."""
        return _taken(column_of(self, self.source, name), self._chosen)

    def parts(self) -> np.ndarray:
        """Which source of a mixture each example comes from, where `source` is a mixture."""
        return parts_of(self, self.source)[self._chosen]

    @cached_property
    def _ids(self) -> Sequence[str]:
        return chosen(self.source.ids(), self._chosen)

    @carried
    def _chosen(self) -> np.ndarray:
        return self._choose()


class Renamed(Source):
    """All examples of `source`, under other labels or classes; a kind says under which."""

    source: Source

    def __len__(self) -> int:
        return len(self.source)

    def ids(self) -> Sequence[str]:
        return self.source.ids()

    def read(self, i: int) -> bytes | np.ndarray:
        return self.source.read(i)

    def place(self, i: int) -> tuple[str, int]:
        """Where example i lies, where `source` says so."""
        return place_of(self.source, i)

    def column(self, name: str) -> Sequence[str]:
        """The values of a column of `source`, where it has columns."""
        return column_of(self, self.source, name)

    def parts(self) -> np.ndarray:
        """Which source of a mixture each example comes from, where `source` is a mixture."""
        return parts_of(self, self.source)


def place_of(source: Source, i: int) -> tuple[str, int]:
    """The file of example i and its place in it; ("", 0) where the source does not say."""
    place = getattr(source, "place", None)
    return place(i) if place else ("", 0)


def column_of(owner: Source, source: Source, name: str) -> Sequence[str]:
    """The values (n,) of the column `name` of `source`; a `UserError` where it has no columns."""
    column = getattr(source, "column", None)
    if column is None:
        raise UserError(
            f"The `source` of `{type(owner).__name__}` must have columns, as a table has; got "
            f"`{type(source).__name__}`"
        )
    return column(name)


def parts_of(owner: object, source: Source) -> np.ndarray:
    """Which source of a mixture each example comes from (n,); a `UserError` where it is none."""
    parts = getattr(source, "parts", None)
    if parts is None:
        raise UserError(
            f"The source of `{type(owner).__name__}` must be a `Mixture`; got "
            f"`{type(source).__name__}`"
        )
    return parts()


def single_labels(owner: object, source: Source) -> np.ndarray:
    """The one class of each example, int32 (n,); soft labels count as their greatest entry.

    Raises a `UserError` where an example has several classes, or none.
    """
    labels = source.labels()
    if labels.ndim == 1:
        return labels.astype(np.int32)
    totals = labels.sum(1)
    (wrong,) = np.nonzero(np.abs(totals - 1) > 1e-3)
    if len(wrong):
        raise UserError(
            f"The source of `{type(owner).__name__}` must have one class for each image, or labels "
            f"that add up to 1; those of {source.ids()[int(wrong[0])]!r} add up to "
            f"{totals[wrong[0]]:g}"
        )
    return labels.argmax(1).astype(np.int32)


def _taken(values: Sequence[str], places: np.ndarray) -> Sequence[str]:
    return values.take(places) if isinstance(values, Names) else [values[i] for i in places]
