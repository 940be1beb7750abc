"""The end of most convolutional networks: mean over all places, dropout, linear layer."""

import jax
from flax import linen as nn

from imgclf.models.layers.initial import Initializer, linear_uniform
from imgclf.models.layers.linear import Dense
from imgclf.models.layers.pooling import pooled


class PooledHead(nn.Module):
    """Answers (logits, features) to images (b, h, w, c); the linear layer is called `fc`.

    If it is `dense`, there is no mean: both have an entry for every place, (b, h, w, ...).
    """

    num_classes: int
    drop_rate: float = 0.0
    dense: bool = False
    kernel_init: Initializer = linear_uniform
    bias_init: Initializer | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        linear = Dense(
            self.num_classes, kernel_init=self.kernel_init, bias_init=self.bias_init, name="fc"
        )
        return linear(x), features
