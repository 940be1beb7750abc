"""Evaluation on the device: a source's images to `Predictions`, the last partial batch included."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

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

    @property
    def accuracy(self) -> float:
        """Top-1, 0 to 1."""
        return self.metrics.accuracy

    def as_dict(self) -> dict[str, float]:
        """All numbers, for a log or a file."""
        return self.metrics.as_dict() | {"unread": self.unread}


class Predictor:
    """The compiled prediction of one task and network; compiled anew for each shape of batch."""

    def __init__(self, task: Task, network: Network, mesh: jax.sharding.Mesh):
        self._logits = jax.jit(partial(_logits, task, network), out_shardings=replicated(mesh))

    def __call__(
        self,
        params: Params,
        model_state: ModelState,
        feed: Evaluation,
        classes: Sequence[str],
        interrupted: Callable[[], bool] = lambda: False,
    ) -> tuple[Predictions, int]:
        """Predictions for every example that could be read, and how many could not.

        Stops early, with what there is, as soon as `interrupted()`.
        """
        parts, ids = [], []
        for batch, host in feed.batches():
            parts.append((self._logits(params, model_state, batch), host))
            if len(parts) > 2:
                jax.block_until_ready(parts[-3][0])
            if interrupted():
                break
        logits, labels = [], []
        for logits_bk, host in parts:
            rows = np.flatnonzero(host["mask"])
            offset = jax.process_index() * len(host["mask"])
            logits.append(np.asarray(logits_bk)[offset + rows])
            labels.append(host["label"][rows])
            ids.append(host["id"][rows])
        names = feed.source.ids()
        seen = np.concatenate(ids)
        predictions = Predictions(
            logits=np.concatenate(logits).astype(np.float32),
            labels=np.concatenate(labels),
            ids=[names[i] for i in seen],
            classes=tuple(classes),
        )
        return predictions, len(feed.source) - len(seen)


def _logits(
    task: Task,
    network: Network,
    params: Params,
    model_state: ModelState,
    batch: dict[str, jax.Array],
) -> jax.Array:
    return task.predict(network, params, model_state, batch).logits
