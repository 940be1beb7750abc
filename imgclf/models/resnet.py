"""ResNets (He et al. 2015, arXiv:1512.03385), under timm's names and as timm builds them."""

from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from imgclf.models.layers import (
    BatchNorm,
    Conv,
    Dense,
    Initializer,
    Norm,
    global_average,
    max_pool,
)
from imgclf.models.network import Outputs


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    features: int
    stride: int = 1
    zero_init_last: bool = True
    norm: Norm = BatchNorm

    expansion: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = Conv(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = Conv(self.features, 3, name="conv2")(y)
        y = self.norm(scale_init=last_scale(self.zero_init_last), name="bn2")(y, train)
        return nn.relu(y + shortcut(x, y, self.stride, self.norm, train))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the stride is in the middle one ("v1.5")."""

    features: int
    stride: int = 1
    zero_init_last: bool = True
    norm: Norm = BatchNorm

    expansion: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = Conv(self.features, 1, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y, train))
        y = Conv(self.features, 3, self.stride, name="conv2")(y)
        y = nn.relu(self.norm(name="bn2")(y, train))
        y = Conv(self.features * self.expansion, 1, name="conv3")(y)
        y = self.norm(scale_init=last_scale(self.zero_init_last), name="bn3")(y, train)
        return nn.relu(y + shortcut(x, y, self.stride, self.norm, train))


class Downsample(nn.Module):
    """The shortcut where a block changes the shape: a 1x1 convolution and a norm."""

    features: int
    stride: int
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = Conv(self.features, 1, self.stride, name="0")(x)
        return self.norm(name="1")(x, train)


def shortcut(x: jax.Array, y: jax.Array, stride: int, norm: Norm, train: bool) -> jax.Array:
    """`x` as it can be added to `y`: projected by 1 x 1 convolution where the shapes differ."""
    if x.shape == y.shape:
        return x
    return Downsample(y.shape[-1], stride, norm, name="downsample")(x, train)


def last_scale(zero: bool) -> Initializer:
    """A block that ends in a scale of zero begins as the identity (arXiv:1706.02677)."""
    return nn.initializers.zeros if zero else nn.initializers.ones


class Stage(nn.Module):
    """`depth` blocks of one width; the first has the stride."""

    block: type[BasicBlock] | type[Bottleneck]
    depth: int
    features: int
    stride: int
    zero_init_last: bool
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.depth):
            stride = self.stride if i == 0 else 1
            block = self.block(self.features, stride, self.zero_init_last, self.norm, name=str(i))
            x = block(x, train)
        return x


class ResNet(nn.Module):
    """Stem, four stages (`layer1` to `layer4`), global average, classifier (`fc`)."""

    num_classes: int
    block: type[BasicBlock] | type[Bottleneck]
    depths: tuple[int, ...]
    width: int = 64
    """Channels of the stem and of the first stage's 3x3 convolutions; each stage doubles them."""
    zero_init_last: bool = True
    """Whether every block begins as the identity."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "conv1"

    @property
    def stages(self) -> tuple[str, ...]:
        return tuple(f"layer{i + 1}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, groups=self.batch_groups)
        x = Conv(self.width, 7, 2, name="conv1")(images)
        x = nn.relu(norm(name="bn1")(x, train))
        x = max_pool(x, 3, 2, padding=1)
        for i, depth in enumerate(self.depths):
            x = Stage(
                self.block,
                depth,
                self.width * 2**i,
                stride=1 if i == 0 else 2,
                zero_init_last=self.zero_init_last,
                norm=norm,
                name=f"layer{i + 1}",
            )(x, train)
        features = global_average(x)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return Outputs(Dense(self.num_classes, name=self.classifier)(x), features)


resnet18 = partial(ResNet, block=BasicBlock, depths=(2, 2, 2, 2))
resnet34 = partial(ResNet, block=BasicBlock, depths=(3, 4, 6, 3))
resnet50 = partial(ResNet, block=Bottleneck, depths=(3, 4, 6, 3))
resnet101 = partial(ResNet, block=Bottleneck, depths=(3, 4, 23, 3))
resnet152 = partial(ResNet, block=Bottleneck, depths=(3, 8, 36, 3))
