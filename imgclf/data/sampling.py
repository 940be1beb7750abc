"""How often each example is trained on: kinds of sampling, which build a stream of examples.

An epoch has as many positions as the source has examples unless a kind says otherwise.
"""

import abc
from dataclasses import dataclass
from typing import final

import numpy as np

from imgclf.data.balance import effective_numbers, quotas
from imgclf.data.order import GroupOrder, Order, Stream
from imgclf.data.parts import parts_of, single_labels
from imgclf.data.source import Source
from imgclf.errors import UserError


class Sampling(abc.ABC):
    """Says which example stands at which position of the training; a kind is a frozen dataclass."""

    @abc.abstractmethod
    def build(self, source: Source, seed: int) -> Stream:
        """The endless stream of examples of `source`: a function of seed and position alone."""


@final
@dataclass(frozen=True)
class Uniform(Sampling):
    """Every example once an epoch."""

    def build(self, source: Source, seed: int) -> Stream:
        return Order(len(source), seed)


@final
@dataclass(frozen=True)
class Balanced(Sampling):
    """Rare classes more often, common ones less often, as their sizes say.

    A class of n examples gets a share of each epoch in proportion to n ** (1 - power), in whole
    numbers; all its examples come equally often. Soft labels count as their greatest entry; several
    classes for an image are an error.
    """

    power: float = 1.0
    """In [0, 1]. 1: all classes equally often; 0.5: by the square root of their sizes; 0: as they
    are."""

    def build(self, source: Source, seed: int) -> Stream:
        if not 0 <= self.power <= 1:
            raise UserError(f"The `power` of `Balanced` must lie in [0, 1]; got {self.power}")
        labels, counts = _classes(self, source)
        shares = np.where(counts > 0, counts.astype(np.float64) ** (1 - self.power), 0)
        return GroupOrder(labels, quotas(shares, len(labels)), seed)


@final
@dataclass(frozen=True)
class EffectiveNumber(Sampling):
    """Classes by how many unlike examples they have: Cui et al. 2019.

    An example of a class of n counts (1 - beta) / (1 - beta ** n), so that the class gets a share
    of each epoch in proportion to n times that, in whole numbers. https://arxiv.org/abs/1901.05555
    """

    beta: float = 0.999
    """In [0, 1). 0: classes as they are; towards 1: all equally often."""

    def build(self, source: Source, seed: int) -> Stream:
        labels, counts = _classes(self, source)
        shares = counts / effective_numbers(np.maximum(counts, 1), self.beta)
        return GroupOrder(labels, quotas(shares, len(labels)), seed)


@final
@dataclass(frozen=True)
class Undersampled(Sampling):
    """Every class as often as the rarest one: an epoch has that many times the classes.

    Each epoch takes other examples of a class, until all have been seen. Classes without examples
    are left out.
    """

    def build(self, source: Source, seed: int) -> Stream:
        labels, counts = _classes(self, source)
        return GroupOrder(labels, np.where(counts > 0, counts[counts > 0].min(), 0), seed)


@final
@dataclass(frozen=True)
class Repeated(Sampling):
    """Every example several times in a row, each time augmented anew: Hoffer et al. 2020.

    An epoch keeps its length: it sees one `times`-th of the examples, and the next ones the others.
    No example is divided between two batches if their size can be divided by `times`.
    https://arxiv.org/abs/1901.09335
    """

    times: int = 3
    """How many times, 1 or more."""

    def build(self, source: Source, seed: int) -> Stream:
        if self.times < 1:
            raise UserError(f"The `times` of `Repeated` must be 1 or more; got {self.times}")
        return _InARow(Order(len(source), seed), self.times)


@final
@dataclass(frozen=True)
class Mixed(Sampling):
    """The sources of a `Mixture` by given shares; within each, all examples equally often."""

    weights: tuple[float, ...] = ()
    """The share of each source, up to a common factor; 0 leaves it out. Empty: equal shares."""

    def build(self, source: Source, seed: int) -> Stream:
        parts = parts_of(self, source)
        counts = np.bincount(parts)
        weights = np.array(self.weights or counts > 0, np.float64)
        if len(weights) != len(counts) or not (weights >= 0).all() or not 0 < sum(weights) < np.inf:
            raise UserError(
                f"The `weights` of `Mixed` must be {len(counts)} numbers, one for each source, of "
                f"0 or more, and not all 0; got {self.weights}"
            )
        if not counts[weights > 0].all():
            raise UserError("The `weights` of `Mixed` must be 0 where a source has no examples")
        return GroupOrder(parts, quotas(weights, len(parts)), seed)


@final
@dataclass(frozen=True)
class _InARow:
    order: Order
    times: int

    @property
    def n(self) -> int:
        return self.order.n

    def ids(self, positions: np.ndarray) -> np.ndarray:
        return self.order.ids(np.asarray(positions, np.int64) // self.times)


def _classes(sampling: Sampling, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """The class of each example (n,), and how many each class has (k,)."""
    labels = single_labels(sampling, source)
    return labels, np.bincount(labels, minlength=len(source.classes))
