"""From what a network said to numbers, pictures and words; numpy, no jax.

`Predictions` is what an evaluation leaves on disk; `evaluate` makes `Metrics` of it; the report's
functions show them to a person.
"""

from imgclf.evaluation.metrics import (
    Metrics,
    PerClass,
    accuracy,
    average_precision,
    confusion,
    cross_entropy,
    evaluate,
    per_class,
    top_k_correct,
)
from imgclf.evaluation.predictions import Predictions, are_sets
from imgclf.evaluation.report import class_table, plot_confusion, plot_curves, say

__all__ = [
    "Metrics",
    "PerClass",
    "Predictions",
    "accuracy",
    "are_sets",
    "average_precision",
    "class_table",
    "confusion",
    "cross_entropy",
    "evaluate",
    "per_class",
    "plot_confusion",
    "plot_curves",
    "say",
    "top_k_correct",
]
