"""VGG (Simonyan and Zisserman 2014, arXiv:1409.1556), with and without batch normalisation.

As timm builds it: the hidden layers are convolutions. They are linear in torchvision's files, which
go in, too. On images of more than 224 px they look at each 7 x 7 places, torchvision's at averages.
"""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from flax import linen as nn

from imgclf.models.layers import (
    BatchNorm,
    Conv,
    Dense,
    Norm,
    adaptive_average,
    max_pool,
    pooled,
    relu,
)
from imgclf.models.network import Outputs
from imgclf.models.torchvision import renamed

_ZEROS = nn.initializers.zeros
_NORMAL = nn.initializers.normal(0.01)
_SIDE = 7  # places in a row of the map that the first hidden layer reads
_NAMES = (
    (r"^classifier\.0\.", "pre_logits.fc1."),
    (r"^classifier\.3\.", "pre_logits.fc2."),
    (r"^classifier\.6\.", "head.fc."),
)
"""torchvision's, and timm's in their place."""


class Features(nn.Module):
    """3 x 3 convolutions, norms where there are, and ReLU; a maximum over 2 x 2 ends each stage.

    Named by their places among all, as in PyTorch's sequence.
    """

    depths: tuple[int, ...]
    width: int
    norm: Norm | None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        place = 0
        for i, depth in enumerate(self.depths):
            for _ in range(depth):
                features = self.width * min(2**i, 8)
                x = Conv(features, use_bias=True, bias_init=_ZEROS, name=str(place))(x)
                if self.norm:
                    x = self.norm(name=str(place + 1))(x, train)
                x = relu(x)
                place += 3 if self.norm else 2
            x = max_pool(x, 2, 2)
            place += 1
        return x


class HiddenConvolutions(nn.Module):
    """timm's `pre_logits`: a convolution over 7 x 7 places, and one of 1 x 1."""

    hidden: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = adaptive_average(x, (max(_SIDE, x.shape[1]), max(_SIDE, x.shape[2])))
        conv = partial(Conv, self.hidden, use_bias=True, bias_init=_ZEROS)
        x = relu(conv(_SIDE, padding=0, name="fc1")(x))
        x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
        return relu(conv(1, name="fc2")(x))


class Head(nn.Module):
    """timm's `head`: dropout and the classifier, `fc`."""

    num_classes: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn.Dropout(self.drop_rate, deterministic=not train)(x)
        return Dense(self.num_classes, kernel_init=_NORMAL, bias_init=_ZEROS, name="fc")(x)


class VGG(nn.Module):
    """Five stages of 3 x 3 convolutions, two hidden layers and a classifier."""

    num_classes: int
    depths: tuple[int, ...]
    """Convolutions in each stage."""
    normed: bool = False
    """Whether a batch normalisation follows each convolution."""
    width: int = 64
    hidden: int = 4096
    """Width of the hidden layers."""
    drop_rate: float = 0.5
    """Share that dropout takes away behind each hidden layer."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Classify every 7 x 7 places instead of the image."""

    stem: ClassVar[str] = "features.0"
    classifier: ClassVar[str] = "head.fc"

    @property
    def stages(self) -> tuple[str, ...]:
        """The last convolution (or norm) of each stage but the last, and all of them."""
        step = 3 if self.normed else 2
        ends, place = [], 0
        for depth in self.depths[:-1]:
            place += depth * step
            ends.append(f"features.{place - 2}")
            place += 1
        return (*ends, "features")

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, groups=self.batch_groups) if self.normed else None
        x = Features(self.depths, self.width, norm, name="features")(images, train)
        x = HiddenConvolutions(self.hidden, self.drop_rate, name="pre_logits")(x, train)
        features = pooled(x, self.dense)
        head = Head(self.num_classes, self.drop_rate, name="head")
        return Outputs(head(features, train), features)

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of timm's file or of torchvision's as timm's."""
        found = renamed(stored, _NAMES)
        for name, side in (("pre_logits.fc1.weight", _SIDE), ("pre_logits.fc2.weight", 1)):
            weight = found.get(name)
            if weight is not None and weight.ndim == 2 and weight.shape[1] % side**2 == 0:
                found[name] = weight.reshape(len(weight), -1, side, side)
        return found


_11, _13, _16, _19 = (1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)

vgg11 = partial(VGG, depths=_11)
vgg13 = partial(VGG, depths=_13)
vgg16 = partial(VGG, depths=_16)
vgg19 = partial(VGG, depths=_19)
vgg11_bn = partial(VGG, depths=_11, normed=True)
vgg13_bn = partial(VGG, depths=_13, normed=True)
vgg16_bn = partial(VGG, depths=_16, normed=True)
vgg19_bn = partial(VGG, depths=_19, normed=True)
