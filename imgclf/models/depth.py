"""Variables of equal blocks: each block's own, or those of all in one, along a first axis.

The second form is that of a network with `scan`. Its module says by `repeated` which blocks of
which submodules are equal; networks that say nothing have just the first form.
"""

from collections.abc import Iterable, Iterator

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from imgclf.errors import UserError
from imgclf.models.layers import stacked_name
from imgclf.models.network import Network, Tree


def stack(network: Network, params: Tree, model_state: Tree) -> tuple[dict, dict]:
    """(params, model_state) of `network` without `scan` as they are with it.

    >>> from imgclf import models
    >>> network = models.create("vit_tiny_patch16_224", 10, depth=2, width=3, heads=1)
    >>> blocks = {"0": {"bias": jnp.zeros(3)}, "1": {"bias": jnp.ones(3)}}
    >>> params, _ = stack(network, {"blocks": blocks}, {})
    >>> params["blocks"]["0-1"]["bias"].shape
    (2, 3)
    """
    variables = flatten_dict({"params": params, **model_state})
    for submodule, numbers in _runs(network):
        _expect(network, variables, submodule, map(str, numbers))
        for keys in [keys for keys in variables if keys[1:3] == (submodule, str(numbers[0]))]:
            each = [variables.pop((*keys[:2], str(i), *keys[3:])) for i in numbers]
            variables[*keys[:2], stacked_name(numbers), *keys[3:]] = jnp.stack(each)
    return _collections(variables)


def unstack(network: Network, params: Tree, model_state: Tree) -> tuple[dict, dict]:
    """(params, model_state) of `network` with `scan` as they are without it.

    >>> from imgclf import models
    >>> network = models.create("vit_tiny_patch16_224", 10, depth=2, width=3, heads=1)
    >>> params, _ = unstack(network, {"blocks": {"0-1": {"bias": jnp.zeros((2, 3))}}}, {})
    >>> sorted(params["blocks"])
    ['0', '1']
    """
    variables = flatten_dict({"params": params, **model_state})
    for submodule, numbers in _runs(network):
        _expect(network, variables, submodule, [stacked_name(numbers)])
        for keys in [keys for keys in variables if keys[1:3] == (submodule, stacked_name(numbers))]:
            together = variables.pop(keys)
            for i, leaf in zip(numbers, together, strict=True):
                variables[*keys[:2], str(i), *keys[3:]] = leaf
    return _collections(variables)


def _runs(network: Network) -> Iterator[tuple[str, range]]:
    for submodule, numbers in getattr(network.module, "repeated", {}).items():
        if len(numbers) > 1:
            yield submodule, numbers


def _expect(network: Network, variables: dict, submodule: str, blocks: Iterable[str]) -> None:
    for block in blocks:
        if not any(keys[1:3] == (submodule, block) for keys in variables):
            raise UserError(
                f"The `params` must be those of `{network.name}`; there is no block {block} in "
                f"`{submodule}`"
            )


def _collections(variables: dict) -> tuple[dict, dict]:
    collections = unflatten_dict(variables)
    return collections.pop("params", {}), collections
