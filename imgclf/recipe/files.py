"""Recipe files: where they lie, and the one way in which they are loaded.

Nothing here imports JAX until a recipe file does.
"""

import ast
import functools
import importlib.util
import os
import sys
import sysconfig
import types
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imgclf.errors import UserError, unknown

if TYPE_CHECKING:
    from imgclf.recipe.value import Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe as its file gives it, with what is needed to find it again."""

    name: str
    """The file's name without its ending."""
    recipe: "Recipe"
    file: Path | None = None
    """The recipe's file; None for one made in a script."""
    beside: tuple[Path, ...] = ()
    """The modules in the same folder that it imported."""
    overrides: tuple[str, ...] = ()
    """Words of the command line that changed it."""
    said: tuple[str, ...] = ()
    """Lines for the person who gave them, on what was guessed."""


def folder() -> Path:
    """The folder of the shipped recipes: inside an installed package, or beside a checkout's."""
    package = Path(__file__).resolve().parent.parent
    shipped = package / "configs"
    return shipped if shipped.is_dir() else package.parent / "configs"


def names() -> dict[str, str]:
    """The shipped recipes and the first line of each one's docstring, without running them."""
    found = {}
    for file in sorted(folder().glob("[!_]*.py")):
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        found[file.stem] = text.split("\n")[0]
    return found


def find(name: str) -> Path:
    """The file of the recipe `name`: a path to a .py file, or the name of a shipped recipe."""
    if name.endswith(".py") or os.sep in name:
        file = Path(name).expanduser().resolve()
        if file.is_dir():
            raise UserError(f"{name} is a folder; a recipe is a .py file or one of: {_listed()}")
        if not file.is_file():
            raise UserError(f"There is no recipe file {name}; shipped recipes: {_listed()}")
        return file
    file = folder() / f"{name}.py"
    if not file.is_file() or name.startswith("_"):
        raise unknown("recipe", name, names())
    return file


def load(name: str) -> LoadedRecipe:
    """Loads the recipe `name` (see `find`): its file is run, and must define `recipe`."""
    return load_file(find(name))


def from_script(recipe: "Recipe") -> LoadedRecipe:
    """A recipe made in a script: the modules beside the script are pickled by value, too."""
    import cloudpickle

    script = getattr(sys.modules.get("__main__"), "__file__", None)
    for module in _modules_beside(Path(script).resolve()).values() if script else ():
        cloudpickle.register_pickle_by_value(module)
    return LoadedRecipe("script", recipe)


_beside: set[str] = set()
"""Modules that the last recipe's file imported from beside it: another may have the same names."""


def load_file(file: Path) -> LoadedRecipe:
    """Runs a recipe's file as a registered module, whose classes reach workers by value."""
    import cloudpickle

    from imgclf.recipe.kinds import check_kinds
    from imgclf.recipe.value import Recipe

    module_name = f"imgclf_recipe_{file.stem}"
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    while _beside:
        sys.modules.pop(_beside.pop(), None)
    sys.modules[module_name] = module
    before = set(sys.modules)
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{error.filename}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise UserError(f"{_place(error, file)}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(file.parent))
    recipe = getattr(module, "recipe", None)
    if not isinstance(recipe, Recipe):
        raise UserError(f"The recipe file {file} must define `recipe`, an imgclf.Recipe")
    check_kinds(recipe)
    beside = _modules_beside(file)
    new = sys.modules.keys() - before
    _beside.update(name for name in new if sys.modules[name] in beside.values())
    for each in (module, *beside.values()):
        cloudpickle.register_pickle_by_value(each)
    return LoadedRecipe(file.stem, recipe, file, tuple(beside))


def _listed() -> str:
    return ", ".join(names())


def _modules_beside(file: Path) -> dict[Path, types.ModuleType]:
    found = {}
    for name, module in list(sys.modules.items()):
        given = getattr(module, "__file__", None)
        if given is None or name.split(".")[0] in ("__main__", "imgclf"):
            continue
        folder, base = os.path.split(os.path.abspath(given))
        if not _real(folder).is_relative_to(file.parent):
            continue
        path = (_real(folder) / base).resolve()
        if path != file and path.is_relative_to(file.parent) and not _is_installed(path):
            found[path] = module
    return found


@functools.cache
def _real(folder: str) -> Path:
    return Path(folder).resolve()


def _is_installed(path: Path) -> bool:
    """Whether a module belongs to Python or an installed package, wherever that may lie."""
    return "site-packages" in path.parts or not _roots().isdisjoint(path.parents)


@functools.cache
def _roots() -> frozenset[Path]:
    return frozenset(Path(root).resolve() for root in sysconfig.get_paths().values())


def _place(error: BaseException, file: Path) -> str:
    """The last line of a person's own code on the way to `error`."""
    place, trace = str(file), error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).parent == file.parent:
            place = f"{trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place
