"""From predictions to numbers: top-k, loss, the confusion matrix and what follows from it.

The class said is the one of the greatest logit, the first of several equal ones. Where labels are
soft (n, k), the true class is the one of the greatest share. Where they are sets of classes, an
example is right if the class said is in its set, and of every class is said that has a logit above
0. An example with a logit that is not a number is never right, and stands in no cell of the
confusion matrix.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from imgclf.evaluation.predictions import Predictions, are_sets


@dataclass(frozen=True, eq=False)
class PerClass:
    """How well each class is told from the others; where there is nothing to divide by, 0."""

    precision: np.ndarray
    """float64 (k,): of those said to be of the class, the share that is."""
    recall: np.ndarray
    """float64 (k,): of those of the class, the share that was said to be."""
    f1: np.ndarray
    """float64 (k,): the harmonic mean of the two."""
    support: np.ndarray
    """int64 (k,): how many examples there are of the class."""
    occurs: np.ndarray
    """bool (k,): whether any example is, or was said to be, of the class."""

    def macro(self) -> dict[str, float]:
        """Precision, recall and F1 averaged over the classes that occur, each counted once."""
        return self._averaged(self.occurs)

    def weighted(self) -> dict[str, float]:
        """Precision, recall and F1 averaged over the classes by their support."""
        return self._averaged(self.support)

    def _averaged(self, weights: np.ndarray) -> dict[str, float]:
        total = max(weights.sum(), 1)
        names = ("precision", "recall", "f1")
        return {name: float(getattr(self, name) @ weights / total) for name in names}


@dataclass(frozen=True, eq=False)
class Metrics:
    """What `evaluate` found."""

    total: int
    """How many examples there were."""
    right: int
    """How many of them had the true class on top."""
    top5_right: int
    """How many had it among the five greatest logits."""
    loss: float
    """Mean cross-entropy, in nats; of sets of classes, the sum of each class's own."""
    confusion: np.ndarray
    """int64 (k, k): true class by row, class said by column; of sets, every pair counts."""
    per_class: PerClass
    average_precision: np.ndarray | None = None
    """Of sets of classes, float64 (k,): how well each class's examples come before the others, NaN
    where it has none."""

    @property
    def accuracy(self) -> float:
        """Share of examples with the true class on top, 0 to 1."""
        return self.right / max(self.total, 1)

    @property
    def mean_average_precision(self) -> float | None:
        """Over the classes that have examples, 0 to 1; None where labels are no sets of classes."""
        if self.average_precision is None:
            return None
        found = self.average_precision[~np.isnan(self.average_precision)]
        return float(found.mean()) if len(found) else 0.0

    def as_dict(self) -> dict[str, float | int]:
        """The numbers for a log or `result.json`: no arrays."""
        mean = self.mean_average_precision
        return {
            "accuracy": self.accuracy,
            "top5_accuracy": self.top5_right / max(self.total, 1),
            "loss": self.loss,
            "right": self.right,
            "total": self.total,
            **{f"macro_{name}": value for name, value in self.per_class.macro().items()},
            **{f"weighted_{name}": value for name, value in self.per_class.weighted().items()},
            **({} if mean is None else {"mean_average_precision": mean}),
        }


def evaluate(predictions: Predictions) -> Metrics:
    """All the numbers for `predictions`; a `UserError` where its parts do not fit each other."""
    predictions.check()
    logits, labels = predictions.logits, predictions.labels
    right, top5_right = (int(top_k_correct(logits, labels, k).sum()) for k in (1, 5))
    if are_sets(labels, predictions.independent):
        return Metrics(
            total=len(logits),
            right=right,
            top5_right=top5_right,
            loss=binary_cross_entropy(logits, labels),
            confusion=((labels > 0).T.astype(np.int64) @ (logits > 0)),
            per_class=per_class_of_sets(logits, labels),
            average_precision=average_precision(logits, labels),
        )
    matrix = confusion(logits, labels)
    return Metrics(
        total=len(logits),
        right=right,
        top5_right=top5_right,
        loss=cross_entropy(logits, labels),
        confusion=matrix,
        per_class=per_class(matrix),
    )


