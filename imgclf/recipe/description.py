"""A recipe written down: as plain JSON, and the differences between two of them."""

import dataclasses
from collections.abc import Mapping
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
    "data.root",
    "data.workers",
    "data.threads",
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
    raise UserError(
        f"A recipe must be made of dataclasses, numbers, strings, tuples and dicts; got {value!r}"
    )


def differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """The dotted fields in which two described recipes differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict) and old.get("kind") == new.get("kind"):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(key for key in new if key not in old)]:
            inner = f"{path}.{key}" if path else key
            found |= differences(old.get(key, "absent"), new.get(key, "absent"), inner)
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return {k: v for i, (a, b) in pairs for k, v in differences(a, b, f"{path}.{i}").items()}
    return {} if old == new else {path: (old, new)}


def may_change(path: str) -> bool:
    """Whether a run may go on with another value of the dotted field `path`."""
    return any(path == free or path.startswith(free + ".") for free in MAY_CHANGE)


def _kind(thing: Any) -> str:
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    module = getattr(thing, "__module__", "")
    return name if module.split(".")[0] == "imgclf" else f"{module}.{name}"
