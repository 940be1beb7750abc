"""Evaluation on the device: a source's images to `Predictions`, the last partial batch included."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from imgclf.data import checked_labels
from imgclf.evaluation import Metrics, Predictions
from imgclf.models.network import Network
from imgclf.tasks import ModelState, Params, Task
from imgclf.training.feed import Evaluation
from imgclf.training.mesh import replicated


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation found on one source."""

    name: str
    predictions: Predictions
    metrics: Metrics
    unread: int
    """Images that could not be read, and are counted nowhere else."""
    of: Mapping[str, Any]
    """What was evaluated: `data`, as a recipe describes it, and `checkpoint`, the step of one."""

    @property
    def accuracy(self) -> float:
        """Top-1, 0 to 1."""
        return self.metrics.accuracy

    def as_dict(self) -> dict[str, float]:
        """All numbers, for a log or a file."""
        return self.metrics.as_dict() | {"unread": self.unread}


class Predictor:
    """The compiled prediction of one task and network; compiled anew for each shape of batch."""

    def __init__(
        self,
        task: Task,
        network: Network,
        mesh: jax.sharding.Mesh,
        compiler_options: dict[str, Any] | None = None,
    ):
        self._independent = task.independent_classes
        self._predict = jax.jit(
            partial(_predict, task, network),
            out_shardings=replicated(mesh),
            compiler_options=compiler_options,
        )

    def __call__(
        self,
        params: Params,
        model_state: ModelState,
        feed: Evaluation,
        classes: Sequence[str],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> tuple[Predictions, int]:
        """Predictions for every example that could be read, and how many could not.

        Stops early, with what there is, as soon as `interrupted()`, which is asked once a batch.
        """
        parts = []
        for batch, ids_b in feed.batches():
            parts.append((*self._predict(params, model_state, batch), ids_b))
            if len(parts) > 2:
                jax.block_until_ready(parts[-3][0])
            if interrupted():
                break
        logits, ids = [], []
        for logits_bk, mask_b, ids_b in parts:
            read = np.asarray(mask_b)  # in whichever process it was
            logits.append(np.asarray(logits_bk)[read])
            ids.append(ids_b[read])
        names, seen = feed.source.ids(), np.concatenate(ids)
        predictions = Predictions(
            logits=np.concatenate(logits).astype(np.float32),
            labels=checked_labels(feed.source)[seen],
            ids=[names[i] for i in seen],
            classes=tuple(classes),
            independent=self._independent,
        )
        return predictions, len(feed.source) - len(seen)


def _predict(
    task: Task,
    network: Network,
    params: Params,
    model_state: ModelState,
    batch: dict[str, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    return task.predict(network, params, model_state, batch).logits, batch["mask"]
