"""Training metrics between the device and the log: fetched late, averaged over windows."""

from collections.abc import Mapping, Set
from typing import Any

import jax
import numpy as np

from imgclf.errors import UserError

Sums = dict[str, float]


MOST = 256
"""Metrics of so many dispatches are fetched even if no log line is due."""


class Meter:
    """Adds up the metrics of steps, in order, without making the device wait.

    Metrics stay on the device until `fetch`. Two windows are kept: since the last log line and
    since the last evaluation. Their sums are plain numbers, part of a checkpoint, so that a run
    which goes on in the middle of a window writes the same means.
    """

    def __init__(self, window: Sums | None = None, since_evaluation: Sums | None = None):
        self.window: Sums = dict(window or {})
        self.since_evaluation: Sums = dict(since_evaluation or {})
        self._pending: list[tuple[range, Any]] = []

    def add(self, start: int, stop: int, metrics: Any) -> None:
        """Metrics of the steps after `start`, up to `stop`: scalars of one, or arrays, of which
        only so many entries count."""
        self._pending.append((range(start + 1, stop + 1), metrics))

    def throttle(self, ahead: int) -> None:
        """Waits until at most `ahead` dispatches are under way."""
        if len(self._pending) > ahead:
            any_of_them = next(iter(self._pending[-ahead - 1][1].values()))
            jax.block_until_ready(any_of_them)

    def holds(self, steps: Set[int], keep: int) -> bool:
        """Whether `fetch(keep)` is due: for one of `steps`, or since much has gathered."""
        if not keep < len(self._pending) < MOST:
            return len(self._pending) >= MOST
        return not steps.isdisjoint(self._pending[-keep - 1][0])

    def fetch(self, keep: int = 0) -> list[tuple[int, dict[str, float]]]:
        """The (step, metrics) of all dispatches but the last `keep`; they are not added up yet."""
        cut = len(self._pending) - keep
        ready, self._pending = self._pending[:cut], self._pending[cut:]
        rows = []
        found = jax.device_get([metrics for _, metrics in ready])
        for (steps, _), metrics in zip(ready, found, strict=True):
            columns = {name: np.atleast_1d(values) for name, values in metrics.items()}
            for i, step in enumerate(steps):
                rows.append((step, {name: float(column[i]) for name, column in columns.items()}))
        return rows

    def count(self, values: dict[str, float]) -> None:
        """Adds one step to both windows."""
        for sums in (self.window, self.since_evaluation):
            sums["steps"] = sums.get("steps", 0) + 1
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value

    def as_json(self) -> dict[str, Sums]:
        return {"window": dict(self.window), "since_evaluation": dict(self.since_evaluation)}


def check_metrics(shapes: Mapping[str, Any]) -> None:
    """Raises a `UserError` unless the metrics of a step, of these shapes, can be added up."""
    for name, each in shapes.items():
        if each.shape:
            raise UserError(
                f"The metric {name!r} of a step must be a scalar; got one of the shape {each.shape}"
            )
    if "steps" in shapes:
        raise UserError("A metric of a step must be called another thing than 'steps'; got 'steps'")


def take(sums: Sums) -> dict[str, float]:
    """The means over a window, which starts anew."""
    steps = sums.pop("steps", 0)
    means = {name: value / steps for name, value in sums.items()} if steps else {}
    sums.clear()
    return means
