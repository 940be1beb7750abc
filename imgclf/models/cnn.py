"""A small convolutional network for small images: from 8 px digits up."""

from functools import partial
from typing import ClassVar, Literal

import jax
from flax import linen as nn

from imgclf.models.layers import (
    CBAM,
    ActivationName,
    BatchNorm,
    Conv,
    Dense,
    EfficientChannelAttention,
    GeneralisedMean,
    Norm,
    SqueezeExcite,
    StochasticPool,
    activation,
    average_pool,
    max_pool,
    pooled,
)
from imgclf.models.network import Outputs

Pool = Literal["max", "average", "stochastic", "generalised"]
Attention = Literal["", "se", "eca", "cbam"]


class CNN(nn.Module):
    """Two to four stages, by image size; each halves the size and doubles the channels.

    A stage is twice convolution, norm and ReLU, then a maximum over 2 x 2, unless
    told otherwise. There are two stages for images below 16 px, three below 32, four from there
    on.
    """

    num_classes: int
    width: int = 32
    """Channels of the first stage."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    pool: Pool = "max"
    """What halves the size; `generalised` is a mean with a trained power."""
    act: ActivationName = "relu"
    """The activation behind each norm."""
    attention: Attention = ""
    """What weighs a stage's channels or places before it is pooled, if anything."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    dense: bool = False
    """Classify every place instead of the image."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "stage1.conv1"
    stages: ClassVar[tuple[str, ...]] = ("stage1", "stage2")
    by_size: ClassVar[bool] = True
    """Its parameters depend on the size of the images."""

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        size = min(images.shape[1:3])
        stages = 2 if size < 16 else 3 if size < 32 else 4
        norm = partial(BatchNorm, groups=self.batch_groups)
        x = images
        for i in range(stages):
            stage = Stage(
                self.width * 2**i, norm, self.pool, self.act, self.attention, name=f"stage{i + 1}"
            )
            x = stage(x, train)
        features = pooled(x, self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return Outputs(Dense(self.num_classes, name=self.classifier)(x), features)


class Stage(nn.Module):
    """Twice convolution, norm and activation; then attention, if any, and pooling over 2 x 2."""

    features: int
    norm: Norm
    pool: Pool
    act: ActivationName
    attention: Attention

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in (1, 2):
            x = Conv(self.features, name=f"conv{i}")(x)
            x = activation(self.act)(self.norm(name=f"bn{i}")(x, train))
        return self._pooled(self._attended(x, train), train)

    def _attended(self, x: jax.Array, train: bool) -> jax.Array:
        reduced = max(self.features // 8, 4)
        if self.attention == "se":
            return SqueezeExcite(reduced, name="attention")(x)
        if self.attention == "eca":
            return EfficientChannelAttention(name="attention")(x)
        if self.attention == "cbam":
            return CBAM(reduced, norm=self.norm, name="attention")(x, train)
        return x

    def _pooled(self, x: jax.Array, train: bool) -> jax.Array:
        if self.pool == "max":
            return max_pool(x, 2, 2)
        if self.pool == "average":
            return average_pool(x, 2, 2)
        if self.pool == "stochastic":
            return StochasticPool(2, 2, name="pool_draw")(x, train)
        return GeneralisedMean(2, 2, name="pool_mean")(x)


cnn = CNN
