"""Inception v3 (Szegedy et al. 2015, arXiv:1512.00567), as timm's and torchvision's."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imgclf.errors import UserError, unknown
from imgclf.models.layers import (
    BatchNorm,
    ConvNormAct,
    Dense,
    Norm,
    average_pool,
    global_average,
    max_pool,
    pooled,
    truncated_normal,
)
from imgclf.models.network import Outputs

_WEIGHTS = truncated_normal(0.1)


class Mixed(nn.Module):
    """Branches of convolutions side by side, and one that is pooled."""

    branches: tuple[tuple[tuple, ...], ...]
    """Of each its layers: (name, channels, kernel, stride, padding), or ("split", layer, layer) for
    two side by side."""
    pool: int
    """Channels behind an average over 3 x 3; 0: the maximum over 3 x 3 with stride 2, as it is."""
    norm: Norm
    width: Callable[[int], int]

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def conv(x: jax.Array, layer: tuple) -> jax.Array:
            name, features, kernel, stride, padding = layer
            make = partial(ConvNormAct, norm=self.norm, kernel_init=_WEIGHTS)
            return make(self.width(features), kernel, stride, padding, name=name)(x, train)

        ends = []
        for branch in self.branches:
            y = x
            for layer in branch:
                if layer[0] == "split":
                    y = jnp.concatenate([conv(y, each) for each in layer[1:]], -1)
                else:
                    y = conv(y, layer)
            ends.append(y)
        if self.pool:
            y = average_pool(x, 3, 1, padding=1)
            ends.append(conv(y, _layer("branch_pool", self.pool, 1)))
        else:
            ends.append(max_pool(x, 3, 2))
        return jnp.concatenate(ends, -1)


def _layer(
    name: str, features: int, kernel: int | tuple[int, int], stride: int = 1, same: bool = True
) -> tuple:
    return name, features, kernel, stride, None if same else 0


def _a(pool: int) -> tuple:
    return (
        (_layer("branch1x1", 64, 1),),
        (_layer("branch5x5_1", 48, 1), _layer("branch5x5_2", 64, 5)),
        (
            _layer("branch3x3dbl_1", 64, 1),
            _layer("branch3x3dbl_2", 96, 3),
            _layer("branch3x3dbl_3", 96, 3),
        ),
    ), pool


def _b() -> tuple:
    return (
        (_layer("branch3x3", 384, 3, 2, same=False),),
        (
            _layer("branch3x3dbl_1", 64, 1),
            _layer("branch3x3dbl_2", 96, 3),
            _layer("branch3x3dbl_3", 96, 3, 2, same=False),
        ),
    ), 0


def _c(middle: int) -> tuple:
    row, column = (1, 7), (7, 1)
    return (
        (_layer("branch1x1", 192, 1),),
        (
            _layer("branch7x7_1", middle, 1),
            _layer("branch7x7_2", middle, row),
            _layer("branch7x7_3", 192, column),
        ),
        (
            _layer("branch7x7dbl_1", middle, 1),
            _layer("branch7x7dbl_2", middle, column),
            _layer("branch7x7dbl_3", middle, row),
            _layer("branch7x7dbl_4", middle, column),
            _layer("branch7x7dbl_5", 192, row),
        ),
    ), 192


def _d() -> tuple:
    return (
        (_layer("branch3x3_1", 192, 1), _layer("branch3x3_2", 320, 3, 2, same=False)),
        (
            _layer("branch7x7x3_1", 192, 1),
            _layer("branch7x7x3_2", 192, (1, 7)),
            _layer("branch7x7x3_3", 192, (7, 1)),
            _layer("branch7x7x3_4", 192, 3, 2, same=False),
        ),
    ), 0


def _e() -> tuple:
    row, column = (1, 3), (3, 1)
    return (
        (_layer("branch1x1", 320, 1),),
        (
            _layer("branch3x3_1", 384, 1),
            ("split", _layer("branch3x3_2a", 384, row), _layer("branch3x3_2b", 384, column)),
        ),
        (
            _layer("branch3x3dbl_1", 448, 1),
            _layer("branch3x3dbl_2", 384, 3),
            ("split", _layer("branch3x3dbl_3a", 384, row), _layer("branch3x3dbl_3b", 384, column)),
        ),
    ), 192


_STEM = (
    _layer("Conv2d_1a_3x3", 32, 3, 2, same=False),
    _layer("Conv2d_2a_3x3", 32, 3, same=False),
    _layer("Conv2d_2b_3x3", 64, 3),
    None,
    _layer("Conv2d_3b_1x1", 80, 1),
    _layer("Conv2d_4a_3x3", 192, 3, same=False),
    None,
)
"""None: the maximum over 3 x 3."""
_BLOCKS = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": _b(),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": _d(),
    "Mixed_7b": _e(),
    "Mixed_7c": _e(),
}


_LEAST = 17  # places in a row of the map that the second classifier reads


class Auxiliary(nn.Module):
    """A second classifier in the middle, for images of 299 px at least."""

    num_classes: int
    norm: Norm
    width: Callable[[int], int]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if min(x.shape[1:3]) < _LEAST:
            raise UserError(
                "The images of an Inception v3 with `auxiliary` must be at least 299 x 299 px"
            )
        conv = partial(ConvNormAct, norm=self.norm, kernel_init=_WEIGHTS)
        x = conv(self.width(128), 1, name="conv0")(average_pool(x, 5, 3), train)
        x = conv(self.width(768), 5, padding=0, name="conv1")(x, train)
        kernel_init = truncated_normal(0.001)
        return Dense(self.num_classes, kernel_init=kernel_init, name="fc")(global_average(x))


class InceptionV3(nn.Module):
    """Five convolutions, eleven blocks (`Mixed_5b` ...), global average, classifier (`fc`)."""

    num_classes: int
    share: float = 1.0
    """Of the paper's channels."""
    blocks: tuple[str, ...] = tuple(_BLOCKS)
    """Those of the eleven that it has."""
    auxiliary: bool = False
    """Whether a classifier in the middle learns, too: its logits are the auxiliary ones."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Classify every place instead of the image."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "Conv2d_1a_3x3.conv"

    @property
    def stages(self) -> tuple[str, ...]:
        """What comes last of each size of the map, as far as it is there."""
        last = ("Mixed_5d", "Mixed_6e", "Mixed_7c")
        return ("Conv2d_2b_3x3", *(name for name in last if name in self.blocks))

    @property
    def other_classifiers(self) -> tuple[str, ...]:
        """The last layer of the classifier in the middle."""
        return ("AuxLogits.fc",) if self.auxiliary else ()

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, epsilon=1e-3, groups=self.batch_groups)

        def width(channels: int) -> int:
            return max(1, round(channels * self.share))

        x = images
        for layer in _STEM:
            if layer is None:
                x = max_pool(x, 3, 2)
                continue
            name, features, kernel, stride, padding = layer
            make = partial(ConvNormAct, norm=norm, kernel_init=_WEIGHTS)
            x = make(width(features), kernel, stride, padding, name=name)(x, train)
        auxiliary: tuple[jax.Array, ...] = ()
        for name in self.blocks:
            if name not in _BLOCKS:
                raise unknown("block", name, _BLOCKS)
            branches, pool = _BLOCKS[name]
            x = Mixed(branches, pool, norm, width, name=name)(x, train)
            if name == "Mixed_6e" and self.auxiliary and train:
                head = Auxiliary(self.num_classes, norm, width, name="AuxLogits")
                auxiliary = (head(x, train),)
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        linear = Dense(self.num_classes, kernel_init=_WEIGHTS, name=self.classifier)
        return Outputs(linear(x), features, auxiliary)

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of a file, without its classifier in the middle if this network has none."""
        if self.auxiliary:
            return stored
        return {name: value for name, value in stored.items() if not name.startswith("AuxLogits")}


inception_v3 = InceptionV3
