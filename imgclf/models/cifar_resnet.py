"""The ResNets for 32 px images of He et al. 2015 (arXiv:1512.03385), section 4.2.

Names and initial values are torchvision's. Shortcuts have no parameters ("option A").
"""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers import (
    BatchNorm,
    Conv,
    Dense,
    Norm,
    StochasticDepth,
    linear_rates,
    pooled,
    relu,
)
from imgclf.models.network import Outputs


class CifarResNet(nn.Module):
    """3x3 stem, three stages of `depth` blocks (`layer1` to `layer3`), global average, `fc`."""

    num_classes: int
    depth: int
    width: int = 16
    """Channels of the first stage; each further one doubles them."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """How often the last block's branch is left out in training; earlier ones less often."""
    dense: bool = False
    """Classify every place instead of the image."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "conv1"
    stages: ClassVar[tuple[str, ...]] = ("layer1", "layer2", "layer3")

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, groups=self.batch_groups)
        x = Conv(self.width, name="conv1")(images)
        x = relu(norm(name="bn1")(x, train))
        rates = linear_rates(self.stochastic_depth, 3 * self.depth)
        for i, name in enumerate(self.stages):
            own = tuple(rates[i * self.depth : (i + 1) * self.depth])
            x = Stage(own, self.width * 2**i, min(i + 1, 2), norm, name=name)(x, train)
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return Outputs(Dense(self.num_classes, name=self.classifier)(x), features)


class Stage(nn.Module):
    """Blocks of one width, one for each rate of stochastic depth; the first may halve the size."""

    rates: tuple[float, ...]
    features: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, rate in enumerate(self.rates):
            stride = self.stride if i == 0 else 1
            x = Block(self.features, stride, rate, self.norm, name=str(i))(x, train)
        return x


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters (option A of the paper)."""

    features: int
    stride: int
    rate: float
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = Conv(self.features, stride=self.stride, name="conv1")(x)
        y = relu(self.norm(name="bn1")(y, train))
        y = Conv(self.features, name="conv2")(y)
        y = StochasticDepth(self.rate)(self.norm(name="bn2")(y, train), train)
        return relu(y + shortcut(x, self.features, self.stride))


def shortcut(x: jax.Array, features: int, stride: int) -> jax.Array:
    """Every `stride`-th row and column, with channels of zeros added on both sides."""
    added = features - x.shape[-1]
    before = added // 2
    return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (before, added - before)))


cifar_resnet20 = partial(CifarResNet, depth=3)
cifar_resnet32 = partial(CifarResNet, depth=5)
cifar_resnet44 = partial(CifarResNet, depth=7)
cifar_resnet56 = partial(CifarResNet, depth=9)
cifar_resnet110 = partial(CifarResNet, depth=18)
