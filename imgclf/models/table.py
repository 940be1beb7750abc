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
    **_rows("resnet", 32, IMAGENET, "resnet18 resnet34 resnet50 resnet101 resnet152"),
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
