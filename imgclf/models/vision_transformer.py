"""The vision transformer that the networks of `vit` are variants of."""

import math
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers import (
    ActivationName,
    Attention,
    Dense,
    GatedMlp,
    LatentPool,
    LayerNorm,
    LayerScale,
    Mlp,
    Norm,
    PatchEmbed,
    StochasticDepth,
    in_turn,
    linear_rates,
    linear_uniform,
    resized_positions,
    truncated_normal,
)
from imgclf.models.network import Outputs
from imgclf.models.torchvision import Names, renamed

_ZEROS = nn.initializers.zeros
_ALMOST_ZERO = nn.initializers.normal(1e-6)
_TORCHVISION: Names = (
    (r"^class_token$", "cls_token"),
    (r"^conv_proj\.", "patch_embed.proj."),
    (r"^encoder\.pos_embedding$", "pos_embed"),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.", r"blocks.\1."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.self_attention\.in_proj_", ".attn.qkv."),
    (r"\.self_attention\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
    (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
    (r"^encoder\.ln\.", "norm."),
    (r"^heads\.head\.", "head."),
)


class Block(nn.Module):
    """Attention and a perceptron, each behind a norm and beside a shortcut."""

    heads: int
    hidden: int
    act: str = "gelu"
    gated: bool = False
    layer_scale: float = 0.0
    qkv_bias: bool = True
    norm: Norm = LayerNorm
    stochastic_depth: float = 0.0

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool, rate: jax.Array | None = None) -> jax.Array:
        def added(y: jax.Array, which: int) -> jax.Array:
            if self.layer_scale:
                y = LayerScale(self.layer_scale, name=f"ls{which}")(y)
            return x + StochasticDepth(self.stochastic_depth)(y, train, rate)

        y = self.norm(name="norm1")(x)
        x = added(Attention(self.heads, self.qkv_bias, name="attn")(y, train), 1)
        y = self.norm(name="norm2")(x)
        if self.gated:
            return added(GatedMlp(self.hidden, name="mlp")(y, train), 2)
        return added(Mlp(self.hidden, act=self.act, name="mlp")(y, train), 2)


class Blocks(nn.Module):
    """Blocks one after the other, one for each rate of stochastic depth."""

    block: partial
    rates: tuple[float, ...]
    scan: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return in_turn(self, self.block, self.rates, x, train, scan=self.scan)


