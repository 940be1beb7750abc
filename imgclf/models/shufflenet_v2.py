"""ShuffleNet V2 (Ma et al. 2018, arXiv:1807.11164), as torchvision's."""

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
    linear_uniform,
    max_pool,
    pooled,
    relu,
)
from imgclf.models.network import Outputs

_conv = partial(Conv, kernel_init=linear_uniform)


class ConvNorm(nn.Module):
    """A convolution, norm and ReLU: `0` and `1`."""

    features: int
    kernel: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = _conv(self.features, self.kernel, self.stride, name="0")(x)
        return relu(self.norm(name="1")(x, train))


class Shortened(nn.Module):
    """The branch where the size is halved: 3 x 3 depthwise, then 1 x 1."""

    features: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = _conv(x.shape[-1], 3, 2, groups=x.shape[-1], name="0")(x)
        x = _conv(self.features, 1, name="2")(self.norm(name="1")(x, train))
        return relu(self.norm(name="3")(x, train))


class Branch(nn.Module):
    """1 x 1, 3 x 3 depthwise, 1 x 1."""

    features: int
    stride: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = _conv(self.features, 1, name="0")(x)
        x = relu(self.norm(name="1")(x, train))
        x = _conv(self.features, 3, self.stride, groups=self.features, name="3")(x)
        x = _conv(self.features, 1, name="5")(self.norm(name="4")(x, train))
        return relu(self.norm(name="6")(x, train))


class Unit(nn.Module):
    """Half of the channels go through a branch, the others past it; then they are shuffled."""

    features: int
    stride: int
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        half = self.features // 2
        branch = Branch(half, self.stride, self.norm, name="branch2")
        if self.stride > 1:
            past, through = Shortened(half, self.norm, name="branch1")(x, train), branch(x, train)
        else:
            past, through = x[..., :half], branch(x[..., half:], train)
        return jnp.stack([past, through], -1).reshape(*past.shape[:-1], -1)


class Stage(nn.Module):
    """Units of one width; the first halves the size."""

    depth: int
    features: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.depth):
            x = Unit(self.features, 1 if i else 2, self.norm, name=str(i))(x, train)
        return x


class ShuffleNetV2(nn.Module):
    """Stem, three stages (`stage2` to `stage4`), 1 x 1 convolution, global average, `fc`."""

    num_classes: int
    widths: tuple[int, ...]
    """Channels of the three stages and of the last convolution."""
    depths: tuple[int, ...] = (4, 8, 4)
    stem_width: int = 24
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Classify every place instead of the image."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "conv1.0"

    @property
    def stages(self) -> tuple[str, ...]:
        """What `capture` calls the map after each stage."""
        return tuple(f"stage{i + 2}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, groups=self.batch_groups)
        *widths, last = self.widths
        x = ConvNorm(self.stem_width, 3, 2, norm, name="conv1")(images, train)
        x = max_pool(x, 3, 2, padding=1)
        for name, depth, width in zip(self.stages, self.depths, widths, strict=True):
            x = Stage(depth, width, norm, name=name)(x, train)
        x = ConvNorm(last, 1, 1, norm, name="conv5")(x, train)
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return Outputs(Dense(self.num_classes, name=self.classifier)(x), features)


shufflenet_v2_x0_5 = partial(ShuffleNetV2, widths=(48, 96, 192, 1024))
shufflenet_v2_x1_0 = partial(ShuffleNetV2, widths=(116, 232, 464, 1024))
shufflenet_v2_x1_5 = partial(ShuffleNetV2, widths=(176, 352, 704, 1024))
shufflenet_v2_x2_0 = partial(ShuffleNetV2, widths=(244, 488, 976, 2048))
