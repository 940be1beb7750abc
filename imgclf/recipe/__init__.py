"""The recipe: one value that says all of an experiment.

`value` has `Recipe` and its plain parts, `files` finds and loads recipe files, `overrides` changes
fields from the command line, `kinds` checks what fields hold, `description` writes a value down,
`resolution` works out what follows from it. Names are imported where they are first used, so that
finding a file needs no JAX.
"""

import importlib
from typing import Any

_HOME = {
    "Average": "value",
    "Checkpoint": "value",
    "Data": "value",
    "Log": "value",
    "Mesh": "value",
    "Model": "value",
    "Recipe": "value",
    "LoadedRecipe": "files",
    "load": "files",
    "names": "files",
    "describe": "description",
    "differences": "description",
    "override": "overrides",
    "Resolved": "resolution",
    "resolve": "resolution",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
