"""Whether the parts of a recipe are of the kinds that its fields say: constructors do not look."""

import dataclasses
import typing
from typing import Any

from imgclf.errors import UserError
from imgclf.kinds import fits, in_words
from imgclf.recipe.value import Average, Checkpoint, Data, Log, Mesh, Model, Recipe

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
        if not fits(part, hint):
            raise UserError(
                f"The `{field.name}` of `{owner.__name__}` must be {in_words(hint)}; got {part!r}"
            )
        if isinstance(part, _PLAIN):
            check_kinds(part)
