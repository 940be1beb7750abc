"""MobileNets, under timm's names and as timm builds them.

V1 (arXiv:1704.04861), V2 (arXiv:1801.04381), V3 (arXiv:1905.02244) and the convolutional ones of V4
(arXiv:2404.10518). Those called `tf_` pad as TensorFlow does and have its epsilon.
"""

import dataclasses
from functools import partial

from imgclf.models.efficient_blocks import (
    ConvBlock,
    DepthwiseSeparable,
    EdgeResidual,
    InvertedResidual,
    Row,
    Style,
    Table,
    UniversalInverted,
)
from imgclf.models.efficient_network import BlockNetwork
from imgclf.models.layers import rounded

_RELU6 = Style("relu6")
_V3_STYLE = Style(
    "hard_swish",
    gate="hard_sigmoid",
    squeeze_act="relu",
    squeeze_inner=True,
    squeeze_rounded=True,
)
_V3_RW_STYLE = Style("hard_swish", epsilon=1e-3, gate="hard_sigmoid", squeeze_inner=True)

_separable = partial(Row, DepthwiseSeparable, skip=False, last_act=True)
# Repeats, kernel, stride, width, expansion, squeeze.
_V1 = (
    (_separable(1, 3, 1, 64),),
    (_separable(2, 3, 2, 128),),
    (_separable(2, 3, 2, 256),),
    (_separable(6, 3, 2, 512),),
    (_separable(2, 3, 2, 1024),),
)
_V2 = (
    (Row(DepthwiseSeparable, 1, 3, 1, 16),),
    (Row(InvertedResidual, 2, 3, 2, 24, 6),),
    (Row(InvertedResidual, 3, 3, 2, 32, 6),),
    (Row(InvertedResidual, 4, 3, 2, 64, 6),),
    (Row(InvertedResidual, 3, 3, 1, 96, 6),),
    (Row(InvertedResidual, 3, 3, 2, 160, 6),),
    (Row(InvertedResidual, 1, 3, 1, 320, 6),),
)
_V3_LARGE = (
    (Row(DepthwiseSeparable, 1, 3, 1, 16, act="relu"),),
    (
        Row(InvertedResidual, 1, 3, 2, 24, 4, act="relu"),
        Row(InvertedResidual, 1, 3, 1, 24, 3, act="relu"),
    ),
    (Row(InvertedResidual, 3, 5, 2, 40, 3, 0.25, act="relu"),),
    (
        Row(InvertedResidual, 1, 3, 2, 80, 6),
        Row(InvertedResidual, 1, 3, 1, 80, 2.5),
        Row(InvertedResidual, 2, 3, 1, 80, 2.3),
    ),
    (Row(InvertedResidual, 2, 3, 1, 112, 6, 0.25),),
    (Row(InvertedResidual, 3, 5, 2, 160, 6, 0.25),),
    (Row(ConvBlock, 1, 1, 1, 960, skip=False),),
)
_V3_RW = ((Row(DepthwiseSeparable, 1, 3, 1, 16, act="relu", skip=False),), *_V3_LARGE[1:])
_V3_SMALL = (
    (Row(DepthwiseSeparable, 1, 3, 2, 16, 1, 0.25, act="relu"),),
    (
        Row(InvertedResidual, 1, 3, 2, 24, 4.5, act="relu"),
        Row(InvertedResidual, 1, 3, 1, 24, 3.67, act="relu"),
    ),
    (
        Row(InvertedResidual, 1, 5, 2, 40, 4, 0.25),
        Row(InvertedResidual, 2, 5, 1, 40, 6, 0.25),
    ),
    (Row(InvertedResidual, 2, 5, 1, 48, 3, 0.25),),
    (Row(InvertedResidual, 3, 5, 2, 96, 6, 0.25),),
    (Row(ConvBlock, 1, 1, 1, 576, skip=False),),
)


