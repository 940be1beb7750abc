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

    Labels are integers (b,), distributions (b, k) or, for `SigmoidCrossEntropy`, sets of classes;
    accuracy in training is the share of images whose greatest logit is at a greatest label.
    """

    criterion: Loss = CrossEntropy()
    """What makes the logits right."""
    auxiliary_weight: float = 0.3
    """How much the loss of each further head counts, where the network has any."""

    @property
    def independent_classes(self) -> bool:
        return self.criterion.independent

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
        said_b, label = outputs.logits.argmax(-1), batch["label"]
        if label.ndim == 1:
            right_b = said_b == label
        else:
            share_b = jnp.take_along_axis(label, said_b[:, None], -1)[:, 0]
            right_b = (share_b > 0) & (share_b == label.max(-1))
        right_b = right_b.astype(jnp.float32)
        return loss, (model_state, {"accuracy": masked_mean(right_b, batch["mask"])})

    def predict(
        self, network: Network, params: Params, model_state: ModelState, batch: Batch
    ) -> Outputs:
        images = normalise(batch["image"], network.preprocess)
        outputs, _ = network.apply(params, model_state, images, train=False)
        return outputs
