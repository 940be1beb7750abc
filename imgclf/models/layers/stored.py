"""What a module's parameters already are, where its images must fit them."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn


def stored_shape(module: nn.Module, *path: str) -> tuple[int, ...]:
    """The shape of the parameter at `path` below the module; () while parameters are made."""
    found: Any = module.variables.get("params", {})
    for part in path:
        if not isinstance(found, Mapping) or part not in found:
            return ()
        found = found[part]
    return tuple(found.shape)
