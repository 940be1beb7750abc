"""`imgclf show RECIPE`: what a recipe comes to, without training."""

import json
from collections.abc import Sequence

from imgclf.commands.words import split, wants_help
from imgclf.errors import UserError
from imgclf.recipe import files

HELP = "imgclf show RECIPE [--field VALUE ...]"
OPTIONS = {"--json": "print the resolved recipe alone, as JSON"}


def run(words: Sequence[str]) -> int:
    if wants_help(words, HELP, OPTIONS):
        return 0
    bare, options, rest = split(words, (), ("json",))
    if len(bare) != 1:
        raise UserError(f"`imgclf show` takes one recipe; got {' '.join(bare) or 'none'}")
    files.find(bare[0])
    loaded = files.load(bare[0])
    from imgclf.recipe import override, resolve
    from imgclf.training.account import account

    loaded = override(loaded, rest)
    resolved = resolve(loaded.recipe)
    print(json.dumps(resolved.as_json(), indent=1))
    if "json" not in options:
        for line in (*loaded.said, *account(resolved)):
            print(line)
    return 0
