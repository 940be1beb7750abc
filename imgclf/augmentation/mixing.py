"""Mixtures of two images and of their labels.

An example's partner is the one before it in the batch, whose order is random anyway: with the
batch shared among devices, each then hands one image to its neighbour and nothing more. Every
kind first says which share of each pixel is the example's own; the label's share is its mean.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp

from imgclf.augmentation.base import Augmentation, Batch, check_share, example_keys
from imgclf.errors import UserError

Each = Literal["example", "batch"]


@dataclass(frozen=True)
class Mixup(Augmentation):
    """A weighted mean of two images; float32 on the scale 0 to 255 afterwards.

    Zhang et al. 2018, https://arxiv.org/abs/1710.09412.
    """

    soft_labels: ClassVar[bool] = True

    alpha: float = 0.2
    """Both parameters of the Beta distribution of an example's own share, greater than 0."""
    p: float = 1.0
    """Probability that anything is mixed."""
    each: Each = "example"
    """Whether every `example` draws for itself, or one draw holds for the `batch` (the paper)."""

    def __call__(self, key: jax.Array, batch: Batch, progress: jax.Array) -> Batch:
        check_share(self, p=self.p)
        _check_alpha(self, alpha=self.alpha)

        def own(key: jax.Array) -> jax.Array:
            choice, draw = jax.random.split(key)
            share = _beta(draw, self.alpha)
            return jnp.where(jax.random.bernoulli(choice, self.p), share, 1.0).reshape(1, 1)

        return _mixed(batch, jax.vmap(own)(_keys(self.each, key, batch)))


@dataclass(frozen=True)
class Cutmix(Augmentation):
    """A rectangle of another image pasted in; the image's type is kept.

    Yun et al. 2019, https://arxiv.org/abs/1905.04899. The rectangle has the image's proportions
    and its centre anywhere, so that a part of it may fall outside: the labels are mixed by the
    area that is really covered.
    """

    soft_labels: ClassVar[bool] = True

    alpha: float = 1.0
    """Both parameters of the Beta distribution of an example's own area, greater than 0."""
    p: float = 1.0
    """Probability that anything is mixed."""
    each: Each = "example"
    """Whether every `example` draws for itself, or one draw holds for the `batch` (the paper)."""

    def __call__(self, key: jax.Array, batch: Batch, progress: jax.Array) -> Batch:
        check_share(self, p=self.p)
        _check_alpha(self, alpha=self.alpha)
        _, height, width, _ = batch["image"].shape

        def own(key: jax.Array) -> jax.Array:
            choice, draw, place = jax.random.split(key, 3)
            outside = _outside(place, _beta(draw, self.alpha), height, width)
            return outside | ~jax.random.bernoulli(choice, self.p)

        return _mixed(batch, jax.vmap(own)(_keys(self.each, key, batch)))


@dataclass(frozen=True)
class MixupOrCutmix(Augmentation):
    """Either `Mixup` or `Cutmix`, as in DeiT and timm; float32 on the scale 0 to 255 afterwards.

    Touvron et al. 2021, https://arxiv.org/abs/2012.12877.
    """

    soft_labels: ClassVar[bool] = True

    mixup: float = 0.8
    """The `alpha` of mixup."""
    cutmix: float = 1.0
    """The `alpha` of cutmix."""
    p: float = 1.0
    """Probability that anything is mixed."""
    switch: float = 0.5
    """Probability of cutmix where something is mixed."""
    each: Each = "example"
    """Whether every `example` draws for itself, or one draw holds for the `batch` (timm)."""

    def __call__(self, key: jax.Array, batch: Batch, progress: jax.Array) -> Batch:
        check_share(self, p=self.p, switch=self.switch)
        _check_alpha(self, mixup=self.mixup, cutmix=self.cutmix)
        _, height, width, _ = batch["image"].shape

        def own(key: jax.Array) -> jax.Array:
            choice, kind, draw, place = jax.random.split(key, 4)
            cut = jax.random.bernoulli(kind, self.switch)
            alpha = jnp.where(cut, self.cutmix, self.mixup)
            share = _beta(draw, alpha)
            mixed = jnp.where(cut, _outside(place, share, height, width), share)
            return jnp.where(jax.random.bernoulli(choice, self.p), mixed, 1.0)

        return _mixed(batch, jax.vmap(own)(_keys(self.each, key, batch)))


def _keys(each: str, key: jax.Array, batch: Batch) -> jax.Array:
    examples = len(batch["image"])
    if each == "example":
        return example_keys(key, examples)
    if each == "batch":
        return jnp.broadcast_to(key, (examples, *key.shape))
    raise UserError(f"The `each` of a mixture must be 'example' or 'batch'; got {each!r}")


# Devroye 1996, "Random variate generation in one line of code" (from Bailey's 1994 method for
# Student's t), for Beta(alpha, alpha): jax.random.beta rejects in loops, which take seconds to
# compile and which a CPU goes through example by example.
def _beta(key: jax.Array, alpha: float | jax.Array) -> jax.Array:
    uniform_2 = jax.random.uniform(key, (2,))
    radius = -jnp.expm1(jnp.log(uniform_2[0]) / alpha)
    cosine = jnp.cos(2 * jnp.pi * uniform_2[1])
    distance = cosine * jnp.sqrt(radius / (1 - radius + radius * cosine**2))
    return jnp.clip((1 + distance) / 2, 0, 1)


def _outside(key: jax.Array, share: jax.Array, height: int, width: int) -> jax.Array:
    side = jnp.sqrt(1 - share)
    centre = jax.random.uniform(key, (2,))

    def covered(position: jax.Array, length: int) -> jax.Array:
        centre_px, half_px = jnp.floor(position * length), jnp.floor(side * length) / 2
        start, stop = jnp.ceil(centre_px - half_px), jnp.ceil(centre_px + half_px)
        pixels = jnp.arange(length)
        return (pixels >= start) & (pixels < stop)

    return ~(covered(centre[0], height)[:, None] & covered(centre[1], width)[None, :])


def _mixed(batch: Batch, own_bhw: jax.Array) -> Batch:
    images_bhwc, labels_bk = batch["image"], batch["label"]
    if labels_bk.ndim == 1:
        raise UserError("A mixture takes labels as float32 (b, k); `compose` makes them so")
    own_bhw1 = own_bhw[..., None]
    others_bhwc = jnp.roll(images_bhwc, 1, axis=0)
    if own_bhw.dtype == bool:
        images_bhwc = jnp.where(own_bhw1, images_bhwc, others_bhwc)
    else:
        others_bhwc = others_bhwc.astype(jnp.float32)
        # In this form rounding keeps every value between the two images'.
        images_bhwc = others_bhwc + own_bhw1 * (images_bhwc - others_bhwc)
    share_b1 = own_bhw.mean((1, 2), dtype=jnp.float32)[:, None]
    labels_bk = share_b1 * labels_bk + (1 - share_b1) * jnp.roll(labels_bk, 1, axis=0)
    return {**batch, "image": images_bhwc, "label": labels_bk}


def _check_alpha(augmentation: Augmentation, **values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise UserError(
                f"The `{name}` of `{type(augmentation).__name__}` must be greater than 0; "
                f"got {value}"
            )
