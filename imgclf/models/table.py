"""The table of names, `networks.csv`: where each network's function is, and what its images are.

A line each: the network; its family, which is a module of this folder with a function
`(num_classes, **options)` of that name; the least height and width, in px, of the images it takes;
what images go through for the weights that are published under the name; and torchvision's name,
where it has another.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from imgclf.errors import UserError, unknown
from imgclf.preprocess import IMAGENET, PLAIN, CropMode, Interpolation, Preprocess


@dataclass(frozen=True)
class Entry:
    """A line of the table."""

    family: str
    preprocess: Preprocess
    minimum_size: int


_NORMALISATIONS = {
    "imagenet": (IMAGENET.mean, IMAGENET.std),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "plain": (PLAIN.mean, PLAIN.std),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


def _entry(row: dict[str, str]) -> Entry:
    preprocess = Preprocess(
        int(row["size"]),
        float(row["crop"]),
        cast(CropMode, row["crop_mode"]),
        cast(Interpolation, row["interpolation"]),
        *_NORMALISATIONS[row["normalisation"]],
    )
    return Entry(row["family"], preprocess, int(row["minimum_size"]))


_ROWS = tuple(csv.DictReader(Path(__file__).with_name("networks.csv").read_text().splitlines()))
TABLE: dict[str, Entry] = {row["network"]: _entry(row) for row in _ROWS}
_TORCHVISION = {row["torchvision"]: row["network"] for row in _ROWS if row["torchvision"]}


def names() -> tuple[str, ...]:
    """All names of the table, in its order."""
    return tuple(TABLE)


def entry(name: str) -> Entry:
    """The table's line for `name`; an unknown one is a `UserError` with the nearest.

    >>> entry("resnet50").preprocess.size
    224
    """
    if name not in TABLE:
        base, _, _ = name.lower().partition(".")  # timm names the weights of a network by a tag
        base = _TORCHVISION.get(base, base)
        if base in TABLE:
            raise UserError(f"Unknown network {name!r}; did you mean {base!r}?")
        raise unknown("network", name, TABLE)
    return TABLE[name]
