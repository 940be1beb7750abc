"""Supervised classification: one class, or several, for every image."""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from imgclf.losses import CrossEntropy, Loss
from imgclf.models.network import Network, Outputs
from imgclf.tasks.task import Batch, Metrics, ModelState, Params, Task, masked_mean, normalise


@dataclass(frozen=True)
class Classify(Task):
    """Learns to give every image its label.

    Labels are integers (b,) or distributions (b, k); accuracy in training is the share of images
    whose greatest logit is at their greatest label.
    """

    criterion: Loss = CrossEntropy()
    """What makes the logits right."""
    auxiliary_weight: float = 0.3
    """How much the loss of each further head counts, where the network has any."""

    def initialise(
        self, network: Network, key: jax.Array, batch: Batch
    ) -> tuple[Params, ModelState]:
        return network.initialise(key, normalise(batch["image"], network.preprocess))

    def loss(
        self,
        network: Network,
        params: Params,
        model_state: ModelState,
        batch: Batch,
        key: jax.Array,
        progress: jax.Array,
    ) -> tuple[jax.Array, tuple[ModelState, Metrics]]:
        images = normalise(batch["image"], network.preprocess)
        outputs, model_state = network.apply(params, model_state, images, train=True, key=key)
        loss = masked_mean(self.criterion(outputs, batch), batch["mask"])
        for logits in outputs.auxiliary:
            further = dataclasses.replace(outputs, logits=logits)
            loss += self.auxiliary_weight * masked_mean(
                self.criterion(further, batch), batch["mask"]
            )
        label = batch["label"] if batch["label"].ndim == 1 else batch["label"].argmax(-1)
        right_b = (outputs.logits.argmax(-1) == label).astype(jnp.float32)
        return loss, (model_state, {"accuracy": masked_mean(right_b, batch["mask"])})

    def predict(
        self, network: Network, params: Params, model_state: ModelState, batch: Batch
    ) -> Outputs:
        images = normalise(batch["image"], network.preprocess)
        outputs, _ = network.apply(params, model_state, images, train=False)
        return outputs
