"""`imgclf predict RUN IMAGE ...`: classes and probabilities of images."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from imgclf.commands.words import no_more, split, wants_help
from imgclf.errors import UserError

HELP = (
    "imgclf predict RUN IMAGE ... [options]\n\nIMAGE is a file, or a folder of which all are taken."
)
OPTIONS = {
    "--top K": "show the K likeliest classes of each image (3)",
    "--checkpoint WHICH": "last, best or a step",
    "--json": "print JSON: one object an image",
}


def run(words: Sequence[str]) -> int:
    if wants_help(words, HELP, OPTIONS):
        return 0
    bare, options, rest = split(words, ("top", "checkpoint"), ("json",))
    no_more(rest, ("top", "checkpoint", "json"))
    if len(bare) < 2:
        raise UserError("`imgclf predict` takes a run folder and one image or more")
    top = options.get("top", "3")
    if not top.isdecimal() or int(top) < 1:
        raise UserError(f"`--top` must be a whole number of 1 or more; got {top!r}")
    if not (Path(bare[0]).expanduser() / "resolved.json").is_file():
        raise UserError(f"{bare[0]} is not the folder of a run: it has no resolved.json")
    images = _files(bare[1:])
    from imgclf.training.saved import predict

    predictions, problems = predict(bare[0], images, checkpoint=options.get("checkpoint", "last"))
    for problem in problems:
        print(f"imgclf: {problem.name} could not be read: {problem.reason}", file=sys.stderr)
    if problems:
        count = f"{len(problems)} of {len(images)}"
        print(f"imgclf: {count} images could not be read", file=sys.stderr)
    rows = []
    for name, shares in zip(predictions.ids, predictions.probabilities(), strict=True):
        best = (-shares).argsort(kind="stable")[: int(top)]
        likely = {predictions.classes[i]: round(float(shares[i]), 6) for i in best}
        rows.append({"image": name, "class": predictions.classes[best[0]], "probabilities": likely})
    if "json" in options:
        print(json.dumps(rows, indent=1))
    else:
        _table(rows)
    return 0 if rows else 2


def _files(names: Sequence[str]) -> list[str]:
    from imgclf.data.folder import EXTENSIONS

    found: list[str] = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            inside = sorted(str(f) for f in path.rglob("*") if f.name.lower().endswith(EXTENSIONS))
            if not inside:
                raise UserError(f"There is no image in the folder {name}")
            found.extend(inside)
        elif path.exists():
            found.append(str(path))
        else:
            raise UserError(f"There is no image {name}")
    return found


def _table(rows: list[dict]) -> None:
    width = max((len(row["image"]) for row in rows), default=0)
    for row in rows:
        shares = ", ".join(f"{name} {100 * p:.1f} %" for name, p in row["probabilities"].items())
        print(f"{row['image']:<{width}}  {shares}")
