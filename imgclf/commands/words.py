"""Taking the options of a verb out of its words; what is left belongs to the recipe."""

from collections.abc import Mapping, Sequence

from imgclf.errors import UserError


def split(
    words: Sequence[str], valued: Sequence[str], flags: Sequence[str] = ()
) -> tuple[list[str], dict[str, str], list[str]]:
    """The leading bare words, the options in `valued` and `flags`, and all other `--` words.

    `--debug-nans` and `--debug_nans` are one; a flag's value is "". Raises a `UserError` for an
    option without its value, and for a flag with one.
    """
    bare: list[str] = []
    options: dict[str, str] = {}
    rest: list[str] = []
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--"):
            (rest if rest else bare).append(word)
        elif name in flags:
            if equals:
                raise UserError(f"`--{name}` takes no value; got {value!r}")
            options[name] = ""
        elif name in valued:
            if not equals:
                if position == len(words) or words[position].startswith("--"):
                    raise UserError(f"`--{name}` needs a value")
                value = words[position]
                position += 1
            options[name] = value
        else:
            rest.append(word)
            while position < len(words) and not words[position].startswith("--"):
                rest.append(words[position])
                position += 1
    return bare, options, rest


def no_more(rest: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises a `UserError` for words that a verb does not take."""
    from imgclf.errors import unknown

    if rest:
        name = rest[0].removeprefix("--").partition("=")[0]
        raise unknown("option", f"--{name}", [f"--{each}" for each in allowed])


def wants_help(words: Sequence[str], text: str, options: Mapping[str, str]) -> bool:
    """Prints the help of a verb if it is asked for."""
    if not {"-h", "--help"} & set(words):
        return False
    print(text)
    for name, meaning in options.items():
        print(f"  {name:<24} {meaning}")
    return True
