"""`imgclf data show`: a sheet of what the network will see, as a PNG."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imgclf.commands.words import split, wants_help
from imgclf.errors import UserError

if TYPE_CHECKING:
    from imgclf.recipe.files import LoadedRecipe

HELP = """\
imgclf data show RECIPE [options] [--field VALUE ...]
imgclf data show PATH [options] [--field VALUE ...]

The first row of the sheet has images as they are stored, each row below it one draw of what the
network is given of them: cut and scaled on the host, augmented on the device, with the random
numbers of the training. PATH means: the recipe `imagenette` with --data.train PATH."""
OPTIONS = {
    "--images N": "so many images (8)",
    "--draws N": "so many draws of each (4)",
    "--at STEP": "as in the training step STEP and the ones after it, counted from 0 (0)",
    "--out FILE": "where the sheet goes (sheet-NAME.png)",
}
VALUED = ("images", "draws", "at", "out")
FOR_PATHS = "imagenette"
"""The recipe that a path is shown with: README's for one's own images."""


def run(words: Sequence[str]) -> int:
    if wants_help(words, HELP, OPTIONS):
        return 0
    bare, options, rest = split(words, VALUED)
    if len(bare) != 1:
        raise UserError(
            f"`imgclf data show` takes one recipe or path; got {' '.join(bare) or 'none'}"
        )
    images, draws = _number(options, "images", 8, 1), _number(options, "draws", 4, 1)
    step = _number(options, "at", 0, 0)
    loaded, name = _loaded(bare[0], rest)
    from imgclf.recipe import resolve
    from imgclf.training.seen import seen
    from imgclf.training.sheet import draw

    for line in loaded.said:
        print(line)
    resolved = resolve(loaded.recipe)
    out = Path(options.get("out", f"sheet-{name}.png"))
    if out.suffix.lower() != ".png":
        raise UserError(f"`--out` must end in .png; got {out}")
    draw(seen(resolved, images=images, draws=draws, step=step), resolved.classes, step, out)
    height, width, _ = resolved.image_shape
    print(f"{out} shows {width} x {height} px as the network is given them from step {step:,} on")
    return 0


def _loaded(source: str, rest: list[str]) -> "tuple[LoadedRecipe, str]":
    """The recipe that `source` stands for, with its fields changed, and a name for it."""
    from imgclf.data.remote import at
    from imgclf.recipe import files

    path = at(source)
    is_path = path.exists() and path.suffix != ".py"
    if not is_path:
        files.find(source)  # a mistyped name is answered before anything is imported
    from imgclf.data import located
    from imgclf.recipe import override

    if not is_path:
        return override(files.load(source), rest, options=VALUED), Path(source).stem
    words = ["--data.train", source, *rest]
    loaded = override(files.load(FOR_PATHS), words, options=VALUED)
    recipe = loaded.recipe
    few = len(located(recipe.data.train, recipe.data.root))
    if few < recipe.data.batch_size:  # to be looked at, a set may be smaller than a batch
        data = dataclasses.replace(recipe.data, batch_size=few)
        loaded = dataclasses.replace(loaded, recipe=dataclasses.replace(recipe, data=data))
    return loaded, path.resolve().name.removesuffix(".npz")


def _number(options: dict[str, str], name: str, default: int, least: int) -> int:
    text = options.get(name, str(default))
    if not (text.isdecimal() and int(text) >= least):
        raise UserError(f"`--{name}` must be a whole number of {least} or more; got {text!r}")
    return int(text)
