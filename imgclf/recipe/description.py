"""A recipe written down: as plain JSON, and the differences between two of them."""

import dataclasses
import numbers
from collections.abc import Collection, Mapping
from typing import Any

from imgclf.errors import UserError
from imgclf.units import Unit

MAY_CHANGE = (
    "length",
    "evaluate_every",
    "checkpoint",
    "log",
    "mesh",
    "dispatch",
    "deterministic",
    "data.root",
    "data.workers",
    "data.threads",
    "data.worker_timeout",
    "data.bad_share",
    "data.resident",
    "data.evaluate_batch_size",
)
"""Fields that may differ when a run goes on: none changes what is learned but the length."""


def describe(value: Any) -> Any:
    """`value` as JSON: a dataclass becomes its `kind` and fields, a duration its text."""
    if isinstance(value, Unit):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"kind": _kind(type(value)), **fields}
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if callable(value):
        return _kind(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, numbers.Real):  # of NumPy
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    raise UserError(
        f"A recipe must be made of dataclasses, numbers, strings, tuples and dicts; got {value!r}"
    )


def differences(
    old: Any, new: Any, defaults: Collection[str] = (), path: str = ""
) -> dict[str, tuple[Any, Any]]:
    """The dotted fields in which two described recipes differ, with both values.

    A field that `old` does not have, since it was described by an earlier version, is no difference
    where its path is one of the `defaults`.
    """
    if isinstance(old, dict) and isinstance(new, dict) and old.get("kind") == new.get("kind"):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}" if path else key
            if key in old or inner not in defaults:
                pair = old.get(key, "absent"), new.get(key, "absent")
                found |= differences(*pair, defaults, inner)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        found = {}
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            found |= differences(a, b, defaults, f"{path}.{i}")
        return found
    return {} if old == new else {path: (old, new)}


def at_default(value: Any, path: str = "") -> set[str]:
    """The dotted fields of a recipe that hold what they hold without being given."""
    if isinstance(value, tuple | list | Mapping):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        return {name for key, each in items for name in at_default(each, f"{path}.{key}")}
    found: set[str] = set()
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Unit):
        for field in dataclasses.fields(value):
            inner, held = f"{path}.{field.name}".removeprefix("."), getattr(value, field.name)
            if field.default is not dataclasses.MISSING and held == field.default:
                found.add(inner)
            found |= at_default(held, inner)
    return found


def may_change(path: str) -> bool:
    """Whether a run may go on with another value of the dotted field `path`."""
    return any(path == free or path.startswith(free + ".") for free in MAY_CHANGE)


def _kind(thing: Any) -> str:
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    module = getattr(thing, "__module__", "")
    return name if module.split(".")[0] == "imgclf" else f"{module}.{name}"