def _minimal(table: Table) -> Table:
    # For hardware without wide kernels and squeeze-and-excitation.
    return tuple(
        tuple(
            dataclasses.replace(row, kernel=min(row.kernel, 3), squeeze=0.0, act="relu")
            for row in rows
        )
        for rows in table
    )


def _universal(
    repeats: int, start: int, kernel: int, stride: int, width: int, expansion: float
) -> Row:
    return Row(UniversalInverted, repeats, kernel, stride, width, expansion, start=start)


_V4_SMALL = (
    (Row(ConvBlock, 1, 3, 2, 32, skip=False), Row(ConvBlock, 1, 1, 1, 32, skip=False)),
    (Row(ConvBlock, 1, 3, 2, 96, skip=False), Row(ConvBlock, 1, 1, 1, 64, skip=False)),
    (
        _universal(1, 5, 5, 2, 96, 3),
        _universal(4, 0, 3, 1, 96, 2),
        _universal(1, 3, 0, 1, 96, 4),
    ),
    (
        _universal(1, 3, 3, 2, 128, 6),
        _universal(1, 5, 5, 1, 128, 4),
        _universal(1, 0, 5, 1, 128, 4),
        _universal(1, 0, 5, 1, 128, 3),
        _universal(2, 0, 3, 1, 128, 4),
    ),
    (Row(ConvBlock, 1, 1, 1, 960, skip=False),),
)
_V4_MEDIUM = (
    (Row(EdgeResidual, 1, 3, 2, 48, 4),),
    (_universal(1, 3, 5, 2, 80, 4), _universal(1, 3, 3, 1, 80, 2)),
    (
        _universal(1, 3, 5, 2, 160, 6),
        _universal(2, 3, 3, 1, 160, 4),
        _universal(1, 3, 5, 1, 160, 4),
        _universal(1, 3, 3, 1, 160, 4),
        _universal(1, 3, 0, 1, 160, 4),
        _universal(1, 0, 0, 1, 160, 2),
        _universal(1, 3, 0, 1, 160, 4),
    ),
    (
        _universal(1, 5, 5, 2, 256, 6),
        _universal(1, 5, 5, 1, 256, 4),
        _universal(2, 3, 5, 1, 256, 4),
        _universal(1, 0, 0, 1, 256, 4),
        _universal(1, 3, 0, 1, 256, 4),
        _universal(1, 3, 5, 1, 256, 2),
        _universal(1, 5, 5, 1, 256, 4),
        _universal(2, 0, 0, 1, 256, 4),
        _universal(1, 5, 0, 1, 256, 2),
    ),
    (Row(ConvBlock, 1, 1, 1, 960, skip=False),),
)
_V4_LARGE = (
    (Row(EdgeResidual, 1, 3, 2, 48, 4),),
    (_universal(1, 3, 5, 2, 96, 4), _universal(1, 3, 3, 1, 96, 4)),
    (
        _universal(1, 3, 5, 2, 192, 4),
        _universal(3, 3, 3, 1, 192, 4),
        _universal(1, 3, 5, 1, 192, 4),
        _universal(5, 5, 3, 1, 192, 4),
        _universal(1, 3, 0, 1, 192, 4),
    ),
    (
        _universal(4, 5, 5, 2, 512, 4),
        _universal(1, 5, 0, 1, 512, 4),
        _universal(1, 5, 3, 1, 512, 4),
        _universal(2, 5, 0, 1, 512, 4),
        _universal(1, 5, 3, 1, 512, 4),
        _universal(1, 5, 5, 1, 512, 4),
        _universal(3, 5, 0, 1, 512, 4),
    ),
    (Row(ConvBlock, 1, 1, 1, 960, skip=False),),
)


def _v1(width: float, head: int = 0) -> partial:
    stem = rounded(32 * width)
    return partial(
        BlockNetwork, table=_V1, style=_RELU6, width=width, stem_width=stem, head_width=head
    )


