"""What a network sees of some images while it is trained: the batches of a few steps, augmented."""

from dataclasses import dataclass
from typing import final

import jax
import jax.numpy as jnp
import numpy as np

from imgclf.augmentation import compose
from imgclf.data.decode import BadImage, decode
from imgclf.data.order import Stream
from imgclf.data.pipeline import train_batches
from imgclf.errors import UserError
from imgclf.recipe.resolution import Resolved
from imgclf.training.state import AUGMENT


@final
@dataclass(frozen=True)
class Seen:
    """Some training images as they are stored, and as the network is given them."""

    names: list[str]
    """What the source calls them (i)."""
    stored: list[np.ndarray | None]
    """As decoded, uint8 (h, w, c) of any size; None for one that cannot be read (i)."""
    labels: np.ndarray
    """As stored: int32 (i,), or float32 (i, k)."""
    drawn: np.ndarray
    """uint8 (d, i, h, w, c): each draw on the scale 0 to 255, before mean and deviation."""
    drawn_labels: np.ndarray
    """Their labels (d, i) or, where they are mixed, float32 (d, i, k)."""


@final
@dataclass(frozen=True)
class _Again:
    """A stream whose every step is the step `step` of another."""

    order: Stream
    step: int
    batch_size: int

    @property
    def n(self) -> int:
        return self.order.n

    def ids(self, positions: np.ndarray) -> np.ndarray:
        return self.order.ids(self.step * self.batch_size + positions % self.batch_size)


def seen(resolved: Resolved, *, images: int, draws: int, step: int = 0) -> Seen:
    """The first `images` of the batch of `step`, in `draws` different draws.

    The first draw is what the run's step `step` (counted from 0) is given; the next ones are the
    same batch with the random numbers of the steps after it, on host and device.
    """
    recipe = resolved.recipe
    stream = resolved.streams["labelled"]
    size = stream.batch_size
    if step >= resolved.steps:
        raise UserError(f"The run has the steps 0 to {resolved.steps - 1:,}; got {step:,}")
    images = min(images, size)
    augment = jax.jit(compose(recipe.augment, len(resolved.classes)))
    same = _Again(stream.order, step, size)
    drawn, labels, ids = [], [], np.zeros(0, np.int64)
    with train_batches(
        stream.source,
        same,
        batch_size=size,
        start=step,
        stop=step + draws,
        geometry=recipe.data.geometry,
        preprocess=resolved.network.preprocess,
        seed=stream.seed,
        exif=recipe.data.exif,
        threads=recipe.data.threads,
    ) as batches:
        for number, batch in enumerate(batches, step):
            key = jax.random.fold_in(jax.random.key(recipe.seed), number + 1)
            on_device = {name: batch[name] for name in ("image", "label", "mask")}
            progress = jnp.minimum(jnp.int32(number) / resolved.steps, 1.0)
            on_device = augment(jax.random.fold_in(key, AUGMENT), on_device, progress)
            pixels = np.asarray(on_device["image"][:images], np.float32)
            drawn.append(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
            labels.append(np.asarray(on_device["label"][:images]))
            ids = ids if len(ids) else batch["id"][:images]
    names = resolved.train.ids()
    return Seen(
        [names[i] for i in ids.tolist()],
        [_stored(resolved, i) for i in ids.tolist()],
        resolved.train.labels()[ids],
        np.stack(drawn),
        np.stack(labels),
    )


def _stored(resolved: Resolved, i: int) -> np.ndarray | None:
    try:
        record = resolved.train.read(i)
        exif = resolved.recipe.data.exif
        return decode(record, exif=exif) if isinstance(record, bytes) else record
    except (BadImage, OSError):
        return None
