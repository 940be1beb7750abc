"""The end of a run: predictions, tables, plots and `result.json`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgclf.evaluation.report import class_table, plot_confusion, plot_curves, say_metrics
from imgclf.recipe.resolution import Resolved
from imgclf.training.display import Display
from imgclf.training.evaluate import Evaluated
from imgclf.training.manifest import write_whole
from imgclf.training.run import Run

SHOWN_CLASSES = 20
"""Tables of more classes than this go into a file alone."""


def finish(
    run: Run,
    resolved: Resolved,
    step: int,
    evaluated: Mapping[str, Evaluated],
    history: Sequence[Mapping[str, Any]],
    best: Mapping[str, float],
    seconds: Mapping[str, float],
    display: Display,
) -> dict[str, Any]:
    """Writes what a run leaves behind and shows it; returns what `result.json` holds."""
    for line in history_table(history):
        display.say(line)
    if history:
        plot_curves(history, run.folder / "curves.png")
    for each in evaluated.values():
        write_evaluation(run.predictions / each.name, each)
        display.say(f"{each.name}: {said(each)}")
    last = {name: value for each in evaluated.values() for name, value in numbers(each).items()}
    first = next(iter(evaluated.values()), None)
    result = {
        "accuracy": first.accuracy if first else None,
        "steps": step,
        "metrics": {"last": last, "best": dict(best)},
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "run": str(run.folder),
    }
    write_whole(run.result, result)
    display.say(f"everything is in {run.folder} (curves.png, predictions/, result.json)")
    return result


def write_evaluation(folder: Path, evaluated: Evaluated) -> None:
    """Writes predictions, the table of classes and the confusion matrix of one source."""
    predictions = evaluated.predictions
    predictions.save(folder)
    if evaluated.metrics.average_precision is None:
        plot_confusion(evaluated.metrics.confusion, predictions.classes, folder / "confusion.png")
    table = class_table(evaluated.metrics.per_class, predictions.classes)
    (folder / "classes.txt").write_text(table + "\n")
    write_whole(folder / "metrics.json", evaluated.as_dict())
    write_whole(folder / "evaluated.json", evaluated.of)


def numbers(evaluated: Evaluated) -> dict[str, float]:
    """The metrics of one source as SOURCE/METRIC, for logs and results."""
    return {f"{evaluated.name}/{name}": value for name, value in evaluated.as_dict().items()}


def said(evaluated: Evaluated) -> str:
    """Top-1, or of sets of classes the mean average precision, as a person would say it."""
    metrics, unread = evaluated.metrics, evaluated.unread
    left_out = f", {unread:,} more could not be read" if unread else ""
    return say_metrics(metrics) + left_out


def history_table(history: Sequence[Mapping[str, Any]], most: int = 100) -> list[str]:
    """Loss and accuracy at every evaluation, as aligned lines; of a long run the last ones."""
    if not history:
        return []
    names = [name for name in history[-1] if name not in ("epoch", "step")]
    rows = [["epoch", "step", *(name.replace("_", " ") for name in names)]]
    for row in history[-most:]:
        cells = (f"{row[name]:.4f}" if name in row else "" for name in names)
        rows.append([f"{row['epoch']:.4g}", str(row["step"]), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(map(str.rjust, row, widths)) for row in rows]
