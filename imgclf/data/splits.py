"""Splitting labelled examples in two, the same way every time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from imgclf.data.names import chosen
from imgclf.data.source import Source, carried
from imgclf.errors import UserError, unknown


def stratified(labels: np.ndarray, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the examples kept, and of the `held_out` others; both ascending.

    Every class is held out in proportion, to within one example. A pure function of its arguments:
    it uses the raw bits of PCG64, which NumPy never changes. Soft labels (n, k) count as their
    greatest entry.
    """
    if not 0 < held_out < len(labels):
        raise UserError(
            f"A split must hold out at least one example and keep one; got {held_out} to be held "
            f"out of {len(labels)}"
        )
    if seed < 0:
        raise UserError(f"The `seed` of a split must be 0 or more; got {seed}")
    strata = labels if labels.ndim == 1 else labels.argmax(1)
    values, counts = np.unique(strata, return_counts=True)
    strata = np.searchsorted(values, strata).astype(np.int32)  # of millions, little is held at once
    exact = counts * held_out
    quota = exact // len(labels)
    greatest_remainders = np.argsort(-(exact % len(labels)), kind="stable")
    quota[greatest_remainders[: held_out - quota.sum()]] += 1

    order = np.lexsort((np.random.PCG64(seed).random_raw(len(labels)), strata))
    held = np.zeros(len(labels), bool)
    for start, count in zip(np.cumsum(counts) - counts, quota, strict=True):
        held[order[start : start + count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


@final
@dataclass(frozen=True)
class Split(Source):
    """One part of another source, split by class in proportion."""

    source: Source
    """What is split."""
    part: Literal["train", "test"] = "train"
    """Which part this is."""
    fraction: float = 0.2
    """Share of the examples that the test part takes."""
    seed: int = 0
    """Chooses the examples; the two parts of one split need the same."""

    def __len__(self) -> int:
        return len(self._chosen)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    def labels(self) -> np.ndarray:
        return self.source.labels()[self._chosen]

    def ids(self) -> Sequence[str]:
        return chosen(self.source.ids(), self._chosen)

    def read(self, i: int) -> bytes | np.ndarray:
        return self.source.read(int(self._chosen[i]))

    @carried
    def _chosen(self) -> np.ndarray:
        if self.part not in ("train", "test"):
            raise unknown("part of `Split`", self.part, ("train", "test"))
        if not 0 < self.fraction < 1:
            raise UserError(f"The `fraction` of `Split` must lie in (0, 1); got {self.fraction}")
        labels = self.source.labels()
        train, test = stratified(labels, round(len(labels) * self.fraction), self.seed)
        return train if self.part == "train" else test
