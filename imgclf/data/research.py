"""Worse data on purpose: long tails and wrong labels, to study what becomes of learning."""

from dataclasses import dataclass
from typing import Literal, final

import numpy as np

from imgclf.data.parts import Part, Renamed, single_labels
from imgclf.data.source import Source
from imgclf.data.splits import in_proportion, ranks
from imgclf.errors import UserError, unknown


@final
@dataclass(frozen=True)
class LongTail(Part):
    """Another source thinned out, so that its classes become rarer exponentially.

    Class c of k keeps floor(n * factor ** (-c / (k - 1))) examples, n being those of the largest
    class, or all that it has if they are fewer: Cao et al. 2019, https://arxiv.org/abs/1906.07413.
    A smaller factor with the same seed keeps the same examples and more.
    """

    source: Source
    """What is thinned out."""
    factor: float = 100.0
    """How many times rarer the last class is than the first, 1 or more."""
    seed: int = 0
    """Chooses the examples."""

    def _choose(self) -> np.ndarray:
        if not 1 <= self.factor < np.inf:
            raise UserError(f"The `factor` of `LongTail` must be 1 or more; got {self.factor}")
        labels, k = single_labels(self, self.source), len(self.source.classes)
        most = int(np.bincount(labels).max())
        share = [self.factor ** (-c / max(k - 1, 1)) for c in range(k)]
        # Rounding first keeps 49.99... from falling below the 50 that it stands for.
        kept = np.array([max(1, int(round(most * each, 6))) for each in share])
        return np.flatnonzero(ranks(labels, self.seed) < kept[labels])


@final
@dataclass(frozen=True)
class LabelNoise(Renamed):
    """Another source with a share of wrong labels, in every class in proportion."""

    source: Source
    """What gets wrong labels: it has one class an image, and its labels are whole numbers."""
    share: float = 0.2
    """Share of the labels that are wrong, in [0, 1]. Papers that draw from all k classes, the true
    one included, call share * k / (k - 1) what is `share` here."""
    kind: Literal["symmetric", "pairwise"] = "symmetric"
    """What a wrong label is: any of the other classes, all equally likely and never the true one;
    or always the next class, and the first one after the last."""
    seed: int = 0
    """Chooses the examples and their labels."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.source.classes

    def clean_labels(self) -> np.ndarray:
        """The true labels: int32 (n,)."""
        labels = self.source.labels()
        if labels.ndim != 1:
            raise UserError(
                "The source of `LabelNoise` must have whole-number labels; got soft ones, "
                f"{labels.shape}"
            )
        return labels.astype(np.int32)

    def labels(self) -> np.ndarray:
        if not 0 <= self.share <= 1:
            raise UserError(f"The `share` of `LabelNoise` must lie in [0, 1]; got {self.share}")
        if self.kind not in ("symmetric", "pairwise"):
            raise unknown("kind of `LabelNoise`", self.kind, ("symmetric", "pairwise"))
        if self.seed < 0:
            raise UserError(f"The `seed` of `LabelNoise` must be 0 or more; got {self.seed}")
        clean, k = self.clean_labels(), len(self.classes)
        # Not the bits that splits choose by, or a split would find the wrong labels in one part.
        bits = self._bits(_EXAMPLES, len(clean))
        wrong = in_proportion(clean, round(self.share * len(clean)), bits)
        further = np.ones(len(clean), np.int64)
        if self.kind == "symmetric":
            further += (self._bits(_LABELS, len(clean)) % np.uint64(k - 1)).astype(np.int64)
        return np.where(wrong, (clean + further) % k, clean).astype(np.int32)

    def _bits(self, stream: int, count: int) -> np.ndarray:
        return np.random.Philox(key=np.array([self.seed, stream], np.uint64)).random_raw(count)


_LABELS, _EXAMPLES = 1, 2  # Philox's streams: of new labels, and of who gets one
