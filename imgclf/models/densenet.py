"""DenseNet (Huang et al. 2016, arXiv:1608.06993), as timm's and torchvision's."""

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
    average_pool,
    blur_pool,
    max_pool,
    pooled,
    relu,
)
from imgclf.models.network import Outputs

_he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
_conv = partial(Conv, kernel_init=_he_normal)


class DenseLayer(nn.Module):
    """Norm, ReLU, 1 x 1 convolution; norm, ReLU, 3 x 3: so many new channels."""

    growth: int
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = relu(self.norm(name="norm1")(x, train))
        x = _conv(4 * self.growth, 1, name="conv1")(x)
        x = relu(self.norm(name="norm2")(x, train))
        return _conv(self.growth, 3, name="conv2")(x)


class DenseBlock(nn.Module):
    """Layers that each read what all before them gave."""

    depth: int
    growth: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in range(self.depth):
            new = DenseLayer(self.growth, self.norm, name=f"denselayer{i + 1}")(x, train)
            x = jnp.concatenate([x, new], -1)
        return x


class Transition(nn.Module):
    """Norm, ReLU, half the channels, half the size."""

    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = relu(self.norm(name="norm")(x, train))
        return average_pool(_conv(x.shape[-1] // 2, 1, name="conv")(x), 2, 2)


class Features(nn.Module):
    """Stem, dense blocks with transitions between, norm and ReLU."""

    depths: tuple[int, ...]
    growth: int
    stem_widths: tuple[int, ...]
    blur: bool
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        kernel = 3 if len(self.stem_widths) > 1 else 7
        for i, width in enumerate(self.stem_widths):
            x = _conv(width, kernel, 1 if i else 2, name=f"conv{i}")(x)
            x = relu(self.norm(name=f"norm{i}")(x, train))
        x = max_pool(x, 3, 1 if self.blur else 2, padding=1)
        x = blur_pool(x) if self.blur else x
        for i, depth in enumerate(self.depths):
            if i:
                x = Transition(self.norm, name=f"transition{i}")(x, train)
            x = DenseBlock(depth, self.growth, self.norm, name=f"denseblock{i + 1}")(x, train)
        return relu(self.norm(name="norm5")(x, train))


class DenseNet(nn.Module):
    """Stem, four dense blocks, global average, classifier."""

    num_classes: int
    depths: tuple[int, ...]
    """Layers in each block."""
    growth: int = 32
    """Channels that each layer adds."""
    stem_widths: tuple[int, ...] = (64,)
    """Channels of the stem's convolutions: one of 7 x 7, or several of 3 x 3."""
    blur: bool = False
    """Whether the stem's pooling is anti-aliased (arXiv:1904.11486)."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Classify every place instead of the image."""

    classifier: ClassVar[str] = "classifier"
    stem: ClassVar[str] = "features.conv0"

    @property
    def stages(self) -> tuple[str, ...]:
        """What `capture` calls the map after each block."""
        return tuple(f"features.denseblock{i + 1}" for i in range(len(self.depths)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, groups=self.batch_groups)
        x = Features(self.depths, self.growth, self.stem_widths, self.blur, norm, name="features")(
            images, train
        )
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        linear = Dense(self.num_classes, bias_init=nn.initializers.zeros, name=self.classifier)
        return Outputs(linear(x), features)


densenet121 = partial(DenseNet, depths=(6, 12, 24, 16))
densenet161 = partial(DenseNet, depths=(6, 12, 36, 24), growth=48, stem_widths=(96,))
densenet169 = partial(DenseNet, depths=(6, 12, 32, 32))
densenet201 = partial(DenseNet, depths=(6, 12, 48, 32))
densenet264d = partial(DenseNet, depths=(6, 12, 64, 48), growth=48, stem_widths=(48, 48, 96))
densenetblur121d = partial(densenet121, stem_widths=(32, 32, 64), blur=True)
