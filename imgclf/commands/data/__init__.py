"""`imgclf data VERB`: what is done with data before a network sees them; one thin file a verb."""

import importlib
from collections.abc import Sequence

from imgclf.errors import UserError, unknown

VERBS = {
    "prepare": "SOURCE OUT [--size N ...]   write a data set that is fast to read",
    "check": "SOURCE [--against SOURCE]   what is wrong with the images, as a table and a page",
    "show": "SOURCE|RECIPE               a sheet of what the network will see",
}


def run(words: Sequence[str]) -> int:
    if not words:
        raise UserError(f"`imgclf data` takes one of {', '.join(VERBS)}")
    if words[0] in ("-h", "--help"):
        lines = [f"  imgclf data {verb:<8} {text}" for verb, text in VERBS.items()]
        print("\n".join([*lines, "", "`imgclf data VERB --help` lists the options of one."]))
        return 0
    if words[0] not in VERBS:
        raise unknown("command of `imgclf data`", words[0], VERBS)
    return importlib.import_module(f"imgclf.commands.data.{words[0]}").run(words[1:])
