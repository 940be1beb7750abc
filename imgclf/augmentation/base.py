"""The base of all augmentations, and how several become one function."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from imgclf.errors import UserError

Batch = dict[str, Any]
"""`image` (b, h, w, c), uint8 or float32 on the scale 0 to 255; `label` int32 (b,) or float32
(b, k); and others, which an augmentation hands on."""


@dataclass(frozen=True)
class Augmentation(abc.ABC):
    """A random change of a batch on the device: a pure function, traced by `jit`.

    What happens to an example is drawn from its own key (`example_keys`), so that it depends
    neither on the other examples' content nor on how many devices share the batch.
    """

    soft_labels: ClassVar[bool] = False
    """Whether it mixes labels, and so must be given them as float32 (b, k)."""

    @abc.abstractmethod
    def __call__(self, key: jax.Array, batch: Batch, progress: jax.Array) -> Batch:
        """The changed batch; `progress`, 0 to 1, says how much of the training is done."""


def compose(
    augmentations: Sequence[Augmentation], num_classes: int
) -> Callable[[jax.Array, Batch, jax.Array], Batch]:
    """All the `augmentations`, one after the other, as one function.

    Each draws from the key folded with its place in the sequence. If any of them mixes labels,
    integer labels become one-hot float32 (b, `num_classes`) first. Of a batch with two parts each
    part is changed by itself.
    """
    for augmentation in augmentations:
        if not isinstance(augmentation, Augmentation):
            raise UserError(
                f"The `augment` of a recipe must hold augmentations, such as Flip(); "
                f"got {augmentation!r}"
            )

    def augment(key: jax.Array, batch: Batch, progress: jax.Array) -> Batch:
        if "image" not in batch:
            return {
                name: augment(jax.random.fold_in(key, number), part, progress)
                for number, (name, part) in enumerate(sorted(batch.items()))
            }
        mixes = any(augmentation.soft_labels for augmentation in augmentations)
        if mixes and batch["label"].ndim == 1:
            batch = {**batch, "label": jax.nn.one_hot(batch["label"], num_classes)}
        for place, augmentation in enumerate(augmentations):
            batch = augmentation(jax.random.fold_in(key, place), batch, progress)
        return batch

    return augment


def example_keys(key: jax.Array, examples: int) -> jax.Array:
    """A key for each example (b,), from its place in the global batch."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(examples))


def check_share(augmentation: Augmentation, **values: float) -> None:
    """Raises a `UserError` where a named value is no probability."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UserError(
                f"The `{name}` of `{type(augmentation).__name__}` must lie in [0, 1]; got {value}"
            )
