"""Numbers as a person would say and draw them. matplotlib is imported when something is drawn."""

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgclf.errors import printable
from imgclf.evaluation.metrics import Metrics, PerClass


def say(right: int, total: int) -> str:
    """The accuracy in words, never rounded up to all.

    >>> say(355, 360)
    '355 of 360 right (98.6 %)'
    """
    percent = f"{100 * right / max(total, 1):.1f}"
    if percent == "100.0" and right < total:
        percent = "over 99.9"
    return f"{right:,} of {total:,} right ({percent} %)"


def say_metrics(metrics: Metrics) -> str:
    """The accuracy, or where labels are sets of classes the mean average precision, in words."""
    mean = metrics.mean_average_precision
    if mean is None:
        return say(metrics.right, metrics.total)
    likeliest = f"{metrics.right:,} of {metrics.total:,}"
    return f"mean average precision {100 * mean:.1f} %, the likeliest class right in {likeliest}"


def class_table(per_class: PerClass, classes: Sequence[str]) -> str:
    """Precision, recall, F1 (in %) and support of each class and on average, as aligned text."""
    rows = [
        [_short(name, 40), *(f"{100 * value:.1f}" for value in values), f"{support:,}"]
        for name, *values, support in zip(
            classes,
            per_class.precision,
            per_class.recall,
            per_class.f1,
            per_class.support,
            strict=True,
        )
    ]
    total = f"{per_class.support.sum():,}"
    averages = {"mean of classes": per_class.macro(), "mean by support": per_class.weighted()}
    for name, average in averages.items():
        rows.append([name, *(f"{100 * value:.1f}" for value in average.values()), total])
    rows.insert(0, ["class", "precision", "recall", "f1", "examples"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([*lines[:-2], "", *lines[-2:]])


def plot_confusion(confusion: np.ndarray, classes: Sequence[str], path: str | Path) -> None:
    """Draws the confusion matrix (k, k) to a PNG: colour is the share of the true class's row.

    Up to 20 classes have their counts written in, up to 60 their names; beyond, numbers serve.
    The colours rise with the root of the share, so that rare mistakes are seen.
    """
    from matplotlib.colors import PowerNorm

    k = len(classes)
    share = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = 3.5 + min(max(0.45 * k, 1), 12 if k <= 60 else 7)
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    right, total = int(np.trace(confusion)), int(confusion.sum())
    axes.set(title=say(right, total), xlabel="predicted class", ylabel="true class")
    if k <= 60:
        names = [_plain(name, 24) for name in classes]
        size = 10 if k <= 30 else 7
        axes.set_xticks(range(k), names, rotation=90, fontsize=size)
        axes.set_yticks(range(k), names, fontsize=size)
    if k <= 20:
        for (row, column), count in np.ndenumerate(confusion):
            if count:
                color = "white" if share[row, column] > 0.3 else "black"
                size = 9 if count < 1000 else 7
                axes.text(
                    column, row, str(count), ha="center", va="center", color=color, fontsize=size
                )
    _save(figure, path)


def plot_curves(history: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Draws loss and accuracy over the epochs to a PNG.

    `history` has one dict an epoch: `epoch`, and `<name>_loss` and `<name>_accuracy` (0 to 1) of
    `train` and of each evaluation source; a value may be missing where nothing was evaluated.
    """
    figure = _figure(10, 4)
    panels = zip(figure.subplots(1, 2), (("loss", 1), ("accuracy", 100)), strict=True)
    for axes, (quantity, scale) in panels:
        for name in _names(history, f"_{quantity}"):
            points = [
                (row["epoch"], scale * value)
                for row in history
                if (value := row.get(f"{name}_{quantity}")) is not None and math.isfinite(value)
            ]
            marker = "o" if len(points) <= 30 else ""
            color = "tab:gray" if name == "train" else None
            axes.plot(
                *zip(*points, strict=True), marker=marker, ms=3, label=_plain(name, 40), color=color
            )
        axes.set(xlabel="epoch", ylabel="loss" if scale == 1 else "accuracy (%)")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    _save(figure, path)


def _names(history: Sequence[Mapping[str, Any]], suffix: str) -> list[str]:
    keys = dict.fromkeys(key for row in history for key in row)
    return [key.removesuffix(suffix) for key in keys if key.endswith(suffix)]


def _short(name: str, length: int) -> str:
    name = " ".join(printable(name).split())
    half = (length - 3) // 2
    return name if len(name) <= length else f"{name[:half]}...{name[-half:]}"


def _plain(name: str, length: int) -> str:
    return _short(name, length).replace("$", r"\$")  # a dollar would begin a formula


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=120, format="png")
