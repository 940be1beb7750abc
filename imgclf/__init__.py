"""imgclf trains, evaluates and studies image classifiers in JAX, exactly.

The verbs (`train`, `evaluate`, `predict`) and the words of a recipe (`Recipe`, `Data`, `Model`,
`Epochs` ...) are here; kinds come from their rooms: `imgclf.data.Folder`,
`imgclf.losses.CrossEntropy`. Everything is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imgclf.errors import UserError as UserError
    from imgclf.preprocess import Preprocess as Preprocess
    from imgclf.recipe.files import load as load_recipe
    from imgclf.recipe.value import Average as Average
    from imgclf.recipe.value import Checkpoint as Checkpoint
    from imgclf.recipe.value import Data as Data
    from imgclf.recipe.value import Log as Log
    from imgclf.recipe.value import Mesh as Mesh
    from imgclf.recipe.value import Model as Model
    from imgclf.recipe.value import Recipe as Recipe
    from imgclf.training.loop import train as train
    from imgclf.training.saved import evaluate as evaluate
    from imgclf.training.saved import predict as predict
    from imgclf.units import Epochs as Epochs
    from imgclf.units import Examples as Examples
    from imgclf.units import Fraction as Fraction
    from imgclf.units import Never as Never
    from imgclf.units import Steps as Steps

__version__ = "0.1.0"

_HOME = {
    "UserError": "errors",
    "Preprocess": "preprocess",
    **dict.fromkeys(
        ("Average", "Checkpoint", "Data", "Log", "Mesh", "Model", "Recipe"), "recipe.value"
    ),
    **dict.fromkeys(("Epochs", "Examples", "Fraction", "Never", "Steps"), "units"),
    "train": "training.loop",
    "evaluate": "training.saved",
    "predict": "training.saved",
}
__all__ = [*_HOME, "load_recipe"]
_ROOMS = (
    *("augmentation", "data", "evaluation", "losses", "models"),
    *("optimizers", "recipe", "schedules", "tasks", "training"),
)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"imgclf.{name}")
    if name == "load_recipe":
        return importlib.import_module("imgclf.recipe.files").load
    if name not in _HOME:
        raise AttributeError(f"module 'imgclf' has no attribute {name!r}")
    return getattr(importlib.import_module(f"imgclf.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_ROOMS, "load_recipe"])
