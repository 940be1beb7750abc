"""Networks that read an image as a sequence: of its rows, its patches, or the rows of a map.

Linear and recurrent layers begin as PyTorch's, convolutions as torchvision's ResNets'.
"""

from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers import (
    BatchNorm,
    Conv,
    ConvNormAct,
    Dense,
    Norm,
    Recurrent,
    linear_uniform,
    max_pool,
    stored_shape,
)
from imgclf.models.network import Outputs


class Embed(nn.Module):
    """Tokens (b, t, d) of an image, by a linear map (`proj`) of each of its rows or patches."""

    features: int
    tokens: Literal["rows", "patches"]
    patch: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        if self.tokens == "rows":
            stored = stored_shape(self, "proj", "kernel")
            if stored and stored[1] != x.shape[2]:
                raise UserError(
                    "The images of a network that reads rows must have the width that its weights "
                    f"are for (={stored[1]}); got {x.shape[2]}"
                )
            conv = partial(Conv, kernel=(1, x.shape[2]), padding=0)
        else:
            conv = partial(Conv, kernel=self.patch, stride=self.patch, padding="SAME")
        y = conv(self.features, use_bias=True, kernel_init=linear_uniform, name="proj")(x)
        return y.reshape(len(y), -1, self.features)


class SequenceNetwork(nn.Module):
    """`embed`, recurrent layers (`rnn`), and a classifier (`fc`) of their last states.

    Rows are read from above, patches row by row; the width of images read by rows is fixed, that
    of those read by patches is not (what lacks of a last patch counts as zeros).
    """

    num_classes: int
    cell: Literal["lstm", "gru"] = "lstm"
    tokens: Literal["rows", "patches"] = "rows"
    patch: int = 4
    """px on a side of a patch."""
    width: int = 128
    """Channels of a token, and of a layer's state."""
    depth: int = 1
    """Recurrent layers."""
    bidirectional: bool = False
    """Whether each layer also reads from the end."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "embed.proj"
    stages: ClassVar[tuple[str, ...]] = ("embed", "rnn")

    @property
    def by_size(self) -> bool:
        """Whether its parameters depend on the size of the images."""
        return self.tokens == "rows"

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        x = Embed(self.width, self.tokens, self.patch, name="embed")(images)
        x = Recurrent(self.width, self.depth, self.cell, self.bidirectional, name="rnn")(x)
        features = _last(x, self.width)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return Outputs(Dense(self.num_classes, name="fc")(x), features)


class ConvolutionalSequence(nn.Module):
    """Two stages of convolutions, then an LSTM over the rows of their map (CRNN, arXiv:1507.05717).

    A row is the mean over its columns, so that images of any size will do.
    """

    num_classes: int
    width: int = 32
    """Channels of the first stage; the second has twice as many, the LSTM four times."""
    depth: int = 1
    """Layers of the LSTM."""
    bidirectional: bool = False
    """Whether each layer also reads from below."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""

    classifier: ClassVar[str] = "fc"
    stem: ClassVar[str] = "stage1.conv"
    stages: ClassVar[tuple[str, ...]] = ("stage1", "stage2", "rnn")

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm: Norm = partial(BatchNorm, groups=self.batch_groups)
        x = ConvNormAct(self.width, 3, norm=norm, name="stage1")(images, train)
        x = ConvNormAct(2 * self.width, 3, norm=norm, name="stage2")(max_pool(x, 2, 2), train)
        x = Recurrent(4 * self.width, self.depth, "lstm", self.bidirectional, name="rnn")(x.mean(2))
        features = _last(x, 4 * self.width)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        return Outputs(Dense(self.num_classes, name="fc")(x), features)


def _last(x_btd: jax.Array, width: int) -> jax.Array:
    """What each direction knows when it has read all: (b, d), in float32."""
    ends = (x_btd[:, -1, :width], x_btd[:, 0, width:])
    return jnp.concatenate(ends, -1).astype(jnp.float32)


lstm = partial(SequenceNetwork, cell="lstm")
gru = partial(SequenceNetwork, cell="gru")
cnn_lstm = ConvolutionalSequence
