"""AlexNet in its later form on one device (Krizhevsky 2014, arXiv:1404.5997), as torchvision's."""

from typing import ClassVar

import jax
from flax import linen as nn

from imgclf.models.layers import (
    Conv,
    Dense,
    adaptive_average,
    flattened,
    linear_uniform,
    max_pool,
    relu,
)
from imgclf.models.network import Outputs

_CONVOLUTIONS = (("0", 1, 11, 4, 2), ("3", 3, 5, 1, 2), ("6", 6, 3, 1, 1), ("8", 4, 3, 1, 1))
"""Name, channels in widths, kernel, stride and padding; the last, "10", is as the one before."""


class Features(nn.Module):
    """Five convolutions with ReLU; a maximum over 3 x 3 after the first, second and last."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for name, widths, kernel, stride, padding in (*_CONVOLUTIONS, ("10", 4, 3, 1, 1)):
            x = Conv(
                widths * self.width,
                kernel,
                stride,
                padding,
                use_bias=True,
                kernel_init=linear_uniform,
                name=name,
            )(x)
            x = relu(x)
            if name in ("0", "3", "10"):
                x = max_pool(x, 3, 2)
        return x


class Classifier(nn.Module):
    """Three linear layers with dropout before the first two; (logits, features)."""

    num_classes: int
    hidden: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        for name in ("1", "4"):
            x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
            x = relu(Dense(self.hidden, name=name)(x))
        return Dense(self.num_classes, name="6")(x), x


class AlexNet(nn.Module):
    """Five convolutions, averages over 6 x 6 places, three linear layers."""

    num_classes: int
    width: int = 64
    """Channels of the first convolution."""
    hidden: int = 4096
    """Width of the linear layers."""
    drop_rate: float = 0.5
    """Share that dropout takes away before the first two linear layers."""

    classifier: ClassVar[str] = "classifier.6"
    stem: ClassVar[str] = "features.0"
    stages: ClassVar[tuple[str, ...]] = ("features.3", "features.8", "features")

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        x = Features(self.width, name="features")(images)
        x = flattened(adaptive_average(x, 6))
        classifier = Classifier(self.num_classes, self.hidden, self.drop_rate, name="classifier")
        return Outputs(*classifier(x, train))


alexnet = AlexNet
