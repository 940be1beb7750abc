"""Optimizers: from gradients to updates, each with the convention of weight decay it follows.

All decay the same parameters (see `decayed`). Clipping and accumulation are the training step's.
"""

import abc
import re
from dataclasses import dataclass
from typing import Any

import jax
import optax

from imgclf.errors import UserError


@dataclass(frozen=True)
class Optimizer(abc.ABC):
    """How gradients become updates."""

    @abc.abstractmethod
    def build(self, schedule: optax.Schedule, params: Any) -> optax.GradientTransformation:
        """The optax transformation, at the learning rates of `schedule`.

        `params` (arrays or their shapes) says which parameters there are.
        """


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch's `SGD`.

    Weight decay is L2 regularisation: it is added to the gradient, before the momentum.

        g = g + weight_decay * p;   m = momentum * m + g
        p = p - learning_rate * (g + momentum * m if nesterov else m)
    """

    momentum: float = 0.9
    """Share of the last update's direction that is kept, in [0, 1)."""
    nesterov: bool = True
    """Whether to look ahead along the momentum (Sutskever et al. 2013)."""
    weight_decay: float = 0.0
    """L2 coefficient, on kernels (see `decayed`)."""

    def build(self, schedule: optax.Schedule, params: Any) -> optax.GradientTransformation:
        _check_shares(self, momentum=self.momentum)
        _check_amounts(self, weight_decay=self.weight_decay)
        return optax.chain(
            optax.add_decayed_weights(self.weight_decay, mask=decayed(params)),
            optax.trace(self.momentum, self.nesterov) if self.momentum else optax.identity(),
            optax.scale_by_learning_rate(schedule),
        )


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay, as PyTorch's `AdamW`.

    Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101. The decay is multiplied by the
    learning rate (the paper's own, by the schedule alone: its values are some 1000 times smaller).

        p = p - learning_rate * (m_hat / (sqrt(v_hat) + eps) + weight_decay * p)
    """

    b1: float = 0.9
    """Decay of the mean of the gradients, in [0, 1)."""
    b2: float = 0.999
    """Decay of the mean of their squares, in [0, 1)."""
    eps: float = 1e-8
    """Added to the root of the mean square."""
    weight_decay: float = 0.05
    """Decoupled decay, on kernels (see `decayed`)."""

    def build(self, schedule: optax.Schedule, params: Any) -> optax.GradientTransformation:
        _check_shares(self, b1=self.b1, b2=self.b2)
        _check_amounts(self, eps=self.eps, weight_decay=self.weight_decay)
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, mask=decayed(params)),
            optax.scale_by_learning_rate(schedule),
        )


@dataclass(frozen=True)
class LAMB(Optimizer):
    """AdamW whose update of each parameter is scaled to the parameter's norm, for large batches.

    You et al. 2020, https://arxiv.org/abs/1904.00962. As in its authors' code and in timm, what is
    not decayed, such as norms and biases, is not scaled either. Blocks that a network with `scan`
    stacks in one array are scaled each by itself. timm also clips the gradient's global norm to 1
    before: say so in the recipe.

        u = m_hat / (sqrt(v_hat) + eps) + weight_decay * p
        p = p - learning_rate * |p| / |u| * u
    """

    b1: float = 0.9
    """Decay of the mean of the gradients, in [0, 1)."""
    b2: float = 0.999
    """Decay of the mean of their squares, in [0, 1)."""
    eps: float = 1e-6
    """Added to the root of the mean square."""
    weight_decay: float = 0.02
    """Decoupled decay, on kernels (see `decayed`)."""

    def build(self, schedule: optax.Schedule, params: Any) -> optax.GradientTransformation:
        _check_shares(self, b1=self.b1, b2=self.b2)
        _check_amounts(self, eps=self.eps, weight_decay=self.weight_decay)
        return optax.chain(
            optax.scale_by_adam(self.b1, self.b2, self.eps),
            optax.add_decayed_weights(self.weight_decay, mask=decayed(params)),
            optax.masked(_scale_by_trust_ratio(), decayed(params)),
            optax.scale_by_learning_rate(schedule),
        )


def decayed(params: Any) -> Any:
    """Whether each parameter is decayed, as a tree of bools.

    Those of two or more dimensions are, such as kernels, but for those that have a name of ours for
    something else: biases, factors of norms and of layer scales (also where those of several layers
    are stacked in one), tokens, positions, tables of position biases, attention's temperatures, and
    the query of attention pooling. So it is in timm and big_vision.

    >>> layer = {"kernel": jax.numpy.ones((12, 3, 5)), "bias": jax.numpy.ones((12, 5))}
    >>> decayed({"blocks": layer})
    {'blocks': {'bias': False, 'kernel': True}}
    """

    def is_decayed(path: Any, leaf: Any) -> bool:
        name = getattr(path[-1], "key", "") if path else ""
        return len(leaf.shape) >= 2 and name not in _NOT_DECAYED

    return jax.tree_util.tree_map_with_path(is_decayed, params)


_NOT_DECAYED = {
    *("bias", "scale", "gamma", "gain", "alpha", "beta"),
    *("cls_token", "dist_token", "reg_token", "pos_embed", "latent"),
    *("logit_scale", "relative_position_bias_table"),
}
_STACKED = re.compile(r"\d+-\d+")  # as `imgclf.models.layers.stacked_name` calls blocks


def _scale_by_trust_ratio() -> optax.GradientTransformation:
    """As optax's, but for each of several stacked blocks by itself."""
    one = optax.scale_by_trust_ratio()

    def scaled(path: Any, update: jax.Array, param: jax.Array) -> jax.Array:
        def of(update: jax.Array, param: jax.Array) -> jax.Array:
            return one.update(update, one.init(param), param)[0]

        stacked = any(_STACKED.fullmatch(str(getattr(part, "key", ""))) for part in path)
        return (jax.vmap(of) if stacked else of)(update, param)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        return jax.tree_util.tree_map_with_path(scaled, updates, params), state

    return optax.GradientTransformation(one.init, update)


def _check_shares(optimizer: Optimizer, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise UserError(
                f"The `{name}` of `{type(optimizer).__name__}` must lie in [0, 1); got {value}"
            )


def _check_amounts(optimizer: Optimizer, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise UserError(
                f"The `{name}` of `{type(optimizer).__name__}` must be 0 or more; got {value}"
            )
