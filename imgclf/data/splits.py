"""Splitting labelled examples, the same way every time.

The functions are pure: they use the raw bits of PCG64, which NumPy never changes.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from imgclf.data.parts import Part, column_of
from imgclf.data.source import Source
from imgclf.errors import UserError, unknown


@final
@dataclass(frozen=True)
class Split(Part):
    """One of two parts of another source."""

    source: Source
    """What is split."""
    part: Literal["train", "test"] = "train"
    """Which part this is."""
    fraction: float = 0.2
    """Share of the examples that the test part takes."""
    seed: int = 0
    """Chooses the examples; the two parts of one split need the same."""
    by: Literal["class", "ratio"] = "class"
    """Every class in proportion (soft labels count as their greatest entry), or chance alone."""

    def _choose(self) -> np.ndarray:
        _check_part("Split", self.part)
        check_fraction("Split", self.fraction)
        if self.by not in ("class", "ratio"):
            raise unknown("value for the `by` of `Split`", self.by, ("class", "ratio"))
        labels = self.source.labels()
        strata = labels if self.by == "class" else np.zeros(len(labels), np.int32)
        train, test = stratified(strata, round(len(labels) * self.fraction), self.seed)
        return train if self.part == "train" else test


@final
@dataclass(frozen=True)
class GroupSplit(Part):
    """One of two parts of another source, with no group in both of them.

    Groups are drawn in a random order, and each one that brings the test part nearer to its share
    is held out.
    """

    source: Source
    """What is split: a source with columns, such as a table."""
    group: str
    """The column whose equal values make a group, such as the patient."""
    part: Literal["train", "test"] = "train"
    """Which part this is."""
    fraction: float = 0.2
    """Share of the examples that the test part takes, as nearly as the groups drawn allow."""
    seed: int = 0
    """Chooses the groups; the two parts of one split need the same."""

    def _choose(self) -> np.ndarray:
        _check_part("GroupSplit", self.part)
        check_fraction("GroupSplit", self.fraction)
        groups = numbered_groups(column_of(self, self.source, self.group))
        train, test = grouped(groups, self.fraction * len(groups), self.seed)
        return train if self.part == "train" else test


@final
@dataclass(frozen=True)
class Fold(Part):
    """One part of a k-fold cross-validation: a fold to test on, or all others to train on."""

    source: Source
    """What is split."""
    fold: int = 0
    """Which of the folds is the test part, from 0."""
    part: Literal["train", "test"] = "train"
    """Which part this is."""
    folds: int = 5
    """How many folds there are."""
    seed: int = 0
    """Chooses the examples of each fold; all parts of one cross-validation need the same."""
    group: str = ""
    """A column whose equal values stay in one fold; empty: every class in proportion instead."""

    def _choose(self) -> np.ndarray:
        _check_part("Fold", self.part)
        if not 0 <= self.fold < self.folds:
            raise UserError(
                f"The `fold` of `Fold` must lie from 0 to {self.folds - 1}, below its `folds` "
                f"(={self.folds}); got {self.fold}"
            )
        if self.group:
            groups = numbered_groups(column_of(self, self.source, self.group))
            fold = group_folds(groups, self.folds, self.seed)
        else:
            fold = stratified_folds(self.source.labels(), self.folds, self.seed)
        return np.flatnonzero((fold == self.fold) == (self.part == "test"))


def stratified(labels: np.ndarray, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the examples kept, and of the `held_out` others; both ascending.

    Every class is held out in proportion, to within one example. Soft labels (n, k) count as their
    greatest entry.
    """
    if not 0 < held_out < len(labels):
        raise UserError(
            f"A split must hold out at least one example and keep one; got {held_out} to be held "
            f"out of {len(labels)}"
        )
    held = in_proportion(labels, held_out, random_bits(seed, len(labels)))
    return np.flatnonzero(~held), np.flatnonzero(held)


