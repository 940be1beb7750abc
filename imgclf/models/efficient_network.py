"""The network that a table of blocks makes.

MobileNets, MnasNets and EfficientNets are such tables (their files hold them), under timm's names
and as timm builds them. A table has a tuple of rows for each stage; `width` and `depth` scale it.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import ClassVar

import jax
import numpy as np
from flax import linen as nn

from imgclf.models.efficient_blocks import EdgeResidual, Row, Style, Table
from imgclf.models.layers import Dense, activation, linear_rates, pooled, rounded
from imgclf.models.layers.initial import uniform_within
from imgclf.models.network import Outputs
from imgclf.models.torchvision import in_order


def scaled(
    table: Table, width: float, depth: float | tuple[float, ...], act: str, least: float = 0.9
) -> Table:
    """One row for each block, with its stride, its rounded width and its activation.

    A stage gets ceil(its blocks times `depth`, or that of its own), shared out among its rows.
    """
    depths = depth if isinstance(depth, tuple) else (depth,) * len(table)
    stages = []
    for rows, factor in zip(table, depths, strict=True):
        blocks = [
            row
            for row, repeats in zip(rows, _shared_out(rows, factor), strict=True)
            for _ in range(repeats)
        ]
        stages.append(
            tuple(
                dataclasses.replace(
                    row,
                    repeats=1,
                    stride=row.stride if i == 0 else 1,
                    width=rounded(row.width * width, least),
                    act=row.act or act,
                    expanded_from=row.expanded_from and rounded(row.expanded_from * width, least),
                )
                for i, row in enumerate(blocks)
            )
        )
    return tuple(stages)


def _shared_out(rows: tuple[Row, ...], factor: float) -> list[int]:
    # From the last row on, so that the first, which has the stride, is repeated last of all.
    given = sum(row.repeats for row in rows)
    wanted, repeats = math.ceil(given * factor), []
    for row in reversed(rows):
        repeats.append(max(1, round(row.repeats / given * wanted)))
        given, wanted = given - row.repeats, wanted - repeats[-1]
    return repeats[::-1]


class Stages(nn.Module):
    """The blocks of all stages, called by their numbers."""

    table: Table
    """As `scaled` makes it."""
    style: Style
    stochastic_depth: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        # Shared out as if one more block came, as in the originals.
        rates = iter(linear_rates(self.stochastic_depth, sum(map(len, self.table)) + 1))
        for i, rows in enumerate(self.table):
            own = tuple(next(rates) for _ in rows)
            x = Stage(rows, self.style, own, name=str(i))(x, train)
        return x


class Stage(nn.Module):
    """A block for each row."""

    rows: tuple[Row, ...]
    style: Style
    rates: tuple[float, ...]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, (row, rate) in enumerate(zip(self.rows, self.rates, strict=True)):
            x = row.block(row=row, style=self.style, rate=rate, name=str(i))(x, train)
        return x


class BlockNetwork(nn.Module):
    """Stem (`conv_stem`), `blocks`, head (`conv_head`), `classifier`."""

    num_classes: int
    table: Table
    style: Style = Style()
    width: float = 1.0
    """Factor of the table's widths, which are then rounded."""
    depth: float | tuple[float, ...] = 1.0
    """Factor of the table's repeats, or one for each stage."""
    least: float = 0.9
    """Share of a width that is left after rounding, at least."""
    stem_width: int = 32
    head_width: int = 1280
    """Channels that the head convolution makes; 0: there is none."""
    pool_first: bool = False
    """Whether the head convolution comes after pooling, as in MobileNetV3 and V4."""
    head_norm: bool = True
    head_bias: bool = False
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """Rate of the block that would follow the last; it grows evenly from 0 at the first."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Classify every place instead of the image."""

    classifier: ClassVar[str] = "classifier"
    stem: ClassVar[str] = "conv_stem"

    @property
    def stages(self) -> tuple[str, ...]:
        """The paths of the submodules after each stage."""
        return tuple(f"blocks.{i}" for i in range(len(self.table)))

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        style = dataclasses.replace(self.style, batch_groups=self.batch_groups)
        table = scaled(self.table, self.width, self.depth, style.act, self.least)
        x = style.conv(self.stem_width, 3, 2, name="conv_stem")(images)
        x = activation(style.act)(style.norm("bn1")(x, train))
        x = Stages(table, style, self.stochastic_depth, name="blocks")(x, train)
        if self.pool_first:
            x = pooled(x, self.dense)
            x = self._head(x if self.dense else x[:, None, None], style, train)
            features = x if self.dense else x[:, 0, 0]
        else:
            features = pooled(self._head(x, style, train), self.dense)
        x = nn.Dropout(self.drop_rate, deterministic=not train)(features)
        classifier = Dense(
            self.num_classes,
            kernel_init=uniform_within(self.num_classes**-0.5),
            bias_init=nn.initializers.zeros,
            name=self.classifier,
        )
        return Outputs(classifier(x), features)

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of a file; those of torchvision's same network under timm's names.

        Where the norms there have another epsilon, the variances take up the difference.
        """
        if "features.0.0.weight" not in stored and "layers.0.weight" not in stored:
            return stored
        if self.style.padding:  # torchvision has no network that pads as TensorFlow does
            return stored
        found = dict(in_order(stored, list(self._layers())))
        more = self._torchvisions_epsilon - self.style.epsilon
        for name, array in found.items():
            if name.endswith("running_var"):
                found[name] = array + np.asarray(more, array.dtype)
            elif name == "conv_head.weight":
                found[name] = array.reshape(*array.shape[:2], 1, 1)
        return found

    @property
    def _torchvisions_epsilon(self) -> float:
        """0.001 in MobileNetV3, EfficientNetV2 and EfficientNet from B5 on, which is 1.6 wide."""
        fused = any(row.block is EdgeResidual for rows in self.table for row in rows)
        large = self.style.act == "silu" and self.width >= 1.6
        return 1e-3 if self.pool_first or fused or large else 1e-5

    def _layers(self) -> Iterator[str]:
        """The paths of all layers, in the order in which images pass them."""
        yield from ("conv_stem", "bn1")
        table = scaled(self.table, self.width, self.depth, self.style.act, self.least)
        for i, rows in enumerate(table):
            for j, row in enumerate(rows):
                for layer in getattr(row.block, "layers", ()):
                    if layer != "se":
                        yield f"blocks.{i}.{j}.{layer}"
                    elif row.squeeze:
                        yield f"blocks.{i}.{j}.se.conv_reduce"
                        yield f"blocks.{i}.{j}.se.conv_expand"
        if self.head_width:
            yield "conv_head"
            if self.head_norm:
                yield "norm_head" if self.pool_first else "bn2"
        yield self.classifier

    def _head(self, x: jax.Array, style: Style, train: bool) -> jax.Array:
        if not self.head_width:
            return x
        x = style.conv(self.head_width, 1, use_bias=self.head_bias, name="conv_head")(x)
        if self.head_norm:
            x = style.norm("norm_head" if self.pool_first else "bn2")(x, train)
        return activation(style.act)(x)
