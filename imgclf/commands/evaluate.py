"""`imgclf evaluate`: how good a run, or a recipe's network with given weights, is."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from imgclf.commands.words import no_more, split, wants_help
from imgclf.data import KINDS
from imgclf.errors import UserError
from imgclf.recipe import files

HELP = """\
imgclf evaluate RUN [options]
imgclf evaluate RECIPE --model.weights FILE [--field VALUE ...]"""
OPTIONS = {
    "--data PATH": "evaluate on what lies there instead of the recipe's own sources (a run)",
    "--kind KIND": f"what lies there: {', '.join(KINDS)}",
    "--checkpoint WHICH": "last, best or a step (a run)",
    "--present-classes": "only classes that occur in the data can be said (as for ImageNet-A)",
    "--json": "print numbers as JSON",
}
VALUED, FLAGS = ("data", "kind", "checkpoint"), ("present_classes", "json")


def run(words: Sequence[str]) -> int:
    if wants_help(words, HELP, OPTIONS):
        return 0
    bare, options, rest = split(words, VALUED, FLAGS)
    if len(bare) != 1:
        raise UserError(
            f"`imgclf evaluate` takes one run or recipe; got {' '.join(bare) or 'none'}"
        )
    target = os.path.expanduser(bare[0])
    if (Path(target) / "resolved.json").is_file():
        no_more(rest, (*VALUED, *FLAGS))
        return _show(_run(target, options), "json" in options, f"{target}/predictions")
    if Path(target).is_dir() or not (target.endswith(".py") or target in files.names()):
        raise UserError(_neither(target))
    for name in ("data", "checkpoint"):
        if name in options:
            raise UserError(
                f"`--{name}` goes with a run; for a recipe give --data.evaluate.NAME PATH"
            )
    from imgclf.recipe.overrides import override
    from imgclf.training.saved import evaluate_weights

    if "kind" in options:
        rest = [*rest, "--kind", options["kind"]]
    recipe = override(files.load(target), rest).recipe
    found = evaluate_weights(recipe, present_classes="present_classes" in options)
    return _show(found, "json" in options, "")


def _run(target: str, options: dict[str, str]) -> list:
    from imgclf.training.saved import evaluate

    source, name = None, ""
    if "kind" in options and "data" not in options:
        raise UserError("`--kind` says what lies at `--data PATH`, which is not given")
    checkpoint = options.get("checkpoint", "last")
    if "data" in options:
        from imgclf.data.guess import whole
        from imgclf.data.remote import at
        from imgclf.training.run import open_to_read

        opened, _ = open_to_read(target, sources=False)
        classes = tuple(json.loads(opened.resolved.read_text())["classes"])
        path = at(options["data"]).resolve()
        source, said = whole(str(path), options.get("kind", ""), classes)
        name = f"data-{path.name}"
        if "json" not in options:
            print(said)
    present = "present_classes" in options
    return evaluate(target, source, checkpoint=checkpoint, name=name, present_classes=present)


def _show(found: list, as_json: bool, folder: str) -> int:
    if as_json:
        print(json.dumps({each.name: each.as_dict() for each in found}, indent=1))
        return 0
    from imgclf.evaluation.report import class_table, say, say_metrics

    for each in found:
        metrics = each.metrics
        if len(each.predictions.classes) <= 20:
            print(class_table(metrics.per_class, each.predictions.classes))
            print()
        if each.unread:
            print(f"{each.unread} images of {each.name} could not be read and are not counted")
        top5 = say(metrics.top5_right, metrics.total)
        print(
            f"{each.name}: {say_metrics(metrics)}, among the first five {top5}, "
            f"loss {metrics.loss:.4f}"
        )
    if folder:
        print(f"predictions, plots and tables are in {folder}")
    return 0


def _neither(target: str) -> str:
    from imgclf.errors import nearest

    if Path(target).is_dir():
        return f"{target} is not the folder of a run: it has no resolved.json"
    close = nearest(target, files.names())
    return f"There is no run folder or recipe {target!r}" + (
        f"; did you mean {close!r}?" if close else ""
    )
