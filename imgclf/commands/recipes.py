"""`imgclf recipes`: the shipped recipes."""

from collections.abc import Sequence

from imgclf.commands.words import no_more, wants_help
from imgclf.recipe.files import names

HELP = "imgclf recipes\n\nLists the recipes that can be trained by name."


def run(words: Sequence[str]) -> int:
    if wants_help(words, HELP, {}):
        return 0
    no_more(words, ())
    found = names()
    width = max(map(len, found), default=0)
    for name, text in found.items():
        print(f"{name:<{width}}  {text}")
    return 0
