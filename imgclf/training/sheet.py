"""A contact sheet: images as they are stored, and below each what the network is given of it."""

import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imgclf.errors import printable
from imgclf.training.seen import Seen

_CELL = 1.5  # inches
_LEAST = 0.05  # a smaller share of a label is not told


def draw(seen: Seen, classes: Sequence[str], step: int, path: Path) -> None:
    """Writes the sheet as a PNG: a column an image, the first row as stored, then a row a draw."""
    from matplotlib.figure import Figure

    draws, images = seen.drawn.shape[:2]
    figure = Figure(figsize=(_CELL * images + 0.9, (_CELL + 0.35) * (draws + 1)))
    figure.set_layout_engine("constrained", h_pad=0.05, w_pad=0.05)
    cells = figure.subplots(draws + 1, images, squeeze=False)
    for column in range(images):
        rows = [(seen.stored[column], seen.labels[column])]
        rows += zip(seen.drawn[:, column], seen.drawn_labels[:, column], strict=True)
        for cell, (image, label) in zip(cells[:, column], rows, strict=True):
            cell.set(xticks=[], yticks=[])
            cell.set_title(_plain(label_in_words(label, classes)), fontsize=7, pad=3)
            if image is None:
                cell.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=7)
                cell.set(aspect="equal")
                continue
            grey = image.shape[2] == 1
            shown = image[..., 0] if grey else image[..., :3]
            large = max(shown.shape[:2]) > 64
            cell.imshow(
                shown,
                cmap="gray",
                vmin=0,
                vmax=255,
                interpolation="antialiased" if large else "nearest",
            )
    names = ["as stored", *(f"step {step + number:,}" for number in range(draws))]
    for cell, name in zip(cells[:, 0], names, strict=True):
        cell.set_ylabel(name, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=130, format="png")


def label_in_words(label: np.ndarray, classes: Sequence[str]) -> str:
    """The class of a label; of a soft one its shares, the greatest first.

    >>> label_in_words(np.array([0.7, 0.3, 0.0]), ["cat", "dog", "cow"])
    '0.7 cat + 0.3 dog'
    """
    if np.ndim(label) == 0:
        return classes[int(label)]
    order = [j for j in np.argsort(-label, kind="stable") if label[j] >= _LEAST]
    if len(order) == 1 and label[order[0]] > 1 - _LEAST:
        return classes[order[0]]
    return " + ".join(f"{round(float(label[j]), 2):g} {classes[j]}" for j in order) or "none"


def _plain(text: str) -> str:
    lines = textwrap.wrap(" ".join(printable(text).split()), 22)
    short = lines if len(lines) <= 2 else [lines[0], f"{lines[1][:19]}..."]
    return "\n".join(short).replace("$", r"\$")  # a dollar would begin a formula
