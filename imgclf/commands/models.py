"""`imgclf models`: the networks by name, or the layers of one."""

import fnmatch
from collections.abc import Sequence

from imgclf.commands.words import no_more, split, wants_help
from imgclf.errors import UserError

HELP = (
    "imgclf models [NAME] [options]\n\nWithout NAME a list, with NAME the layers of that network."
)
OPTIONS = {
    "--filter PATTERN": "only names that match, such as 'resnet*'",
    "--num_classes N": "for so many classes (1000; a list for others takes a second a network)",
}


def run(words: Sequence[str]) -> int:
    if wants_help(words, HELP, OPTIONS):
        return 0
    bare, options, rest = split(words, ("filter", "num_classes"))
    no_more(rest, ("filter", "num_classes"))
    from imgclf import models

    classes = options.get("num_classes", "1000")
    if not classes.isdecimal() or int(classes) < 1:
        raise UserError(f"`--num_classes` must be a whole number of 1 or more; got {classes!r}")
    if len(bare) > 1:
        raise UserError(f"`imgclf models` takes one name; got {' '.join(bare)}")
    if bare and "filter" in options:
        raise UserError("`imgclf models` takes a name or a `--filter`; got both")
    if bare:
        from imgclf.models import summary

        print(summary.table(models.create(bare[0], int(classes))))
        return 0
    pattern = options.get("filter", "*")
    names = [name for name in models.names() if fnmatch.fnmatch(name, pattern)]
    if not names:
        raise UserError(f"No network matches {pattern!r}; `imgclf models` lists them all")
    from imgclf.models.sizes import listing

    print("\n".join(listing(names, int(classes))))
    return 0
