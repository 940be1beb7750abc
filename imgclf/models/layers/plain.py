"""The switch between what is fast on CPU and XLA's own operations."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import jax

Function = Callable[..., jax.Array]


def plain_operations() -> AbstractContextManager[None]:
    """While entered, layers are traced as XLA's own operations, on CPU too.

    Forward-mode derivatives (`jax.jvp`, `jax.linearize`, `jax.hessian`) need it. What was compiled
    otherwise is compiled anew.

    >>> from imgclf.models.layers.convolution import convolve
    >>> images, kernel = jax.numpy.ones((1, 4, 4, 2)), jax.numpy.ones((3, 3, 2, 5))
    >>> with plain_operations():
    ...     y, along = jax.jvp(lambda x: convolve(x, kernel), (images,), (images,))
    >>> y.shape
    (1, 2, 2, 5)
    """
    return _plain(True)


def are_plain() -> bool:
    """Whether it is entered."""
    return _plain.value


def on_cpu() -> bool:
    """Whether layers take what is fast on CPU."""
    return jax.default_backend() == "cpu" and not are_plain()


def by_platform(
    *arrays: jax.Array, default: Function, cpu: Function | None = None, gpu: Function | None = None
) -> jax.Array:
    """What is written for the platform that it is lowered for makes of the arrays, else `default`.

    The default comes last: `imgclf.models.summary` counts it.
    """
    ways = {"cpu": cpu, "cuda": gpu, "rocm": gpu}
    own = {platform: way for platform, way in ways.items() if way is not None}
    if not own:
        return default(*arrays)
    return jax.lax.platform_dependent(*arrays, default=default, **own)


def once(x: jax.Array) -> jax.Array:
    """`x`, worked out once on CPU, and not anew by everything that needs it.

    XLA would there work out anew the sum of a block and its shortcut, say, and with it those of the
    blocks before, in whatever reads it, the gradients too.
    """
    return jax.lax.optimization_barrier(x) if on_cpu() else x


_plain = jax.make_user_context(False)
