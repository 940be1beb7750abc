"""Whether the parts of a recipe are of the kinds that its fields say: constructors do not look."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from imgclf.errors import UserError
from imgclf.recipe.value import Average, Checkpoint, Data, Log, Mesh, Model, Recipe
from imgclf.units import Unit

_PLAIN = (Recipe, Data, Model, Average, Checkpoint, Log, Mesh)


def check_kinds(value: Any) -> None:
    """Raises a `UserError` for a field of a recipe, or of a plain part of it, of another kind.

    `length=30`, `optimizer=SGD` and `augment=Flip()` are such mistakes; what is inside the parts
    that a person may write is theirs to check.
    """
    owner = type(value)
    hints = typing.get_type_hints(owner)
    for field in dataclasses.fields(value):
        part, hint = getattr(value, field.name), hints[field.name]
        if not _fits(part, hint):
            raise UserError(
                f"The `{field.name}` of `{owner.__name__}` must be {in_words(hint)}; got {part!r}"
            )
        if isinstance(part, _PLAIN):
            check_kinds(part)


def in_words(hint: Any) -> str:
    """What a type is called in a message: `a whole number`, `one of 'a', 'b'`."""
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "one word"}
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in words:
        return words[hint]
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in inner)
    if origin is tuple:
        return f"a tuple of values, each {in_words(inner[0])}"
    if origin is Mapping:
        return f"a dict of values, each {in_words(inner[1])}"
    if origin is types.UnionType:
        return " or ".join(map(in_words, inner))
    if isinstance(hint, type) and issubclass(hint, Unit):
        return "a duration, such as Epochs(10) or Steps(500)"
    if origin is Callable:
        return "a function"
    return f"of kind `{getattr(hint, '__name__', hint)}`"


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin is typing.Literal:
        return value in inner
    if origin is tuple and inner[-1] is ...:
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(v, inner[1]) for v in value.values())
    if origin is types.UnionType:
        return any(_fits(value, each) for each in inner)
    return callable(value) if origin is Callable else isinstance(value, origin or hint)
