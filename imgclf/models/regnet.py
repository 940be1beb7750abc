"""RegNets X and Y (Radosavovic et al. 2020, arXiv:2003.13678), as timm builds them."""

import math
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from flax import linen as nn

from imgclf.errors import UserError
from imgclf.models.layers import (
    BatchNorm,
    ConvNormAct,
    Norm,
    PooledHead,
    SqueezeExcite,
    StochasticDepth,
    he_fan_out,
    he_fan_out_of,
    last_scale,
    relu,
    stage_rates,
)
from imgclf.models.network import Outputs
from imgclf.models.torchvision import Names, renamed

_ZEROS, _ONES = nn.initializers.zeros, nn.initializers.ones
_TORCHVISION: Names = (
    (r"^trunk_output\.block(\d)\.block\d-(\d+)", lambda m: f"s{m[1]}.b{int(m[2]) + 1}"),
    (r"\.f\.a\.", ".conv1."),
    (r"\.f\.b\.", ".conv2."),
    (r"\.f\.se\.", ".se."),
    (r"\.f\.c\.", ".conv3."),
    (r"\.proj\.", ".downsample."),
    (r"\b(stem|conv\d|downsample)\.0\.", r"\1.conv."),
    (r"\b(stem|conv\d|downsample)\.1\.", r"\1.bn."),
    (r"^fc\.", "head.fc."),
)


