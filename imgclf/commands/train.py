"""`imgclf train RECIPE`: trains, or goes on where a run was left."""

from collections.abc import Mapping, Sequence

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

Several processes train one network where SLURM, Open MPI or a TPU pod starts them, each by this
same command; elsewhere say where process 0 is to be found, and which one this is:
  --coordinator HOST:PORT --processes N --process I
  --dead-after S     leave when another process gave no sign of life for S seconds (default 30)
"""
VALUED = ("run", "profile", "coordinator", "processes", "process", "dead_after")
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
    cluster = _cluster(options)
    dead_after = _number(options, "dead_after", 30, least=5)
    loaded = files.load(bare[0])
    if asked:
        from imgclf.recipe.overrides import print_help

        print(HELP)
        print_help(loaded.recipe, f"imgclf train {bare[0]}")
        return 0
    from imgclf.recipe import override
    from imgclf.training.join import join
    from imgclf.training.loop import Options, train

    loaded = override(loaded, rest, options=(*VALUED, *FLAGS))
    join(*cluster)
    looked = Options("debug_nans" in options, profile, "quiet" in options, dead_after)
    train(loaded, options.get("run"), options=looked)
    return 0


def _cluster(options: Mapping[str, str]) -> tuple[str, int, int]:
    names = ("coordinator", "processes", "process")
    given = [f"--{name}" for name in names if name in options]
    if given and len(given) < len(names):
        raise UserError(
            f"`--coordinator`, `--processes` and `--process` go together; got only "
            f"{' and '.join(given)}"
        )
    processes = _number(options, "processes", 0, least=1)
    return options.get("coordinator", ""), processes, _number(options, "process", -1, least=0)


def _number(options: Mapping[str, str], name: str, default: int, least: int) -> int:
    text = options.get(name, str(default))
    if name in options and not (text.isdecimal() and int(text) >= least):
        raise UserError(f"`--{name}` must be a whole number of {least} or more; got {text!r}")
    return int(text)


def _steps(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise UserError(f"`--profile` must be FROM:TO in steps, such as 100:110; got {text!r}")
    return int(first), int(last)
