"""GoogLeNet, or Inception v1 (Szegedy et al. 2014, arXiv:1409.4842), as torchvision's."""

from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imgclf.errors import unknown
from imgclf.models.layers import (
    BatchNorm,
    ConvNormAct,
    Dense,
    Norm,
    Numbered,
    adaptive_average,
    flattened,
    max_pool,
    pooled,
    relu,
    truncated_normal,
)
from imgclf.models.network import Outputs

_WEIGHTS = truncated_normal(0.01)
_conv = partial(ConvNormAct, kernel_init=_WEIGHTS)

_BLOCKS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class PooledBranch(nn.Module):
    """The maximum over 3 x 3 at every place, then a 1 x 1 convolution."""

    features: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = max_pool(x, 3, 1, padding=1, ceil=True)
        return _conv(self.features, 1, norm=self.norm, name="1")(x, train)


class Inception(nn.Module):
    """Four branches: 1 x 1; 1 x 1 and 3 x 3, twice (the second by mistake, for 5 x 5); pooled."""

    widths: tuple[int, ...]
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(_conv, norm=self.norm)
        one, before_three, three, before_five, five, after_pool = self.widths
        branches = (
            conv(one, 1, name="branch1"),
            Numbered((partial(conv, before_three, 1), partial(conv, three, 3)), name="branch2"),
            Numbered((partial(conv, before_five, 1), partial(conv, five, 3)), name="branch3"),
            PooledBranch(after_pool, self.norm, name="branch4"),
        )
        return jnp.concatenate([branch(x, train) for branch in branches], -1)


class Auxiliary(nn.Module):
    """A second classifier in the middle: averages over 4 x 4, 1 x 1 convolution, two layers."""

    num_classes: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        dense = partial(Dense, kernel_init=_WEIGHTS)
        x = _conv(128, 1, norm=self.norm, name="conv")(adaptive_average(x, 4), train)
        x = relu(dense(1024, name="fc1")(flattened(x).astype(jnp.float32)))
        x = nn.Dropout(0.7, deterministic=not train)(x)
        return dense(self.num_classes, name="fc2")(x)


class GoogLeNet(nn.Module):
    """Three convolutions, nine inception blocks (`inception3a` ...), global average, `fc`."""

    num_classes: int
    share: float = 1.0
    """Of the paper's channels."""
    blocks: tuple[str, ...] = tuple(_BLOCKS)
    """Those of the nine that it has; before "4a" and "5a" the map is halved."""
    auxiliary: bool = False
    """Whether two classifiers in the middle learn, too: their logits are the auxiliary ones."""
    drop_rate: float = 0.2
    """Share of the features that dropout takes away before the classifier."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Classify every place instead of the image."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "conv1.conv"

    @property
    def stages(self) -> tuple[str, ...]:
        """What comes last of each size of the map, as far as it is there."""
        return (
            "conv3",
            *(f"inception{name}" for name in ("3b", "4e", "5b") if name in self.blocks),
        )

    @property
    def other_classifiers(self) -> tuple[str, ...]:
        """The last layers of the classifiers in the middle."""
        return ("aux1.fc2", "aux2.fc2") if self.auxiliary else ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, epsilon=1e-3, groups=self.batch_groups)
        conv = partial(_conv, norm=norm)

        def width(channels: int) -> int:
            return max(1, round(channels * self.share))

        x = conv(width(64), 7, 2, name="conv1")(images, train)
        x = conv(width(64), 1, name="conv2")(max_pool(x, 3, 2, ceil=True), train)
        x = conv(width(192), 3, name="conv3")(x, train)
        x = max_pool(x, 3, 2, ceil=True)
        auxiliary: list[jax.Array] = []
        for block in self.blocks:
            if block == "4a":
                x = max_pool(x, 3, 2, ceil=True)
            elif block == "5a":
                x = max_pool(x, 2, 2, ceil=True)
            if block not in _BLOCKS:
                raise unknown("block", block, _BLOCKS)
            widths = tuple(map(width, _BLOCKS[block]))
            x = Inception(widths, norm, name=f"inception{block}")(x, train)
            if block in ("4a", "4d") and self.auxiliary and train:
                head = Auxiliary(self.num_classes, norm, name=f"aux{len(auxiliary) + 1}")
                auxiliary.append(head(x, train))
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        linear = Dense(self.num_classes, kernel_init=_WEIGHTS, name=self.classifier)
        return Outputs(linear(x), features, tuple(auxiliary))

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of a file, without its classifiers in the middle if this network has none."""
        if self.auxiliary:
            return stored
        return {name: value for name, value in stored.items() if not name.startswith("aux")}


googlenet = GoogLeNet