class Block(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions of one width; squeeze-excite before the last."""

    features: int
    stride: int
    group_size: int
    se_ratio: float
    zero_init_last: bool
    drop_path: float
    norm: Norm

    is_block = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        shortcut, groups = x, self.features // self.group_size
        reduced = round(x.shape[-1] * self.se_ratio)
        x = ConvNormAct(self.features, 1, norm=self.norm, name="conv1")(x, train)
        x = ConvNormAct(
            self.features,
            3,
            self.stride,
            groups=groups,
            norm=self.norm,
            kernel_init=he_fan_out_of(groups),
            name="conv2",
        )(x, train)
        if reduced:
            x = SqueezeExcite(reduced, kernel_init=he_fan_out, bias_init=_ZEROS, name="se")(x)
        last = partial(self.norm, scale_init=last_scale(self.zero_init_last))
        x = ConvNormAct(self.features, 1, act="identity", norm=last, name="conv3")(x, train)
        x = StochasticDepth(self.drop_path)(x, train)
        if self.stride > 1 or shortcut.shape[-1] != self.features:
            shortcut = ConvNormAct(
                self.features, 1, self.stride, act="identity", norm=self.norm, name="downsample"
            )(shortcut, train)
        return relu(x + shortcut)


class Stage(nn.Module):
    """Blocks of one width (`b1`, `b2`, ...), the first at stride 2, each with its drop path."""

    features: int
    group_size: int
    se_ratio: float
    zero_init_last: bool
    drop_paths: tuple[float, ...]
    norm: Norm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        for i, rate in enumerate(self.drop_paths):
            x = Block(
                self.features,
                1 if i else 2,
                self.group_size,
                self.se_ratio,
                self.zero_init_last,
                rate,
                self.norm,
                name=f"b{i + 1}",
            )(x, train)
        return x


class RegNet(nn.Module):
    """3x3 stem at stride 2, four stages (`s1` to `s4`), global average, `head.fc`."""

    num_classes: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    group_size: int
    """Channels of a group of the 3x3 convolutions, in stages that are at least as wide; 0: all."""
    se_ratio: float = 0.0
    """Channels inside squeeze-excite, as a share of those that enter the block; 0: without."""
    stem_width: int = 32
    zero_init_last: bool = True
    """Whether every block's branch begins as zero."""
    drop_rate: float = 0.0
    """Share of the features that dropout takes away before the classifier."""
    stochastic_depth: float = 0.0
    """Rate of the last block; it grows linearly from 0 at the first."""
    batch_groups: int = 1
    """Groups of a batch that are normalised each by itself."""
    dense: bool = False
    """Whether every place is classified, in place of their mean."""

    classifier: ClassVar[str] = "head.fc"
    stem: ClassVar[str] = "stem.conv"

    @property
    def stages(self) -> tuple[str, ...]:
        """Paths of the submodules after each of which the images are half as large."""
        return tuple(f"s{i + 1}" for i in range(len(self.depths)))

    @nn.nowrap
    def from_file(self, stored: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """The arrays of a file; those of torchvision's same network under timm's names."""
        return renamed(stored, _TORCHVISION)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> Outputs:
        norm = partial(BatchNorm, groups=self.batch_groups)
        rates = stage_rates(self.stochastic_depth, self.depths)
        x = ConvNormAct(self.stem_width, 3, 2, norm=norm, name="stem")(images, train)
        for name, width, own in zip(self.stages, self.widths, rates, strict=True):
            group_size = min(self.group_size or width, width)
            if width % group_size:
                raise UserError(
                    f"The `group_size` of a RegNet must divide its `widths` (={self.widths}); got "
                    f"{self.group_size}"
                )
            x = Stage(width, group_size, self.se_ratio, self.zero_init_last, own, norm, name=name)(
                x, train
            )
        head = PooledHead(
            self.num_classes,
            self.drop_rate,
            self.dense,
            kernel_init=nn.initializers.normal(0.01),
            bias_init=_ZEROS,
            name="head",
        )
        return Outputs(*head(x, train))


def stages_of(
    initial: int, slope: float, step: float, depth: int, group_size: int, torchvision: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(depths, widths) of the stages, by the paper's quantised linear rule (section 3.3).

    Block i would be `initial + slope * i` wide; that is rounded to `initial` times a whole power
    of `step`, then to a multiple of 8. Blocks of one width are a stage, whose width at last is
    rounded to whole groups; where `torchvision`, halves go up, and 0.9 of it is left at least.

    >>> stages_of(24, 36.44, 2.49, depth=13, group_size=8)
    ((1, 1, 4, 7), (24, 56, 152, 368))
    """
    exact = [initial + slope * i for i in range(depth)]
    powers = [round(math.log(width / initial) / math.log(step)) for width in exact]
    counts = Counter(round(initial * step**power / 8) * 8 for power in powers)
    groups = [min(group_size, width) for width in counts]

    def whole(count: float) -> int:
        nearest = int(count + 0.5)
        return nearest + 1 if nearest < 0.9 * count else nearest

    rounded = whole if torchvision else round
    widths = [rounded(w / group) * group for w, group in zip(counts, groups, strict=True)]
    return tuple(counts.values()), tuple(widths)


def _regnet(
    initial: int,
    slope: float,
    step: float,
    depth: int,
    group_size: int,
    se_ratio: float = 0.0,
    torchvision: bool = False,
) -> partial[RegNet]:
    depths, widths = stages_of(initial, slope, step, depth, group_size, torchvision)
    return partial(RegNet, depths=depths, widths=widths, group_size=group_size, se_ratio=se_ratio)


regnetx_002 = _regnet(24, 36.44, 2.49, depth=13, group_size=8)
regnetx_004 = _regnet(24, 24.48, 2.54, depth=22, group_size=16)
regnetx_004_tv = _regnet(24, 24.48, 2.54, depth=22, group_size=16, torchvision=True)
regnetx_006 = _regnet(48, 36.97, 2.24, depth=16, group_size=24)
regnetx_008 = _regnet(56, 35.73, 2.28, depth=16, group_size=16)
regnetx_016 = _regnet(80, 34.01, 2.25, depth=18, group_size=24)
regnetx_032 = _regnet(88, 26.31, 2.25, depth=25, group_size=48)
regnetx_040 = _regnet(96, 38.65, 2.43, depth=23, group_size=40)
regnetx_064 = _regnet(184, 60.83, 2.07, depth=17, group_size=56)
regnetx_080 = _regnet(80, 49.56, 2.88, depth=23, group_size=120)
regnetx_120 = _regnet(168, 73.36, 2.37, depth=19, group_size=112)
regnetx_160 = _regnet(216, 55.59, 2.1, depth=22, group_size=128)
regnetx_320 = _regnet(320, 69.86, 2.0, depth=23, group_size=168)
regnety_002 = _regnet(24, 36.44, 2.49, depth=13, group_size=8, se_ratio=0.25)
regnety_004 = _regnet(48, 27.89, 2.09, depth=16, group_size=8, se_ratio=0.25)
regnety_006 = _regnet(48, 32.54, 2.32, depth=15, group_size=16, se_ratio=0.25)
regnety_008 = _regnet(56, 38.84, 2.4, depth=14, group_size=16, se_ratio=0.25)
regnety_008_tv = _regnet(56, 38.84, 2.4, depth=14, group_size=16, se_ratio=0.25, torchvision=True)
regnety_016 = _regnet(48, 20.71, 2.65, depth=27, group_size=24, se_ratio=0.25)
regnety_032 = _regnet(80, 42.63, 2.66, depth=21, group_size=24, se_ratio=0.25)
regnety_040 = _regnet(96, 31.41, 2.24, depth=22, group_size=64, se_ratio=0.25)
regnety_064 = _regnet(112, 33.22, 2.27, depth=25, group_size=72, se_ratio=0.25)
regnety_080 = _regnet(192, 76.82, 2.19, depth=17, group_size=56, se_ratio=0.25)
regnety_080_tv = _regnet(192, 76.82, 2.19, depth=17, group_size=56, se_ratio=0.25, torchvision=True)
regnety_120 = _regnet(168, 73.36, 2.37, depth=19, group_size=112, se_ratio=0.25)
regnety_160 = _regnet(200, 106.23, 2.48, depth=18, group_size=112, se_ratio=0.25)
regnety_320 = _regnet(232, 115.89, 2.53, depth=20, group_size=232, se_ratio=0.25)
regnety_640 = _regnet(352, 147.48, 2.4, depth=20, group_size=328, se_ratio=0.25)
regnety_1280 = _regnet(456, 160.83, 2.52, depth=27, group_size=264, se_ratio=0.25)
regnety_2560 = _regnet(640, 230.83, 2.53, depth=27, group_size=373, se_ratio=0.25)
