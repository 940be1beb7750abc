"""Blocks one after another, and the same in one loop over parameters that are stacked by depth."""

from typing import Any

import jax
import jax.numpy as jnp

from imgclf.models.network import Tree

BLOCKS = "blocks"
"""The submodule with blocks "0", "1", ..., or with the stack of them."""


def stack(params: Tree) -> dict:
    """Parameters as a network with `scan` has them: those of all blocks in one, along a first axis.

    >>> blocks = {"0": {"bias": jnp.zeros(3)}, "1": {"bias": jnp.ones(3)}}
    >>> stack({"blocks": blocks})["blocks"]["bias"].shape
    (2, 3)
    """
    blocks = params[BLOCKS]
    in_order = [blocks[str(i)] for i in range(len(blocks))]
    return {**params, BLOCKS: jax.tree.map(lambda *leaves: jnp.stack(leaves), *in_order)}


def unstack(params: Tree) -> dict:
    """Parameters as a network without `scan` has them: each block's own, "0", "1", ...

    >>> sorted(unstack({"blocks": {"bias": jnp.zeros((2, 3))}})["blocks"])
    ['0', '1']
    """

    def block(i: int) -> Any:
        return jax.tree.map(lambda leaf: leaf[i], params[BLOCKS])

    depth = len(jax.tree.leaves(params[BLOCKS])[0])
    return {**params, BLOCKS: {str(i): block(i) for i in range(depth)}}
