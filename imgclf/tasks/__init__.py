"""What is learned. `Task` is the contract; `Classify` gives every image its class.

A task has `initialise`, `loss` and `predict`, and nothing else: no average, no mesh, no compile.
"""

from imgclf.tasks.classify import Classify
from imgclf.tasks.task import (
    Batch,
    Metrics,
    ModelState,
    Params,
    Task,
    masked_mean,
    normalise,
)

__all__ = [
    "Batch",
    "Classify",
    "Metrics",
    "ModelState",
    "Params",
    "Task",
    "masked_mean",
    "normalise",
]
