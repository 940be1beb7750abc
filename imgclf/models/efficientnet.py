"""EfficientNets (arXiv:1905.11946) and V2 (arXiv:2104.00298).

Beside them their Lite and EdgeTPU forms, and TinyNets (arXiv:2010.14819), which are scaled down.

Those called `tf_` pad as TensorFlow does and have its epsilon, which its weights were trained with.
The originals are trained with a `drop_rate` of 0.2 (B0) to 0.5 (B7) and `stochastic_depth` of 0.2.
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
)
from imgclf.models.efficient_network import BlockNetwork
from imgclf.models.layers import rounded

_SILU, _RELU6, _RELU = Style("silu"), Style("relu6"), Style("relu")

# Repeats, kernel, stride, width, expansion, squeeze.
_B = (
    (Row(DepthwiseSeparable, 1, 3, 1, 16, 1, 0.25),),
    (Row(InvertedResidual, 2, 3, 2, 24, 6, 0.25),),
    (Row(InvertedResidual, 2, 5, 2, 40, 6, 0.25),),
    (Row(InvertedResidual, 3, 3, 2, 80, 6, 0.25),),
    (Row(InvertedResidual, 3, 5, 1, 112, 6, 0.25),),
    (Row(InvertedResidual, 4, 5, 2, 192, 6, 0.25),),
    (Row(InvertedResidual, 1, 3, 1, 320, 6, 0.25),),
)
_LITE = tuple(tuple(dataclasses.replace(row, squeeze=0.0) for row in rows) for rows in _B)
_EDGE = (
    (Row(EdgeResidual, 1, 3, 1, 24, 4, skip=False, expanded_from=24),),
    (Row(EdgeResidual, 2, 3, 2, 32, 8),),
    (Row(EdgeResidual, 4, 3, 2, 48, 8),),
    (Row(InvertedResidual, 5, 5, 2, 96, 8),),
    (Row(InvertedResidual, 4, 5, 1, 144, 8),),
    (Row(InvertedResidual, 2, 5, 2, 192, 8),),
)
_V2_B = (
    (Row(ConvBlock, 1, 3, 1, 16),),
    (Row(EdgeResidual, 2, 3, 2, 32, 4),),
    (Row(EdgeResidual, 2, 3, 2, 48, 4),),
    (Row(InvertedResidual, 3, 3, 2, 96, 4, 0.25),),
    (Row(InvertedResidual, 5, 3, 1, 112, 6, 0.25),),
    (Row(InvertedResidual, 8, 3, 2, 192, 6, 0.25),),
)
_V2_S = (
    (Row(ConvBlock, 2, 3, 1, 24),),
    (Row(EdgeResidual, 4, 3, 2, 48, 4),),
    (Row(EdgeResidual, 4, 3, 2, 64, 4),),
    (Row(InvertedResidual, 6, 3, 2, 128, 4, 0.25),),
    (Row(InvertedResidual, 9, 3, 1, 160, 6, 0.25),),
    (Row(InvertedResidual, 15, 3, 2, 256, 6, 0.25),),
)
# As the paper's figure has it, before its authors' own code was there.
_V2_RW = (
    (Row(EdgeResidual, 2, 3, 1, 24, 1),),
    *_V2_S[1:-1],
    (Row(InvertedResidual, 15, 3, 2, 272, 6, 0.25),),
)
_V2_M = (
    (Row(ConvBlock, 3, 3, 1, 24),),
    (Row(EdgeResidual, 5, 3, 2, 48, 4),),
    (Row(EdgeResidual, 5, 3, 2, 80, 4),),
    (Row(InvertedResidual, 7, 3, 2, 160, 4, 0.25),),
    (Row(InvertedResidual, 14, 3, 1, 176, 6, 0.25),),
    (Row(InvertedResidual, 18, 3, 2, 304, 6, 0.25),),
    (Row(InvertedResidual, 5, 3, 1, 512, 6, 0.25),),
)
_V2_L = (
    (Row(ConvBlock, 4, 3, 1, 32),),
    (Row(EdgeResidual, 7, 3, 2, 64, 4),),
    (Row(EdgeResidual, 7, 3, 2, 96, 4),),
    (Row(InvertedResidual, 10, 3, 2, 192, 4, 0.25),),
    (Row(InvertedResidual, 19, 3, 1, 224, 6, 0.25),),
    (Row(InvertedResidual, 25, 3, 2, 384, 6, 0.25),),
    (Row(InvertedResidual, 7, 3, 1, 640, 6, 0.25),),
)
_V2_XL = (
    (Row(ConvBlock, 4, 3, 1, 32),),
    (Row(EdgeResidual, 8, 3, 2, 64, 4),),
    (Row(EdgeResidual, 8, 3, 2, 96, 4),),
    (Row(InvertedResidual, 16, 3, 2, 192, 4, 0.25),),
    (Row(InvertedResidual, 24, 3, 1, 256, 6, 0.25),),
    (Row(InvertedResidual, 32, 3, 2, 512, 6, 0.25),),
    (Row(InvertedResidual, 8, 3, 1, 640, 6, 0.25),),
)


def _scaled(
    table: Table,
    width: float,
    depth: float | tuple[float, ...],
    style: Style = _SILU,
    stem: int = 32,
    head: int = 1280,
    least: float = 0.9,
) -> partial:
    return partial(
        BlockNetwork,
        table=table,
        style=style,
        width=width,
        depth=depth,
        least=least,
        stem_width=rounded(stem * width, least),
        head_width=rounded(head * width, least),
    )


def _lite(width: float, depth: float) -> partial:
    # Stem, head and the depths of the first and the last stage stay as they are.
    depths = (1.0, *(depth,) * 5, 1.0)
    return partial(BlockNetwork, table=_LITE, style=_RELU6, width=width, depth=depths)


def _tinynet(width: float, depth: float) -> partial:
    # Of the same table; depths are rounded, and the stem and the head stay as they are.
    repeats = [sum(row.repeats for row in rows) for rows in _B]
    depths = tuple(max(1, round(n * depth)) / n for n in repeats)
    return partial(BlockNetwork, table=_B, style=_SILU, width=width, depth=depths)


def _tensorflow(network: partial) -> partial:
    style = dataclasses.replace(network.keywords["style"], padding="SAME", epsilon=1e-3)
    return partial(network, style=style)


efficientnet_b0 = _scaled(_B, 1.0, 1.0)
efficientnet_b1 = _scaled(_B, 1.0, 1.1)
efficientnet_b2 = _scaled(_B, 1.1, 1.2)
efficientnet_b3 = _scaled(_B, 1.2, 1.4)
efficientnet_b4 = _scaled(_B, 1.4, 1.8)
efficientnet_b5 = _scaled(_B, 1.6, 2.2)
efficientnet_b6 = _scaled(_B, 1.8, 2.6)
efficientnet_b7 = _scaled(_B, 2.0, 3.1)
efficientnet_b8 = _scaled(_B, 2.2, 3.6)
efficientnet_l2 = _scaled(_B, 4.3, 5.3)
efficientnet_lite0 = _lite(1.0, 1.0)
efficientnet_lite1 = _lite(1.0, 1.1)
efficientnet_lite2 = _lite(1.1, 1.2)
efficientnet_lite3 = _lite(1.2, 1.4)
efficientnet_lite4 = _lite(1.4, 1.8)
efficientnet_es = _scaled(_EDGE, 1.0, 1.0, _RELU)
efficientnet_em = _scaled(_EDGE, 1.0, 1.1, _RELU)
efficientnet_el = _scaled(_EDGE, 1.2, 1.4, _RELU)
tinynet_a = _tinynet(1.0, 1.2)
tinynet_b = _tinynet(0.75, 1.1)
tinynet_c = _tinynet(0.54, 0.85)
tinynet_d = _tinynet(0.54, 0.695)
tinynet_e = _tinynet(0.51, 0.6)
efficientnetv2_rw_t = _scaled(_V2_S, 0.8, 0.9, stem=24)
efficientnetv2_rw_s = _scaled(_V2_RW, 1.0, 1.0, stem=24, head=1792)
efficientnetv2_rw_m = _scaled(_V2_RW, 1.2, (1.2,) * 4 + (1.6,) * 2, stem=24, head=1792)
efficientnetv2_s = _scaled(_V2_S, 1.0, 1.0, stem=24)
efficientnetv2_m = _scaled(_V2_M, 1.0, 1.0, stem=24)
efficientnetv2_l = _scaled(_V2_L, 1.0, 1.0)
efficientnetv2_xl = _scaled(_V2_XL, 1.0, 1.0)

tf_efficientnet_b0 = _tensorflow(efficientnet_b0)
tf_efficientnet_b1 = _tensorflow(efficientnet_b1)
tf_efficientnet_b2 = _tensorflow(efficientnet_b2)
tf_efficientnet_b3 = _tensorflow(efficientnet_b3)
tf_efficientnet_b4 = _tensorflow(efficientnet_b4)
tf_efficientnet_b5 = _tensorflow(efficientnet_b5)
tf_efficientnet_b6 = _tensorflow(efficientnet_b6)
tf_efficientnet_b7 = _tensorflow(efficientnet_b7)
tf_efficientnet_b8 = _tensorflow(efficientnet_b8)
tf_efficientnet_l2 = _tensorflow(efficientnet_l2)
tf_efficientnet_lite0 = _tensorflow(efficientnet_lite0)
tf_efficientnet_lite1 = _tensorflow(efficientnet_lite1)
tf_efficientnet_lite2 = _tensorflow(efficientnet_lite2)
tf_efficientnet_lite3 = _tensorflow(efficientnet_lite3)
tf_efficientnet_lite4 = _tensorflow(efficientnet_lite4)
tf_efficientnet_es = _tensorflow(efficientnet_es)
tf_efficientnet_em = _tensorflow(efficientnet_em)
tf_efficientnet_el = _tensorflow(efficientnet_el)
tf_efficientnetv2_s = _tensorflow(efficientnetv2_s)
tf_efficientnetv2_m = _tensorflow(efficientnetv2_m)
tf_efficientnetv2_l = _tensorflow(efficientnetv2_l)
tf_efficientnetv2_xl = _tensorflow(efficientnetv2_xl)
tf_efficientnetv2_b0 = _tensorflow(_scaled(_V2_B, 1.0, 1.0, least=0.0))
tf_efficientnetv2_b1 = _tensorflow(_scaled(_V2_B, 1.0, 1.1, least=0.0))
tf_efficientnetv2_b2 = _tensorflow(_scaled(_V2_B, 1.1, 1.2, least=0.0))
tf_efficientnetv2_b3 = _tensorflow(_scaled(_V2_B, 1.2, 1.4, least=0.0))
