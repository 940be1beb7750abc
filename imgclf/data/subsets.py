"""Some examples of a source: a few of them, those of some classes, those that have labels."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from imgclf.data.parts import Part, single_labels
from imgclf.data.source import Source
from imgclf.data.splits import check_fraction, in_proportion, random_bits, ranks
from imgclf.errors import UserError, unknown


@final
@dataclass(frozen=True)
class Subset(Part):
    """Some examples of another source; one field says which, and every class keeps its place.

    `Relabelled(Subset(source, class_names=NAMES), to=NAMES)` has these classes alone.
    """

    source: Source
    """What they are taken from."""
    first: int = 0
    """So many from the beginning."""
    fraction: float = 0.0
    """This share of them, by class in proportion."""
    names: tuple[str, ...] = ()
    """The ones that have these ids."""
    class_names: tuple[str, ...] = ()
    """The ones of these classes."""
    seed: int = 0
    """Chooses the share."""

    def _choose(self) -> np.ndarray:
        given = [self.first != 0, self.fraction != 0, self.names != (), self.class_names != ()]
        if given.count(True) != 1:
            raise UserError(
                "`Subset` must be given one of `first`, `fraction`, `names` and `class_names`; "
                f"got {given.count(True) or 'none'}"
            )
        if self.names:
            return _named(self.source, "Subset", self.names)
        if self.class_names:
            places = [_place(self.source, name) for name in self.class_names]
            return np.flatnonzero(np.isin(single_labels(self, self.source), places))
        if self.fraction:
            return _share(self.source, "Subset", self.fraction, self.seed)
        if not 1 <= self.first <= len(self.source):
            raise UserError(
                f"The `first` of `Subset` must lie in 1..{len(self.source)}; got {self.first}"
            )
        return np.arange(self.first)


@final
@dataclass(frozen=True)
class PartiallyLabelled(Part):
    """One of two parts of a source, for learning from few labels: what has labels, or the rest.

    One field says which examples are labelled. The others keep their labels, so that what is made
    of them can be measured; a method that learns without labels does not look at them.
    """

    source: Source
    """What is split."""
    part: Literal["labelled", "unlabelled"] = "labelled"
    """Which part this is."""
    fraction: float = 0.0
    """Share of the examples that is labelled, by class in proportion."""
    per_class: int = 0
    """So many of every class are labelled."""
    names: tuple[str, ...] = ()
    """The ones that have these ids are labelled."""
    seed: int = 0
    """Chooses the examples; the two parts need the same."""

    def _choose(self) -> np.ndarray:
        if self.part not in ("labelled", "unlabelled"):
            raise unknown("part of `PartiallyLabelled`", self.part, ("labelled", "unlabelled"))
        given = [self.fraction != 0, self.per_class != 0, self.names != ()]
        if given.count(True) != 1:
            raise UserError(
                "`PartiallyLabelled` must be given one of `fraction`, `per_class` and `names`; "
                f"got {given.count(True) or 'none'}"
            )
        if self.names:
            labelled = _named(self.source, "PartiallyLabelled", self.names)
        elif self.per_class:
            labelled = self._of_every_class()
        else:
            labelled = _share(self.source, "PartiallyLabelled", self.fraction, self.seed)
        if self.part == "labelled":
            return labelled
        return np.setdiff1d(np.arange(len(self.source)), labelled, assume_unique=True)

    def _of_every_class(self) -> np.ndarray:
        labels = single_labels(self, self.source)
        least = int(np.bincount(labels, minlength=len(self.source.classes)).min())
        if not 1 <= self.per_class <= least:
            raise UserError(
                "The `per_class` of `PartiallyLabelled` must lie from 1 to the size of the rarest "
                f"class (={least}); got {self.per_class}"
            )
        return np.flatnonzero(ranks(labels, self.seed) < self.per_class)


def _share(source: Source, kind: str, fraction: float, seed: int) -> np.ndarray:
    check_fraction(kind, fraction)
    labels = source.labels()
    count = round(len(labels) * fraction)
    if not count:
        raise UserError(f"The `fraction` of `{kind}` must take one example or more; got {fraction}")
    return np.flatnonzero(in_proportion(labels, count, random_bits(seed, len(labels))))


def _named(source: Source, kind: str, names: tuple[str, ...]) -> np.ndarray:
    wanted = set(names)
    chosen = [i for i, name in enumerate(source.ids()) if name in wanted]
    if len(chosen) < len(wanted):
        found = {source.ids()[i] for i in chosen}
        missing = next(name for name in names if name not in found)
        raise UserError(f"The `names` of `{kind}` must be ids of its source; got {missing!r}")
    return np.array(chosen, np.int64)


def _place(source: Source, name: str) -> int:
    if name not in source.classes:
        raise unknown("class of `Subset`", name, source.classes)
    return source.classes.index(name)
