"""MnasNets (Tan et al. 2018, arXiv:1807.11626): B1, A1 with squeeze-and-excitation, and small.

`mnasnet1_3` is torchvision's; timm has none of that width.
"""

from functools import partial

from imgclf.models.efficient_blocks import (
    DepthwiseSeparable,
    InvertedResidual,
    Row,
)
from imgclf.models.efficient_network import BlockNetwork
from imgclf.models.layers import rounded

# Repeats, kernel, stride, width, expansion, squeeze.
_B1 = (
    (Row(DepthwiseSeparable, 1, 3, 1, 16, skip=False),),
    (Row(InvertedResidual, 3, 3, 2, 24, 3),),
    (Row(InvertedResidual, 3, 5, 2, 40, 3),),
    (Row(InvertedResidual, 3, 5, 2, 80, 6),),
    (Row(InvertedResidual, 2, 3, 1, 96, 6),),
    (Row(InvertedResidual, 4, 5, 2, 192, 6),),
    (Row(InvertedResidual, 1, 3, 1, 320, 6, skip=False),),
)
_A1 = (
    (Row(DepthwiseSeparable, 1, 3, 1, 16, skip=False),),
    (Row(InvertedResidual, 2, 3, 2, 24, 6),),
    (Row(InvertedResidual, 3, 5, 2, 40, 3, 0.25),),
    (Row(InvertedResidual, 4, 3, 2, 80, 6),),
    (Row(InvertedResidual, 2, 3, 1, 112, 6, 0.25),),
    (Row(InvertedResidual, 3, 5, 2, 160, 6, 0.25),),
    (Row(InvertedResidual, 1, 3, 1, 320, 6),),
)
_SMALL = (
    (Row(DepthwiseSeparable, 1, 3, 1, 8),),
    (Row(InvertedResidual, 1, 3, 2, 16, 3),),
    (Row(InvertedResidual, 2, 3, 2, 16, 6),),
    (Row(InvertedResidual, 4, 5, 2, 32, 6, 0.25),),
    (Row(InvertedResidual, 3, 3, 1, 32, 6, 0.25),),
    (Row(InvertedResidual, 3, 5, 2, 88, 6, 0.25),),
    (Row(InvertedResidual, 1, 3, 1, 144, 6),),
)


def _b1(width: float) -> partial:
    return partial(BlockNetwork, table=_B1, width=width, stem_width=rounded(32 * width))


def _a1(width: float) -> partial:
    return partial(BlockNetwork, table=_A1, width=width, stem_width=rounded(32 * width))


mnasnet_050 = _b1(0.5)
mnasnet_075 = _b1(0.75)
mnasnet_100 = _b1(1.0)
mnasnet1_3 = _b1(1.3)
mnasnet_140 = _b1(1.4)
semnasnet_050 = _a1(0.5)
semnasnet_075 = _a1(0.75)
semnasnet_100 = _a1(1.0)
semnasnet_140 = _a1(1.4)
mnasnet_small = partial(BlockNetwork, table=_SMALL, stem_width=8)