def _v2(width: float) -> partial:
    return partial(
        BlockNetwork,
        table=_V2,
        style=_RELU6,
        width=width,
        stem_width=rounded(32 * width),
        head_width=max(1280, rounded(1280 * width)),
    )


def _v2_deep(width: float, depth: float) -> partial:
    # Stem, head and the depths of the first and the last stage stay as they are.
    depths = (1.0, *(depth,) * 5, 1.0)
    return partial(BlockNetwork, table=_V2, style=_RELU6, width=width, depth=depths)


def _v3(
    table: Table, width: float, head: int = 1280, depth: float = 1.0, style: Style = _V3_STYLE
) -> partial:
    return partial(
        BlockNetwork,
        table=table,
        style=style,
        width=width,
        depth=depth,
        stem_width=16 if width < 0.75 else rounded(16 * width),
        head_width=head,
        pool_first=True,
        head_norm=False,
        head_bias=True,
    )


def _tensorflow(network: partial) -> partial:
    style = dataclasses.replace(network.keywords["style"], padding="SAME", epsilon=1e-3)
    return partial(network, style=style)


def _v4(table: Table, width: float = 1.0, stem: int = 32, style: Style = Style()) -> partial:
    return partial(
        BlockNetwork, table=table, style=style, width=width, stem_width=stem, pool_first=True
    )


mobilenetv1_100 = _v1(1.0)
mobilenetv1_100h = _v1(1.0, head=1024)
mobilenetv1_125 = _v1(1.25)

mobilenetv2_035 = _v2(0.35)
mobilenetv2_050 = _v2(0.5)
mobilenetv2_075 = _v2(0.75)
mobilenetv2_100 = _v2(1.0)
mobilenetv2_140 = _v2(1.4)
mobilenetv2_110d = _v2_deep(1.1, 1.2)
mobilenetv2_120d = _v2_deep(1.2, 1.4)

mobilenetv3_large_075 = _v3(_V3_LARGE, 0.75)
mobilenetv3_large_100 = _v3(_V3_LARGE, 1.0)
mobilenetv3_large_150d = _v3(_V3_LARGE, 1.5, depth=1.2)
mobilenetv3_small_050 = _v3(_V3_SMALL, 0.5, 1024)
mobilenetv3_small_075 = _v3(_V3_SMALL, 0.75, 1024)
mobilenetv3_small_100 = _v3(_V3_SMALL, 1.0, 1024)
mobilenetv3_rw = partial(_v3(_V3_RW, 1.0, style=_V3_RW_STYLE), head_bias=False)

tf_mobilenetv3_large_075 = _tensorflow(mobilenetv3_large_075)
tf_mobilenetv3_large_100 = _tensorflow(mobilenetv3_large_100)
tf_mobilenetv3_large_minimal_100 = _tensorflow(_v3(_minimal(_V3_LARGE), 1.0, style=Style("relu")))
tf_mobilenetv3_small_075 = _tensorflow(mobilenetv3_small_075)
tf_mobilenetv3_small_100 = _tensorflow(mobilenetv3_small_100)
tf_mobilenetv3_small_minimal_100 = _tensorflow(
    _v3(_minimal(_V3_SMALL), 1.0, 1024, style=Style("relu"))
)

mobilenetv4_conv_small_035 = _v4(_V4_SMALL, 0.35)
mobilenetv4_conv_small_050 = _v4(_V4_SMALL, 0.5)
mobilenetv4_conv_small = _v4(_V4_SMALL)
mobilenetv4_conv_medium = _v4(_V4_MEDIUM)
mobilenetv4_conv_aa_medium = _v4(_V4_MEDIUM, style=Style(antialias="average"))
mobilenetv4_conv_blur_medium = _v4(_V4_MEDIUM, style=Style(antialias="blur"))
mobilenetv4_conv_large = _v4(_V4_LARGE, stem=24)
mobilenetv4_conv_aa_large = _v4(_V4_LARGE, stem=24, style=Style(antialias="average"))
