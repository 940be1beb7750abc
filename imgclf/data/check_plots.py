"""Plots of a set of images: classes, sizes, brightness and sharpness, as PNG."""

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from imgclf.data.check import BLURRED
from imgclf.data.measured import Measured
from imgclf.errors import printable

ALL_CLASSES = 30
"""Up to so many classes are drawn, else the least and the greatest."""
_ENDS = 12
_POINTS = 5000


def plots(parts: Sequence[Measured]) -> Iterator[tuple[bytes, str]]:
    """Each plot as a PNG, with what it shows in words."""
    for part in parts:
        height = max(2.4, 1.1 + 0.21 * min(len(part.source.classes), ALL_CLASSES))
        yield _drawn(partial(_classes, part), f"images of each class: {part.name}", height)
    rows = [part.rows[part.rows["readable"]] for part in parts]
    named = list(zip((part.name for part in parts), rows, strict=True))
    if len(np.unique(np.concatenate([each[["height", "width"]] for each in rows]))) > 1:
        yield _drawn(partial(_sizes, named), "width and height of the images")
    yield _drawn(partial(_brightness, named), "mean grey level of the images")
    yield _drawn(partial(_sharpness, named), "sharpness of the images")


Named = Sequence[tuple[str, np.ndarray]]


def _drawn(draw: Callable[[Any], None], title: str, height: float = 3.4) -> tuple[bytes, str]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.4, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    draw(axes)
    axes.set_title(_plain(title, 60), fontsize=11, loc="left")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, dpi=130, format="png")
    return file.getvalue(), title


def _classes(part: Measured, axes: Any) -> None:
    ordered = sorted(part.counts().items(), key=lambda each: (-each[1], each[0]))[::-1]
    shown, left = ordered, len(ordered) - 2 * _ENDS
    if len(ordered) > ALL_CLASSES:
        shown = [*ordered[:_ENDS], (f"... {left:,} classes between ...", 0), *ordered[-_ENDS:]]
    places = np.arange(len(shown))
    bars = axes.barh(places, [count for _, count in shown], color="tab:blue", height=0.7)
    between = len(ordered) > ALL_CLASSES
    texts = ["" if between and i == _ENDS else f"{count:,}" for i, (_, count) in enumerate(shown)]
    axes.bar_label(bars, texts, padding=3, fontsize=8)
    axes.set_yticks(places, [_plain(name) for name, _ in shown], fontsize=8)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.margins(x=0.14)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _sizes(named: Named, axes: Any) -> None:
    for name, rows in named:
        step = max(1, len(rows) // _POINTS)
        axes.scatter(
            rows["width"][::step], rows["height"][::step], s=16, alpha=0.5, lw=0, label=_plain(name)
        )
    axes.set(xlabel="width (px)", ylabel="height (px)", xlim=(0, None), ylim=(0, None))
    _legend(axes, named)


def _brightness(named: Named, axes: Any) -> None:
    for name, rows in named:
        _outline(axes, rows["mean"], np.arange(0, 257, 8), name)
    axes.set(xlabel="mean grey level (0 black, 255 white)", ylabel="images", xlim=(0, 256))
    _legend(axes, named)


def _sharpness(named: Named, axes: Any) -> None:
    for name, rows in named:
        _outline(axes, np.clip(rows["sharpness"], 1e-4, 32), np.geomspace(1e-4, 32, 45), name)
    axes.axvline(BLURRED, color="tab:red", lw=1, ls="--")
    axes.annotate(
        "blurred", (BLURRED, 0.97), xycoords=("data", "axes fraction"), fontsize=8, color="tab:red",
        ha="right", va="top", xytext=(-4, 0), textcoords="offset points",
    )  # fmt: skip
    axes.set(
        xlabel="variance of the Laplacian / variance of the grey", ylabel="images", xscale="log"
    )
    _legend(axes, named)


def _outline(axes: Any, values: np.ndarray, edges: np.ndarray, name: str) -> None:
    axes.hist(values, bins=edges, histtype="step", lw=1.5, label=_plain(name))


def _legend(axes: Any, named: Named) -> None:
    if len(named) > 1:
        legend = axes.legend(fontsize=8, frameon=False)
        for handle in legend.legend_handles:
            handle.set_alpha(1)


def _plain(name: str, length: int = 32) -> str:
    name = " ".join(printable(name).split())
    short = name if len(name) <= length else f"{name[: length - 3]}..."
    return short.replace("$", r"\$")  # a dollar would begin a formula
