"""What stands on residual branches: stochastic depth and layer scale."""

from collections.abc import Sequence
from itertools import islice

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.channelwise import times


class StochasticDepth(nn.Module):
    """Takes a whole branch away from some images in training (arXiv:1603.09382).

    With probability `rate` for each image (first axis); what stays is scaled up by 1 / (1 - rate).
    A rate that is only known when it runs is handed over with the call: `rate` is then its maximum.
    """

    rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, rate: jax.Array | None = None) -> jax.Array:
        if not train or not self.rate:
            return x
        stays = 1 - (self.rate if rate is None else rate)
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("dropout"), stays, shape)
        return jnp.where(kept, x / stays, jnp.zeros((), x.dtype)).astype(x.dtype)


class LayerScale(nn.Module):
    """A trained factor for each channel (arXiv:2103.17239), called `gamma`."""

    initial: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.constant(self.initial)
        return times(x, self.param("gamma", init, (x.shape[-1],), jnp.float32))


def linear_rates(rate: float, blocks: int) -> list[float]:
    """The rate of each of so many blocks: from 0 at the first to `rate` at the last.

    >>> linear_rates(0.2, 3)
    [0.0, 0.1, 0.2]
    """
    return [rate * i / max(blocks - 1, 1) for i in range(blocks)]


def stage_rates(rate: float, depths: Sequence[int]) -> list[tuple[float, ...]]:
    """The same for stages of so many blocks, one after another.

    >>> stage_rates(0.2, (1, 2))
    [(0.0,), (0.1, 0.2)]
    """
    rates = iter(linear_rates(rate, sum(depths)))
    return [tuple(islice(rates, depth)) for depth in depths]
