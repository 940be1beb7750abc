"""Less memory for a training step: what is inside a block is worked out twice, not kept."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from flax import linen as nn

from imgclf.errors import UserError


@contextmanager
def recomputed_blocks(network: str) -> Iterator[None]:
    """While entered, of what a block computes only the inputs are kept for its gradients.

    The rest is computed anew when they are. Blocks are modules with a true `is_block`, without
    those inside others. Raises a `UserError` where none was called.
    """
    found = inside = False

    def call(
        own: Callable[..., Any],
        arguments: tuple[Any, ...],
        words: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        nonlocal found, inside
        is_block = getattr(context.module, "is_block", False)
        if inside or not is_block or context.method_name != "__call__":
            return own(*arguments, **words)
        found = inside = True

        def block(module: nn.Module, *arrays: jax.Array) -> Any:
            left = iter(arrays)
            return module(*(a if isinstance(a, bool) else next(left) for a in arguments), **words)

        try:
            arrays = [a for a in arguments if not isinstance(a, bool)]
            return nn.remat(block)(context.module, *arrays)
        finally:
            inside = False

    with nn.intercept_methods(call):
        yield
    if not found:
        raise UserError(
            f"The `recompute` of `{network}` must be False, since it has no blocks; a module of "
            "one's own is one if it has `is_block = True`"
        )