class VisionTransformer(nn.Module):
    """Patches as tokens, blocks, a norm, one vector for the image, classifier (`head`).

    Images of any size are taken: position embeddings are resized where the grid of their patches is
    not that of `image_size`. Of a side that `patch` does not divide, the rest is cut off.
    """

    num_classes: int
    patch: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    """Width of a block's perceptron in widths of the network."""
    image_size: int = 224
    """Side of the images, in px, for whose grid there are position embeddings."""
    pool: Literal["token", "avg", "map"] = "token"
    """What the classifier reads: the class `token`, the average (`avg`) of the patches' tokens,
    or what a trained query attends to (`map`)."""
    class_token: bool = True
    distilled: bool = False
    """Whether there are a second class token and head, which learn from a teacher: in training its
    logits are the auxiliary ones, else the logits are the mean of both heads'."""
    registers: int = 0
    """Tokens that are there to be written on, and are thrown away."""
    prefix_positions: bool = True
    """Whether tokens that are no patches have position embeddings, too."""
    norm_after_pool: bool | None = None
    """Whether the last norm follows the pooling (then it is called `fc_norm`). None: where that is
    an average."""
    norm_before_blocks: bool = False
    """Whether there is a norm (`norm_pre`) before the blocks, too, as in CLIP; the convolution that
    reads the patches has no bias then."""
    norm_epsilon: float = 1e-6
    act: ActivationName = "gelu"
    gated: bool = False
    """Whether the perceptrons are SwiGLU."""
    qkv_bias: bool = True
    layer_scale: float = 0.0
    """With what the trained factors on the residual branches begin; 0: there are none."""
    zero_init_head: bool = True
    """Whether all logits begin as zero, as the paper's authors have it (big_vision's
    `head_zeroinit`). Else the classifier begins as DeiT's and as timm's, which all other layers
    follow."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """Share of images for which the last block is left out; it grows linearly from 0."""
    scan: bool = False
    """Whether the blocks are one compiled loop over parameters with a leading axis of depth: deep
    networks compile faster. `models.stack` and `unstack` convert; files are the same."""

    classifier: ClassVar[str] = "head"
    stem: ClassVar[str] = "patch_embed.proj"

    @property
    def other_classifiers(self) -> tuple[str, ...]:
        """The head that learns from a teacher."""
        return ("head_dist",) if self.distilled else ()

    @property
    def stages(self) -> tuple[str, ...]:
        """The last block of each quarter of them."""
        ends = (self.depth * (i + 1) // 4 - 1 for i in range(4))
        return tuple(dict.fromkeys(f"blocks.{max(end, 0)}" for end in ends))

    @property
    def minimum_size(self) -> int:
        """px on a side of the least images: one patch."""
        return self.patch

    @property
    def repeated(self) -> dict[str, range]:
        """Which blocks of which submodule are equal."""
        return {"blocks": range(self.depth)}

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        self._check()
        norm = partial(LayerNorm, self.norm_epsilon)
        x = self._tokens(images)
        if self.norm_before_blocks:
            x = norm(name="norm_pre")(x)
        x = self._after_blocks(x, norm, train)
        norm_after = self.norm_after_pool
        if norm_after is None:
            norm_after = self.pool == "avg"
        if not norm_after:
            x = norm(name="norm")(x)
        features = [pooled.astype(jnp.float32) for pooled in self._pooled(x, train)]
        if norm_after:
            last = norm(name="fc_norm")
            features = [last(pooled) for pooled in features]
        return self._outputs(features, train)

    def _tokens(self, images: jax.Array) -> jax.Array:
        # (b, h, w, c) to (b, t, d): first the class tokens, then registers, then patches by rows.
        x = PatchEmbed(
            self.width,
            self.patch,
            not self.norm_before_blocks,
            kernel_init=linear_uniform,
            bias_init=None,
            name="patch_embed",
        )(images)
        b, *grid, d = x.shape
        prefix = [
            self.param(name, init, (1, count, d), jnp.float32)
            for name, count, init in (
                ("cls_token", int(self.class_token), _ALMOST_ZERO),
                ("dist_token", int(self.distilled), truncated_normal()),
                ("reg_token", self.registers, _ALMOST_ZERO),
            )
            if count
        ]
        placed = self._prefix if self.prefix_positions else 0
        side = self.image_size // self.patch
        shape = (1, placed + side * side, d)
        positions = self.param("pos_embed", truncated_normal(), shape, jnp.float32)
        positions = resized_positions(positions, placed, (grid[0], grid[1]))
        unplaced = jnp.zeros((1, self._prefix - placed, d))
        first = jnp.concatenate([*prefix, jnp.zeros((1, 0, d))], 1)
        first += jnp.concatenate([positions[:, :placed], unplaced], 1)
        first = jnp.broadcast_to(first.astype(x.dtype), (b, *first.shape[1:]))
        x = x.reshape(b, -1, d) + positions[:, placed:].astype(x.dtype)
        return jnp.concatenate([first, x], 1)

    def _after_blocks(self, x: jax.Array, norm: Norm, train: bool) -> jax.Array:
        hidden = int(self.width * self.mlp_ratio)
        block = partial(
            Block, self.heads, hidden, self.act, self.gated, self.layer_scale, self.qkv_bias, norm
        )
        rates = tuple(linear_rates(self.stochastic_depth, self.depth))
        return Blocks(block, rates, self.scan, name="blocks")(x, train)

    def _pooled(self, x: jax.Array, train: bool) -> list[jax.Array]:
        if self.pool == "token":
            return [x[:, i] for i in range(1 + self.distilled)]
        patches = x[:, self._prefix :]
        if self.pool == "avg":
            return [patches.mean(1, dtype=jnp.float32)]
        hidden = int(self.width * self.mlp_ratio)
        return [LatentPool(self.heads, hidden, self.act, name="attn_pool")(patches, train)]

    def _outputs(self, features: list[jax.Array], train: bool) -> Outputs:
        drop = nn.Dropout(self.drop_rate, deterministic=not train)
        kernel_init = _ZEROS if self.zero_init_head else truncated_normal()
        logits, *others = (
            Dense(self.num_classes, True, kernel_init, _ZEROS, name=name)(drop(pooled))
            for name, pooled in zip(
                (self.classifier, *self.other_classifiers), features, strict=True
            )
        )
        mean = jnp.stack(features).mean(0)
        if others and not train:
            return Outputs((logits + others[0]) / 2, mean)
        return Outputs(logits, mean, tuple(others))

    @property
    def _prefix(self) -> int:
        return self.class_token + self.distilled + self.registers

    def _check(self) -> None:
        if self.pool == "token" and not self.class_token:
            raise UserError(
                'The `class_token` of a vision transformer must be True where its `pool` is "token"'
            )
        if self.distilled and self.pool != "token":
            raise UserError(
                f'The `pool` of a distilled vision transformer must be "token"; got {self.pool!r}'
            )
        if self.width % self.heads:
            raise UserError(
                f"The `heads` of a vision transformer (={self.heads}) must divide its `width` "
                f"(={self.width})"
            )

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of a file with position embeddings for this network's grid of patches.

        A class token that has no position in the file gets one of zeros. torchvision's arrays get
        timm's names.
        """
        stored = renamed(stored, _TORCHVISION)
        positions = stored.get("pos_embed")
        if positions is None or positions.ndim != 3:
            return stored
        placed = self._prefix if self.prefix_positions else 0
        if placed and _is_square(positions.shape[1]):
            zeros = np.zeros((1, placed, positions.shape[2]), positions.dtype)
            positions = np.concatenate([zeros, positions], 1)
        if not _is_square(positions.shape[1] - placed):
            return stored
        side = self.image_size // self.patch
        resized = resized_positions(jnp.asarray(positions, jnp.float32), placed, (side, side))
        return {**stored, "pos_embed": np.asarray(resized)}


def _is_square(number: int) -> bool:
    return number > 0 and math.isqrt(number) ** 2 == number
