"""Whether a value is of the kind that an annotation says, and what that is called in a message."""

import numbers
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from imgclf.units import Unit

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "one word",
    types.NoneType: "None",
}


def fits(value: Any, hint: Any) -> bool:
    """Whether `value` is what a field that is annotated with `hint` may hold.

    >>> fits((1, 2), tuple[int, ...]), fits([1, 2], tuple[int, ...]), fits(True, int)
    (True, False, False)
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in inner)
    if origin is tuple and inner[-1] is ...:
        return isinstance(value, tuple) and all(fits(each, inner[0]) for each in value)
    if origin is tuple:
        return (
            isinstance(value, tuple) and len(value) == len(inner) and all(map(fits, value, inner))
        )
    if origin is type:
        return isinstance(value, type) and issubclass(value, inner)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(fits(v, inner[1]) for v in value.values())
    if origin in (types.UnionType, typing.Union):
        return any(fits(value, each) for each in inner)
    return callable(value) if origin is Callable else isinstance(value, origin or hint)


def in_words(hint: Any) -> str:
    """What a kind is called in a message.

    >>> in_words(int), in_words(tuple[int, ...])
    ('a whole number', 'a tuple of values, each a whole number')
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in inner)
    if origin is tuple and inner[-1] is not ...:
        return f"a tuple: {', '.join(map(in_words, inner))}"
    if origin is tuple:
        return f"a tuple of values, each {in_words(inner[0])}"
    if origin is Mapping:
        return f"a dict of values, each {in_words(inner[1])}"
    if origin in (types.UnionType, typing.Union):
        return " or ".join(map(in_words, inner))
    if isinstance(hint, type) and issubclass(hint, Unit):
        return "a duration, such as Epochs(10) or Steps(500)"
    if origin is Callable:
        return "a function"
    if origin is type:
        return f"the class {inner[0].__name__}"
    return f"of kind `{getattr(hint, '__name__', hint)}`"
