"""The table of names: where each network's function is, and what its images are like."""

import dataclasses
from dataclasses import dataclass

from imgclf.errors import unknown
from imgclf.preprocess import IMAGENET, PLAIN, Preprocess


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    family: str
    """The module of this folder with a function `(num_classes, **options)` of the entry's name."""
    preprocess: Preprocess
    """What images go through for the weights that are published under this name."""
    minimum_size: int
    """The least height and width, in px, of the images it takes."""


def _rows(family: str, minimum_size: int, preprocess: Preprocess, names: str) -> dict[str, Entry]:
    return {name: Entry(family, preprocess, minimum_size) for name in names.split()}


def _as(preprocess: Preprocess, **changes: object) -> Preprocess:
    return dataclasses.replace(preprocess, **changes)  # type: ignore[arg-type]


_CIFAR = _as(IMAGENET, size=32, crop=1.0)
_HALF = (0.5, 0.5, 0.5)
INCEPTION = _as(IMAGENET, mean=_HALF, std=_HALF)
"""The same, scaled to -1 to 1."""

TABLE: dict[str, Entry] = {
    **_rows(
        "cifar_resnet",
        8,
        _CIFAR,
        "cifar_resnet20 cifar_resnet32 cifar_resnet44 cifar_resnet56 cifar_resnet110",
    ),
    **_rows("cnn", 8, PLAIN, "cnn"),
    **_rows("genet", 32, _as(IMAGENET, interpolation="bilinear"), "gernet_s gernet_m"),
    **_rows("genet", 32, _as(IMAGENET, interpolation="bilinear", size=256), "gernet_l"),
    **_rows("nfnet", 32, _as(IMAGENET, crop=0.9), "nf_resnet26 nf_resnet101"),
    **_rows("nfnet", 32, _as(IMAGENET, size=256, crop=0.94), "nf_resnet50"),
    **_rows("nfnet", 32, _as(IMAGENET, size=192, crop=0.9), "nf_regnet_b0 dm_nfnet_f0"),
    **_rows("nfnet", 32, _as(IMAGENET, size=256, crop=0.9), "nf_regnet_b1 eca_nfnet_l1"),
    **_rows("nfnet", 32, _as(IMAGENET, size=240, crop=0.9), "nf_regnet_b2"),
    **_rows("nfnet", 32, _as(IMAGENET, size=288, crop=0.9), "nf_regnet_b3"),
    **_rows("nfnet", 32, _as(IMAGENET, size=320, crop=0.9), "nf_regnet_b4 eca_nfnet_l2"),
    **_rows("nfnet", 32, _as(IMAGENET, size=384, crop=0.9), "nf_regnet_b5"),
    **_rows("nfnet", 32, _as(IMAGENET, crop=0.91), "dm_nfnet_f1"),
    **_rows("nfnet", 32, _as(IMAGENET, size=256, crop=0.92), "dm_nfnet_f2"),
    **_rows("nfnet", 32, _as(IMAGENET, size=320, crop=0.94), "dm_nfnet_f3"),
    **_rows("nfnet", 32, _as(IMAGENET, size=384, crop=0.951), "dm_nfnet_f4"),
    **_rows("nfnet", 32, _as(IMAGENET, size=416, crop=0.954), "dm_nfnet_f5"),
    **_rows("nfnet", 32, _as(IMAGENET, size=448, crop=0.956), "dm_nfnet_f6"),
    **_rows("nfnet", 32, _as(IMAGENET, crop=0.9), "nfnet_l0 eca_nfnet_l0"),
    **_rows(
        "regnet",
        32,
        IMAGENET,
        "regnetx_002 regnetx_004 regnetx_006 regnetx_040 regnetx_064 regnetx_120 "
        "regnety_002 regnety_006 regnety_008",
    ),
    **_rows(
        "regnet",
        32,
        _as(IMAGENET, crop=0.965),
        "regnetx_008 regnetx_016 regnetx_032 regnetx_080 regnetx_160 regnetx_320 "
        "regnety_004 regnety_016 regnety_320",
    ),
    **_rows(
        "regnet",
        32,
        _as(IMAGENET, crop=0.95),
        "regnety_032 regnety_040 regnety_064 regnety_080 regnety_120 regnety_160",
    ),
    **_rows(
        "repvgg",
        32,
        _as(IMAGENET, interpolation="bilinear"),
        "repvgg_a0 repvgg_a1 repvgg_a2 repvgg_b0 repvgg_b1 repvgg_b1g4 repvgg_b2 repvgg_b2g4 "
        "repvgg_b3 repvgg_b3g4",
    ),
    **_rows("resnet", 32, IMAGENET, "resnet18 resnet34 resnet50 resnet101 resnet152"),
    **_rows(
        "vovnet",
        32,
        IMAGENET,
        "ese_vovnet19b_dw ese_vovnet19b_slim ese_vovnet19b_slim_dw ese_vovnet19b ese_vovnet39b "
        "ese_vovnet99b vovnet39a vovnet57a",
    ),
    **_rows("vovnet", 32, _as(INCEPTION, size=256, crop=0.95), "ese_vovnet57b"),
}


def names() -> tuple[str, ...]:
    """All names of the table, in its order."""
    return tuple(TABLE)


def entry(name: str) -> Entry:
    """The table's line for `name`; an unknown one is a `UserError` with the nearest.

    >>> entry("resnet50").preprocess.size
    224
    """
    if name not in TABLE:
        raise unknown("network", name, TABLE)
    return TABLE[name]