def in_proportion(labels: np.ndarray, count: int, bits: np.ndarray) -> np.ndarray:
    """Which examples are the `count` chosen, bool (n,), every class in proportion.

    In each class they are those of the smallest `bits` (n,).
    """
    strata = _strata(labels)
    counts = np.bincount(strata)
    exact = counts * count
    quota = exact // len(labels)
    greatest_remainders = np.argsort(-(exact % len(labels)), kind="stable")
    quota[greatest_remainders[: count - quota.sum()]] += 1
    order = np.lexsort((bits, strata))
    held = np.zeros(len(labels), bool)
    for start, few in zip(np.cumsum(counts) - counts, quota, strict=True):
        held[order[start : start + few]] = True
    return held


def ranks(strata: np.ndarray, seed: int) -> np.ndarray:
    """The place of each example in a random order of its stratum (0 to k - 1): int64 (n,)."""
    counts = np.bincount(strata)
    order = np.lexsort((random_bits(seed, len(strata)), strata))
    rank = np.empty(len(strata), np.int64)
    rank[order] = np.arange(len(strata)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each example, int64 (n,): all folds, and each class in them, equal to within one.

    Soft labels (n, k) count as their greatest entry.
    """
    if not 2 <= folds <= len(labels):
        raise UserError(f"There must be 2 to {len(labels)} folds, one for an example; got {folds}")
    fold = np.empty(len(labels), np.int64)
    order = np.lexsort((random_bits(seed, len(labels)), _strata(labels)))
    fold[order] = np.arange(len(labels)) % folds
    return fold


def numbered_groups(values: Sequence[str]) -> np.ndarray:
    """The place of each value among the different ones, by name: int64 (n,)."""
    found: dict[str, int] = {}
    groups = np.fromiter((found.setdefault(v, len(found)) for v in values), np.int64, len(values))
    place = np.empty(len(found), np.int64)
    place[[found[value] for value in sorted(found)]] = np.arange(len(found))
    return place[groups]


def grouped(groups: np.ndarray, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the examples kept, and of some `held_out` others; both ascending.

    No group (0 to g - 1) is in both.
    """
    sizes = np.bincount(groups)
    if len(sizes) < 2:
        raise UserError(f"A split by group must have two groups or more; got {len(sizes)}")
    order = np.argsort(random_bits(seed, len(sizes)), kind="stable")
    chosen, total = np.zeros(len(sizes), bool), 0
    for group, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        nearer = abs(total + size - held_out) <= abs(total - held_out)
        if nearer and total + size < len(groups):
            chosen[group], total = True, total + size
    if not total:
        chosen[order[np.argmin(sizes[order])]] = True
    held = chosen[groups]
    return np.flatnonzero(~held), np.flatnonzero(held)


def group_folds(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each example, int64 (n,), the same for all examples of a group (0 to g - 1).

    The largest group that is left goes to the smallest fold; equal ones in an order of the seed.
    """
    sizes = np.bincount(groups)
    if not 2 <= folds <= len(sizes):
        raise UserError(f"There must be 2 to {len(sizes)} folds, one for a group; got {folds}")
    order = np.lexsort((random_bits(seed, len(sizes)), -sizes))
    fold_of, smallest = np.empty(len(sizes), np.int64), [(0, fold) for fold in range(folds)]
    for group in order.tolist():
        total, fold = smallest[0]
        fold_of[group] = fold
        heapq.heapreplace(smallest, (total + int(sizes[group]), fold))
    return fold_of[groups]


def check_fraction(kind: str, fraction: float) -> None:
    """Raises a `UserError` unless the `fraction` of a `kind` lies in (0, 1)."""
    if not 0 < fraction < 1:
        raise UserError(f"The `fraction` of `{kind}` must lie in (0, 1); got {fraction}")


def random_bits(seed: int, count: int) -> np.ndarray:
    """What splits choose by, uint64 (count,); a `UserError` for a negative seed."""
    if seed < 0:
        raise UserError(f"The `seed` of a split must be 0 or more; got {seed}")
    return np.random.PCG64(seed).random_raw(count)


def _check_part(kind: str, part: str) -> None:
    if part not in ("train", "test"):
        raise unknown(f"part of `{kind}`", part, ("train", "test"))


def _strata(labels: np.ndarray) -> np.ndarray:
    classes = labels if labels.ndim == 1 else labels.argmax(1)
    # As `return_inverse` would, which for millions takes several times the memory.
    return np.searchsorted(np.unique(classes), classes).astype(np.int32)
