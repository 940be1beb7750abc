"""The reference answers: weights and images by formula, and what the originals say to them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def formula(shared: Path) -> ModuleType:
    path = shared / "reference" / "models" / "formula.py"
    if not path.is_file():
        pytest.skip(f"no reference answers at {path}")
    spec = importlib.util.spec_from_file_location("formula", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
