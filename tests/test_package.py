"""The public surface: lazy, whole and documented."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import imgclf

PACKAGE = Path(imgclf.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_importing_the_package_imports_no_library() -> None:
    code = "import sys, imgclf; print([m for m in ('jax', 'numpy', 'flax') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_imported() -> None:
    for room in (imgclf, imgclf.recipe, imgclf.data, imgclf.models, imgclf.evaluation):
        for name in dir(room):
            assert name.startswith("__") or getattr(room, name) is not None
    for room in ("imgclf", "imgclf.data", "imgclf.models"):
        given: dict = {}
        exec(f"from {room} import *", given)
        assert {"Recipe", "Mixture", "create"} & given.keys(), room
    with pytest.raises(AttributeError, match="no attribute 'Recipee'"):
        _ = imgclf.Recipee


def test_tensorflow_is_never_imported() -> None:
    for file in MODULES:
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            names = [each.name for each in node.names] + [getattr(node, "module", None) or ""]
            assert not any(name.split(".")[0] == "tensorflow" for name in names), file


@pytest.mark.parametrize("file", MODULES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_what_is_public_says_what_it_is(file: Path) -> None:
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree), f"{file} has no docstring"
    verb = "commands" in file.relative_to(PACKAGE).parts
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node) or (verb and node.name == "run"), f"{file}: {node.name}"
