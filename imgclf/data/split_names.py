"""What the parts of a data set are called: folders, tables, arrays and words in a column."""

from collections.abc import Iterable, Sequence

from imgclf.errors import UserError

TRAIN = ("train", "training")
"""What the part for training may be called, in upper or lower case."""

HELD_OUT = ("val", "valid", "validation", "test", "testing")
"""What the part for evaluation may be called; the first that is there is taken."""

SPLITS = (*TRAIN, *HELD_OUT)


def is_split(name: str) -> bool:
    """Whether a part of a data set may be called so."""
    return name.lower() in SPLITS


def chosen(where: object, names: Iterable[str]) -> tuple[str, str]:
    """Which of `names` are the part for training and the one held out; "" where there is none.

    Raises a `UserError` where two names mean the same, as `train` and `Train` do.
    """
    there = sorted(names)
    held_out = (_only(where, there, (word,)) for word in HELD_OUT)
    return _only(where, there, TRAIN), next(filter(None, held_out), "")


def _only(where: object, names: Sequence[str], words: tuple[str, ...]) -> str:
    found = [name for name in names if name.lower() in words]
    if len(found) > 1:
        raise UserError(
            f"{where} must have one part that is called {' or '.join(words)}; got "
            f"{' and '.join(found)}"
        )
    return found[0] if found else ""
