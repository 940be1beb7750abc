"""Convolution, norm and activation, the most common three."""

import jax
from flax import linen as nn

from imgclf.models.layers.activations import activation
from imgclf.models.layers.convolution import Conv, Padding
from imgclf.models.layers.initial import Initializer, he_fan_out
from imgclf.models.layers.norms import BatchNorm, Norm


class ConvNormAct(nn.Module):
    """Convolution without a bias, norm, activation: `conv` and `bn`, as timm calls them."""

    features: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: Padding | None = None
    groups: int = 1
    act: str = "relu"
    norm: Norm = BatchNorm
    kernel_init: Initializer = he_fan_out
    names: tuple[str, str] = ("conv", "bn")

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv(
            self.features,
            self.kernel,
            self.stride,
            self.padding,
            self.groups,
            kernel_init=self.kernel_init,
            name=self.names[0],
        )(x)
        return activation(self.act)(self.norm(name=self.names[1])(x, train))
