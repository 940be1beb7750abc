"""`imgclf train RECIPE`: trains, or goes on where a run was left."""

from collections.abc import Sequence

from imgclf.commands.words import split
from imgclf.errors import UserError
from imgclf.recipe import files

HELP = """\
imgclf train RECIPE [options] [--field VALUE ...]

RECIPE is the name of a shipped recipe (`imgclf recipes`) or the path of a recipe file.
  --run DIR          the run folder: made if absent, gone on with if it holds the same recipe
  --debug-nans       stop at the first operation that makes a NaN
  --profile A:B      trace the steps from A up to B into the run folder (for TensorBoard, Perfetto)
  --quiet            show nothing but warnings
"""
VALUED = ("run", "profile")
FLAGS = ("debug_nans", "quiet", "help")


def run(words: Sequence[str]) -> int:
    bare, options, rest = split(words, VALUED, FLAGS)
    asked = "help" in options or "-h" in bare or "-h" in rest
    bare = [word for word in bare if word != "-h"]
    if asked and not bare:
        print(HELP + "`imgclf train RECIPE --help` lists every field of a recipe.")
        return 0
    if len(bare) != 1:
        raise UserError(
            f"`imgclf train` takes one recipe (see imgclf recipes); got {' '.join(bare) or 'none'}"
        )
    files.find(bare[0])  # a mistyped name is answered before anything is imported
    profile = _steps(options["profile"]) if "profile" in options else None
    loaded = files.load(bare[0])
    if asked:
        from imgclf.recipe.overrides import print_help

        print(HELP)
        print_help(loaded.recipe, f"imgclf train {bare[0]}")
        return 0
    from imgclf.recipe import override
    from imgclf.training.loop import Options, train

    looked = Options("debug_nans" in options, profile, "quiet" in options)
    train(override(loaded, rest, options=(*VALUED, *FLAGS)), options.get("run"), options=looked)
    return 0


def _steps(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
        raise UserError(f"`--profile` must be FROM:TO in steps, such as 100:110; got {text!r}")
    return int(first), int(last)
