"""A person's mistake, said in one line."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the person at the keyboard: one line, no traceback, exit status 2.

    The text names the argument, its value, what is allowed and, where there is one, the nearest
    right name: "The `X` of `Y` must be ...; got ...".
    """


def printable(text: str) -> str:
    """The text with what is no UTF-8, as in the name of a file, spelled out: it can be written.

    >>> print(printable(b"caf\\xe9".decode("utf-8", "surrogateescape")))
    caf\\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode()


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The one of `names` that `name` was most likely meant to be, or None if none is close.

    >>> nearest("regnet", ["resnet50", "regnety_002", "regnetx_002"])
    'regnetx_002'
    """
    names = sorted(names)
    begun = [each for each in names if name and each.startswith(name)]
    close = begun or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return close[0] if close else None


def unknown(what: str, name: str, names: Iterable[str]) -> UserError:
    """The error for a `name` that is not among `names`: with the nearest one, else with them all.

    >>> print(unknown("network", "resnt18", ["resnet18", "cnn"]))
    Unknown network 'resnt18'; did you mean 'resnet18'?
    """
    names = sorted(names)
    close = nearest(name, names)
    if close:
        return UserError(f"Unknown {what} {name!r}; did you mean {close!r}?")
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return UserError(f"Unknown {what} {name!r}; there are: {shown or 'none'}")
