"""SqueezeNet (Iandola et al. 2016, arXiv:1602.07360), as torchvision's."""

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.models.layers import Conv, max_pool, pooled, relu
from imgclf.models.network import Outputs

_ZEROS = nn.initializers.zeros
_he_uniform = nn.initializers.variance_scaling(2.0, "fan_in", "uniform")
_conv = partial(Conv, use_bias=True, kernel_init=_he_uniform, bias_init=_ZEROS)


class Fire(nn.Module):
    """1 x 1 to few channels; from these 1 x 1 and 3 x 3, to four times as many each."""

    squeezed: int

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = relu(_conv(self.squeezed, 1, name="squeeze")(x))
        one = relu(_conv(4 * self.squeezed, 1, name="expand1x1")(x))
        three = relu(_conv(4 * self.squeezed, 3, name="expand3x3")(x))
        return jnp.concatenate([one, three], -1)


class Features(nn.Module):
    """A convolution, then fires; a maximum over 3 x 3 at the places `pools`."""

    stem: tuple[int, int]
    pools: tuple[int, ...]
    squeezed: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        features, kernel = self.stem
        x = relu(_conv(features, kernel, 2, padding=0, name="0")(x))
        fires = iter(self.squeezed)
        for place in range(2, 2 + len(self.pools) + len(self.squeezed)):
            if place in self.pools:
                x = max_pool(x, 3, 2, ceil=True)
            else:
                x = Fire(next(fires), name=str(place))(x)
        return x


class Classifier(nn.Module):
    """A 1 x 1 convolution to the classes, `1`, and ReLU."""

    num_classes: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
        kernel_init = nn.initializers.normal(0.01)
        return relu(_conv(self.num_classes, 1, kernel_init=kernel_init, name="1")(x))


class SqueezeNet(nn.Module):
    """Convolution, eight fires, a map of classes, and its mean."""

    num_classes: int
    stem_layer: tuple[int, int]
    """Channels and kernel of the first convolution."""
    pools: tuple[int, ...]
    """The places of maxima in the sequence of layers."""
    squeezed: tuple[int, ...] = (16, 16, 32, 32, 48, 48, 64, 64)
    """Channels in the middle of each fire."""
    drop_rate: float = 0.5
    """Share that dropout takes away before the classifier."""
    dense: bool = False
    """Answer with the map of classes instead of its mean."""

    classifier: ClassVar[str] = "classifier.1"
    stem: ClassVar[str] = "features.0"

    @property
    def stages(self) -> tuple[str, ...]:
        """The fire before each maximum but the first, and all of them."""
        return (*(f"features.{place - 1}" for place in self.pools[1:]), "features")

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        x = Features(self.stem_layer, self.pools, self.squeezed, name="features")(images)
        classes = Classifier(self.num_classes, self.drop_rate, name="classifier")(x, train)
        return Outputs(pooled(classes, self.dense), pooled(x, self.dense))


squeezenet1_0 = partial(SqueezeNet, stem_layer=(96, 7), pools=(2, 6, 11))
squeezenet1_1 = partial(SqueezeNet, stem_layer=(64, 3), pools=(2, 5, 8))