def top_k_correct(logits: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether the true class is among the `k` greatest logits (n, classes), as bool (n,).

    Of equal logits the class with the lower number comes first, as for `np.argmax`. Where labels
    are sets of classes, one of the set is enough.
    """
    if are_sets(labels):
        top = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(labels, top, axis=1).any(axis=1)
        return found & ~np.isnan(logits).any(axis=1)
    true = _true_class(labels)
    correct = np.zeros(len(logits), bool)
    for rows in _chunks(len(logits)):
        own = np.take_along_axis(logits[rows], true[rows, None], axis=1)
        before = np.arange(logits.shape[1]) < true[rows, None]
        ahead = (logits[rows] > own) | ((logits[rows] == own) & before)
        correct[rows] = (ahead.sum(axis=1) < k) & ~np.isnan(logits[rows]).any(axis=1)
    return correct


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples with the true class on top, 0 to 1."""
    return float(top_k_correct(logits, labels, 1).sum() / max(len(logits), 1))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy in nats, computed in float64; 0 for no examples."""
    total = 0.0
    for rows in _chunks(len(logits)):
        shifted = logits[rows].astype(np.float64)
        with np.errstate(invalid="ignore"):  # an infinite logit makes the mean NaN, as it should
            shifted -= shifted.max(axis=1, keepdims=True)
        log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        if labels.ndim == 1:
            total -= np.take_along_axis(log_probabilities, labels[rows, None], axis=1).sum()
        else:
            total -= (labels[rows] * log_probabilities).sum()
    return float(total / max(len(logits), 1))


def binary_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the examples of the classes' own cross-entropies, summed, in nats."""
    x = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an infinite logit makes the mean NaN, as it should
        return float((np.logaddexp(0, x) - labels * x).sum() / max(len(logits), 1))


def average_precision(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each class, float64 (k,): scikit-learn's; NaN where no example is of the class."""
    from sklearn.metrics import average_precision_score

    finite = np.finfo(np.float32)  # as scikit-learn wants all of them
    scores = np.where(np.isnan(logits), finite.min, logits).clip(finite.min, finite.max)
    of_class = labels > 0
    return np.array(
        [
            average_precision_score(true, score) if true.any() else np.nan
            for true, score in zip(of_class.T, scores.T, strict=True)
        ]
    )


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many examples of each class (row) were said to be of each (column), int64 (k, k)."""
    classes = logits.shape[1]
    cells = _true_class(labels).astype(np.int64) * classes + logits.argmax(axis=1)
    counted = ~np.isnan(logits).any(axis=1)
    return np.bincount(cells[counted], minlength=classes**2).reshape(classes, classes)


def per_class(confusion: np.ndarray) -> PerClass:
    """Precision, recall and F1 of each class, from the confusion matrix (k, k)."""
    return _per_class(np.diag(confusion), confusion.sum(axis=0), confusion.sum(axis=1))


def per_class_of_sets(logits: np.ndarray, labels: np.ndarray) -> PerClass:
    """Precision, recall and F1 of each class, said of the examples with a logit above 0."""
    true, said = labels > 0, logits > 0
    return _per_class(*(each.sum(axis=0) for each in (true & said, said, true)))


def _per_class(right: np.ndarray, said: np.ndarray, support: np.ndarray) -> PerClass:
    """Of how many examples (k,) a class was said rightly, said at all, and is true."""
    return PerClass(
        precision=right / np.maximum(said, 1),
        recall=right / np.maximum(support, 1),
        f1=2 * right / np.maximum(said + support, 1),
        support=support,
        occurs=said + support > 0,
    )


def _true_class(labels: np.ndarray) -> np.ndarray:
    return labels if labels.ndim == 1 else labels.argmax(axis=1)


def _chunks(examples: int) -> Iterator[slice]:
    for start in range(0, examples, 4096):
        yield slice(start, start + 4096)
