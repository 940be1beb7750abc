"""Where the pixels of an image go: flips and shifts. The image's type and size are kept."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from imgclf.augmentation.base import Augmentation, Batch, check_share, example_keys
from imgclf.errors import UserError


@dataclass(frozen=True)
class Flip(Augmentation):
    """Swaps left and right."""

    p: float = 0.5
    """Probability, example by example."""

    def __call__(self, key: jax.Array, batch: Batch, progress: jax.Array) -> Batch:
        check_share(self, p=self.p)
        images_bhwc = batch["image"]
        keys = example_keys(key, len(images_bhwc))
        chosen_b = jax.vmap(lambda key: jax.random.bernoulli(key, self.p))(keys)
        flipped = jnp.where(chosen_b[:, None, None, None], images_bhwc[:, :, ::-1], images_bhwc)
        return {**batch, "image": flipped}


@dataclass(frozen=True)
class Crop(Augmentation):
    """Pads an image on all sides, then takes a random part of the old size.

    As is usual for CIFAR, after Lee et al. 2015 (https://arxiv.org/abs/1409.5185): all places of
    the part are equally likely, in whole px.
    """

    padding: int = 4
    """Width of the border, in px."""
    mode: Literal["constant", "reflect", "edge"] = "constant"
    """What the border holds: zeros, the image mirrored, or its outermost px repeated."""

    def __call__(self, key: jax.Array, batch: Batch, progress: jax.Array) -> Batch:
        if self.padding < 0:
            raise UserError(f"The `padding` of `Crop` must be 0 or more px; got {self.padding}")
        if self.mode not in ("constant", "reflect", "edge"):
            raise UserError(
                f"The `mode` of `Crop` must be 'constant', 'reflect' or 'edge'; got {self.mode!r}"
            )
        return {**batch, "image": _shifted(key, batch["image"], self.padding, self.mode)}


@dataclass(frozen=True)
class Translate(Augmentation):
    """Moves an image by some whole px down or up, and right or left; zeros enter."""

    pixels: int = 1
    """The farthest that it is moved, in px; all distances up to it are equally likely."""

    def __call__(self, key: jax.Array, batch: Batch, progress: jax.Array) -> Batch:
        if self.pixels < 0:
            raise UserError(f"The `pixels` of `Translate` must be 0 or more; got {self.pixels}")
        return {**batch, "image": _shifted(key, batch["image"], self.pixels, "constant")}


# A slice per example, under `vmap`: of a gather of rows and columns, a cascade of selects and
# this, the fastest on CPU at every size tried, and no device needs another one's examples.
def _shifted(key: jax.Array, images_bhwc: jax.Array, pixels: int, mode: str) -> jax.Array:
    keys = example_keys(key, len(images_bhwc))
    starts_b2 = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 2 * pixels + 1))(keys)
    border = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded_bhwc = jnp.pad(images_bhwc, border, mode=mode)

    def part(image_hwc: jax.Array, start_2: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image_hwc, (*start_2, 0), images_bhwc.shape[1:])

    return jax.vmap(part)(padded_bhwc, starts_b2)
