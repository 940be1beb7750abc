"""Pooling between the mean and the maximum, by trained or drawn weights."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers.pooling import average_pool


class GeneralisedMean(nn.Module):
    """(mean of x^p)^(1 / p) with a trained `p` (GeM, arXiv:1711.02512).

    p = 1 is the mean, and the larger it is, the nearer it comes to the maximum. Over windows of
    `kernel` x `kernel`, `stride` apart, or, where it is 0, over the image, to (b, c). Values below
    `smallest` count as that; worked out in float32.
    """

    kernel: int = 0
    stride: int = 1
    initial: float = 3.0
    smallest: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        p = self.param("p", nn.initializers.constant(self.initial), (1,), jnp.float32)
        powers = jnp.maximum(x.astype(jnp.float32), self.smallest) ** p
        if not self.kernel:
            return powers.mean((1, 2)) ** (1 / p)
        return (average_pool(powers, self.kernel, self.stride) ** (1 / p)).astype(x.dtype)


class StochasticPool(nn.Module):
    """One place of each window, drawn in proportion to its value (arXiv:1301.3557).

    In evaluation the mean over the window, weighted by the same probabilities. What is below 0
    is never drawn; of a window without anything above 0, the answer is 0.
    """

    kernel: int = 2
    stride: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        windows = nn.relu(_windows(x, self.kernel, self.stride))
        if not train:
            total = windows.sum(0)
            weighted = jnp.square(windows).sum(0)
            return jnp.where(total > 0, weighted / jnp.where(total > 0, total, 1), 0)
        logits = jnp.log(jax.lax.stop_gradient(windows).astype(jnp.float32))
        drawn = jax.random.categorical(self.make_rng("dropout"), logits, 0)
        return jnp.take_along_axis(windows, drawn[None], 0)[0]


def _windows(x: jax.Array, kernel: int, stride: int) -> jax.Array:
    """(kernel^2, b, h', w', c): the values at each place of all windows."""
    height, width = ((size - kernel) // stride * stride + 1 for size in x.shape[1:3])
    return jnp.stack(
        [
            x[:, i : i + height : stride, j : j + width : stride]
            for i in range(kernel)
            for j in range(kernel)
        ]
    )
