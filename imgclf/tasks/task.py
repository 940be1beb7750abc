"""The contract of a task, and what tasks share."""

import abc
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from imgclf.errors import UserError
from imgclf.models.network import Network, Outputs
from imgclf.preprocess import Preprocess

Params = Any
"""A tree of float32 arrays that the optimizer changes."""
ModelState = Any
"""A tree of what a network carries beside its parameters, such as batch statistics."""
Batch = dict[str, Any]
"""`image` (b, h, w, c), `label` (b,) or (b, k), `mask` (b,); or two such batches, `labelled` and
`unlabelled`, for a task that has `two_streams`."""
Metrics = dict[str, jax.Array]
"""Named scalars of one step."""


class Task(abc.ABC):
    """What is learned from a batch. Subclasses are frozen dataclasses."""

    two_streams: ClassVar[bool] = False
    """Whether it learns from images without labels, too: `loss` is then given two batches,
    `labelled` and `unlabelled`."""

    @property
    def independent_classes(self) -> bool:
        """Whether each class is judged by itself: a probability is a sigmoid, not a softmax."""
        return False

    @abc.abstractmethod
    def initialise(
        self, network: Network, key: jax.Array, batch: Batch
    ) -> tuple[Params, ModelState]:
        """Fresh parameters and model state, for batches of the shape of `batch`."""

    @abc.abstractmethod
    def loss(
        self,
        network: Network,
        params: Params,
        model_state: ModelState,
        batch: Batch,
        key: jax.Array,
        progress: jax.Array,
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        """The scalar loss (mean over the mask), the new model state, and metrics to be logged.

        `progress` goes from 0 to 1 over the run.
        """

    @abc.abstractmethod
    def predict(
        self, network: Network, params: Params, model_state: ModelState, batch: Batch
    ) -> Outputs:
        """The network's outputs in evaluation; `logits` are what predictions are read from."""


def normalise(images: jax.Array, preprocess: Preprocess) -> jax.Array:
    """Images on the scale of 0 to 255 as the network takes them: `(x / 255 - mean) / std`."""
    mean, std = jnp.asarray(preprocess.mean), jnp.asarray(preprocess.std)
    return (images.astype(jnp.float32) / 255.0 - mean) / std


def masked_mean(values_b: jax.Array, mask_b: jax.Array) -> jax.Array:
    """The mean of the values where the mask is True; 0 where it is nowhere.

    Raises a `UserError` unless there is one value for each example.
    """
    if values_b.shape != mask_b.shape:
        raise UserError(
            f"A loss must be one number for each example of the batch, {mask_b.shape}; got numbers "
            f"of the shape {values_b.shape}"
        )
    weights = mask_b.astype(jnp.float32)
    return (jnp.where(mask_b, values_b, 0.0)).sum() / jnp.maximum(weights.sum(), 1.0)
