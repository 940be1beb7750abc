"""A small convolutional network for small images: from 8 px digits up."""

from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from imgclf.models.layers import BatchNorm, Conv, Dense, Norm, global_average, max_pool
from imgclf.models.network import Outputs


class CNN(nn.Module):
    """Two to four stages, by image size; each halves the size and doubles the channels.

    A stage is twice convolution, norm and ReLU, then a maximum over 2 x 2. There are two stages
    for images below 16 px, three below 32, four from there on.
    """

    num_classes: int
    width: int = 32
    """Channels of the first stage."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "stage1.conv1"
    stages: ClassVar[tuple[str, ...]] = ("stage1", "stage2")

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        size = min(images.shape[1:3])
        stages = 2 if size < 16 else 3 if size < 32 else 4
        norm = partial(BatchNorm, groups=self.batch_groups)
        x = images
        for i in range(stages):
            x = Stage(self.width * 2**i, norm, name=f"stage{i + 1}")(x, train)
        features = global_average(x)
        return Outputs(Dense(self.num_classes, name=self.classifier)(features), features)


class Stage(nn.Module):
    """Twice convolution, norm and ReLU; then the maximum over 2 x 2."""

    features: int
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i in (1, 2):
            x = Conv(self.features, name=f"conv{i}")(x)
            x = nn.relu(self.norm(name=f"bn{i}")(x, train))
        return max_pool(x, 2, 2)


cnn = CNN
