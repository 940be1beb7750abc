"""Losses: from a network's outputs and a batch to one number per example."""

import abc
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from imgclf.errors import UserError


@dataclass(frozen=True)
class Loss(abc.ABC):
    """Says how wrong a network's outputs are, example by example.

    The mean over the batch's mask is not taken here but once, in the task.
    """

    independent: ClassVar[bool] = False
    """Whether each class is judged by itself: a probability is a sigmoid then, not a softmax."""

    @abc.abstractmethod
    def __call__(self, outputs: Any, batch: dict[str, jax.Array]) -> jax.Array:
        """The loss (b,) in float32 of `outputs.logits` (b, k), whatever their dtype.

        `batch["label"]` is int32 (b,), or float32 (b, k) where labels are mixed or many.
        """


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """Cross-entropy of the softmax with the labels, in nats.

    With smoothing s the target t of k classes becomes t * (1 - s) + s / k (Szegedy et al. 2016,
    https://arxiv.org/abs/1512.00567). That is linear, so smoothing before mixing (timm) and after
    it (here) come to the same. Weights multiply the smoothed target, class by class, as in PyTorch;
    the mean is taken over examples all the same, not over their weights.
    """

    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes, in [0, 1)."""
    class_weights: tuple[float, ...] = ()
    """How much each class counts, as `imgclf.data.class_weights` gives it; empty: all alike."""

    def __call__(self, outputs: Any, batch: dict[str, jax.Array]) -> jax.Array:
        logits_bk = outputs.logits.astype(jnp.float32)
        target_bk = _smoothed(self, self.label_smoothing, _targets(logits_bk, batch["label"]))
        if self.class_weights:
            if len(self.class_weights) != target_bk.shape[-1]:
                raise UserError(
                    "The `class_weights` of `CrossEntropy` must be one for each of the "
                    f"{target_bk.shape[-1]} classes; got {len(self.class_weights)}"
                )
            target_bk = target_bk * jnp.asarray(self.class_weights, jnp.float32)
        return -jnp.sum(target_bk * jax.nn.log_softmax(logits_bk), axis=-1)


@dataclass(frozen=True)
class SigmoidCrossEntropy(Loss):
    """Binary cross-entropy of each class by itself, in nats, after "ResNet strikes back".

    Wightman et al. 2021, https://arxiv.org/abs/2110.00476. Targets are one-hot (or mixed, or
    multi-hot) first, and smoothed then, as for `CrossEntropy`: t * (1 - s) + s / k.
    """

    independent: ClassVar[bool] = True

    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes, in [0, 1)."""
    reduction: Literal["sum", "mean"] = "sum"
    """Over the classes: `sum` (as big_vision) or `mean` (as timm, and PyTorch's BCE; k times less,
    which asks for another learning rate where the optimizer is not invariant to scale)."""

    def __call__(self, outputs: Any, batch: dict[str, jax.Array]) -> jax.Array:
        if self.reduction not in ("sum", "mean"):
            raise UserError(
                "The `reduction` of `SigmoidCrossEntropy` must be 'sum' or 'mean'; "
                f"got {self.reduction!r}"
            )
        logits_bk = outputs.logits.astype(jnp.float32)
        target_bk = _smoothed(self, self.label_smoothing, _targets(logits_bk, batch["label"]))
        right_bk = target_bk * jax.nn.log_sigmoid(logits_bk)
        wrong_bk = (1 - target_bk) * jax.nn.log_sigmoid(-logits_bk)
        loss_bk = -(right_bk + wrong_bk)
        return loss_bk.sum(-1) if self.reduction == "sum" else loss_bk.mean(-1)


def _targets(logits_bk: jax.Array, labels: jax.Array) -> jax.Array:
    classes = logits_bk.shape[-1]
    if labels.ndim == 1:
        return jax.nn.one_hot(labels, classes, dtype=jnp.float32)
    if labels.shape[-1] != classes:
        raise UserError(
            f"The labels of a batch must have the network's {classes} classes; "
            f"got {labels.shape[-1]}"
        )
    return labels.astype(jnp.float32)


def _smoothed(loss: Loss, smoothing: float, target_bk: jax.Array) -> jax.Array:
    if not 0 <= smoothing < 1:
        raise UserError(
            f"The `label_smoothing` of `{type(loss).__name__}` must lie in [0, 1); got {smoothing}"
        )
    return target_bk * (1 - smoothing) + smoothing / target_bk.shape[-1]
