"""Numbers of examples turned into shares of the training, or into weights of a loss."""

import math
from typing import Literal

import numpy as np

from imgclf.errors import UserError, unknown

Scheme = Literal["balanced", "sqrt", "effective"]


def effective_numbers(counts: np.ndarray, beta: float) -> np.ndarray:
    """(1 - beta ** n) / (1 - beta) for each number n of examples: float64 (k,).

    That many of them are unlike each other: Cui et al. 2019, https://arxiv.org/abs/1901.05555.

    >>> effective_numbers(np.array([1, 10, 1000]), 0.9).round(3).tolist()
    [1.0, 6.513, 10.0]
    """
    if not 0 <= beta < 1:
        raise UserError(f"The `beta` of an effective number must lie in [0, 1); got {beta}")
    return (1 - beta ** counts.astype(np.float64)) / (1 - beta)


def class_weights(
    labels: np.ndarray, num_classes: int, scheme: Scheme = "balanced", beta: float = 0.999
) -> tuple[float, ...]:
    """What an example of each class counts in a loss, the mean over all examples being 1.

    So the loss keeps its scale, and the learning rate its meaning.

    Args:
        labels: int (n,), or float (n, k) where they are soft or several.
        num_classes: k.
        scheme: a class of n examples weighs in proportion to 1 / n (`balanced`), 1 / sqrt(n)
            (`sqrt`), or one over its effective number (`effective`).
        beta: of the effective number, in [0, 1).

    A class without examples gets what it would have with one.

    >>> class_weights(np.array([0, 0, 0, 1]), 2)
    (0.6666666666666666, 2.0)
    """
    if labels.ndim == 1:
        counts = np.bincount(labels, minlength=num_classes).astype(np.float64)
    else:
        counts = labels.sum(0, dtype=np.float64)
    if len(counts) != num_classes or not counts.sum():
        raise UserError(f"The labels must be of {num_classes} classes; got {len(counts)}")
    least_one = np.maximum(counts, 1)
    if scheme == "balanced":
        weights = 1 / least_one
    elif scheme == "sqrt":
        weights = 1 / np.sqrt(least_one)
    elif scheme == "effective":
        weights = 1 / effective_numbers(least_one, beta)
    else:
        raise unknown("scheme of class weights", scheme, ("balanced", "sqrt", "effective"))
    scale = counts.sum() / (counts * weights).sum()
    return tuple((weights * scale).tolist())


def quotas(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers that add up to `total`, in proportion to `shares`: int64 (g,).

    What is left over goes to the greatest remainders. Where a share is positive, the number is 1 or
    more; then there must be at most `total` such.

    >>> quotas(np.array([1.0, 1.0, 4.0, 0.0]), 7).tolist()
    [1, 1, 5, 0]
    """
    exact = np.round(total * (shares / math.fsum(shares)), 6)  # the last bits are a machine's own
    whole = np.maximum(np.floor(exact), shares > 0).astype(np.int64)
    left = total - int(whole.sum())
    if left > 0:
        whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    for _ in range(-left):
        whole[np.argmax(whole)] -= 1
    return whole
