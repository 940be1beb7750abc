"""Schedules: how the learning rate goes over the steps of a run."""

import abc
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from imgclf.errors import UserError
from imgclf.units import Epochs, Unit

Rate = Callable[[int | jax.Array], jax.Array]
"""The value at a step (0 for the first update); a step may be an int or traced."""


@dataclass(frozen=True)
class Schedule(abc.ABC):
    """A value that depends on the step alone.

    All kinds warm up linearly for w steps, and never with a rate of 0: update s (from 0) has
    `peak * (s + 1) / (w + 1)`, so that update w is the first at the peak. What decays reaches its
    `end` at step `steps`, as in optax: just after the last update, which therefore still moves.
    """

    @abc.abstractmethod
    def build(self, steps: int, steps_per_epoch: float) -> Rate:
        """The schedule of a run of `steps` updates in all, as a function from step to float32."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The peak to the end.

    >>> float(Constant(0.5).build(steps=10, steps_per_epoch=5)(9))
    0.5
    """

    peak: float
    """The value after the warm-up."""
    warmup: Unit = Epochs(0)
    """How long the value rises to its peak."""

    def build(self, steps: int, steps_per_epoch: float) -> Rate:
        _check(self, peak=self.peak)
        warm = _warmup(self, self.warmup, steps, steps_per_epoch)

        return lambda step: self.peak * _risen(step, warm)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From the peak to `end` along half a cosine (Loshchilov & Hutter 2017, eq. 5, no restarts).

    https://arxiv.org/abs/1608.03983

    >>> round(float(Cosine(0.5).build(steps=10, steps_per_epoch=5)(5)), 6)
    0.25
    """

    peak: float
    """The value after the warm-up."""
    warmup: Unit = Epochs(0)
    """How long the value rises to its peak."""
    end: float = 0.0
    """The value when the run is over."""

    def build(self, steps: int, steps_per_epoch: float) -> Rate:
        _check(self, peak=self.peak, end=self.end)
        warm = _warmup(self, self.warmup, steps, steps_per_epoch)

        def rate(step: int | jax.Array) -> jax.Array:
            left = (1 + jnp.cos(jnp.pi * _done(step, warm, steps))) / 2
            return _risen(step, warm) * (self.end + (self.peak - self.end) * left)

        return rate


@dataclass(frozen=True)
class Linear(Schedule):
    """From the peak to `end` in a straight line.

    >>> float(Linear(0.5).build(steps=10, steps_per_epoch=5)(5))
    0.25
    """

    peak: float
    """The value after the warm-up."""
    warmup: Unit = Epochs(0)
    """How long the value rises to its peak."""
    end: float = 0.0
    """The value when the run is over."""

    def build(self, steps: int, steps_per_epoch: float) -> Rate:
        _check(self, peak=self.peak, end=self.end)
        warm = _warmup(self, self.warmup, steps, steps_per_epoch)

        def rate(step: int | jax.Array) -> jax.Array:
            left = 1 - _done(step, warm, steps)
            return _risen(step, warm) * (self.end + (self.peak - self.end) * left)

        return rate


def _check(schedule: Schedule, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise UserError(
                f"The `{name}` of `{type(schedule).__name__}` must be 0 or more; got {value}"
            )


def _warmup(schedule: Schedule, warmup: Unit, steps: int, steps_per_epoch: float) -> float:
    warm = warmup.in_steps(steps_per_epoch, steps=steps)
    if not 0 <= warm <= steps:
        raise UserError(
            f"The `warmup` of `{type(schedule).__name__}` must not be negative, nor longer than "
            f"the run of {steps} steps; got {warmup} ({warm:g} steps)"
        )
    return warm


def _risen(step: int | jax.Array, warm: float) -> jax.Array:
    return jnp.minimum((jnp.asarray(step, jnp.float32) + 1) / (warm + 1), 1)


def _done(step: int | jax.Array, warm: float, steps: int) -> jax.Array:
    return jnp.clip((jnp.asarray(step, jnp.float32) - warm) / max(steps - warm, 1), 0, 1)
