"""The classifier of a network: where it is, and another in its place."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from imgclf.errors import UserError
from imgclf.kinds import fits
from imgclf.models.network import Network, Tree, channels_of

_DOUBLED = 8  # times, at most, is the size of images that a classifier's width is looked for at


def classifiers(module: nn.Module) -> tuple[str, ...]:
    """The dotted paths of the layers whose outputs are logits: the final one first."""
    first = getattr(module, "classifier", "")
    return (first, *getattr(module, "other_classifiers", ())) if first else ()


def reset_classifier(
    network: Network, params: Tree, num_classes: int, key: jax.Array
) -> tuple[Network, dict]:
    """(network, params) with a fresh classifier of so many classes; all else is kept.

    Raises a `UserError` for a network that does not say where its classifier is, as a person's
    own module does by `classifier`.

    >>> from imgclf import models
    >>> network = models.create("cnn", 10)
    >>> params, _ = network.initialise(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    >>> other, params = reset_classifier(network, params, 3, jax.random.key(1))
    >>> other.num_classes, params["fc"]["bias"].shape
    (3, (3,))
    """
    heads = classifiers(network.module)
    if not heads or not hasattr(network.module, "num_classes"):
        raise UserError(
            f"The module of `{network.name}` must have a field `num_classes` and say by "
            "`classifier` which of its layers gives the logits"
        )
    if not fits(num_classes, int) or num_classes < 1:
        raise UserError(
            "The `num_classes` of a network must be a whole number, at least 1; "
            f"got {num_classes!r}"
        )
    module = network.module.clone(num_classes=num_classes)
    other = dataclasses.replace(network, module=module, num_classes=num_classes)
    channels = channels_of(module, params) or network.in_channels
    paths = tuple(tuple(head.split(".")) for head in heads)

    def fresh(side: int, key: jax.Array) -> dict:
        made = flatten_dict(other.initialise(key, jnp.zeros((1, side, side, channels)))[0])
        return {keys: leaf for keys, leaf in made.items() if keys[:-1] in paths}

    def as_wide(made: dict) -> bool:
        kernels = (keys for keys in made if keys[-1] == "kernel")
        return all(made[keys].shape[:-1] == kept[keys].shape[:-1] for keys in kernels)

    # Of some networks the depth, and so the classifier's width, depends on the images.
    kept = flatten_dict(params)
    for side in (network.image_shape[0] * 2**i for i in range(_DOUBLED)):
        if as_wide(jax.eval_shape(partial(fresh, side), key)):
            return other, unflatten_dict({**kept, **jax.jit(partial(fresh, side))(key)})
    raise UserError(
        f"The `params` must be those of `{network.name}`; its classifier is of another width"
    )
