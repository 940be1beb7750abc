import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from imgclf import UserError
from imgclf.recipe import load, names

RECIPE = """
from imgclf import Recipe, Data
from imgclf.data import Digits
{more}
recipe = Recipe(data=Data(Digits(), {{}}))
"""


def write(folder: Path, name: str, more: str = "") -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(RECIPE.format(more=more))
    return str(folder / name)


def test_shipped_recipes_are_listed_with_their_first_line() -> None:
    assert names()["digits"].startswith("A small convolutional network")


def test_finding_recipes_imports_no_jax() -> None:
    code = (
        "import sys, imgclf.recipe.files as f; f.names(); f.find('digits');"
        "print([m for m in ('jax', 'flax', 'grain', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_recipe_file_is_found_by_path(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "mine.py"))
    assert loaded.name == "mine" and loaded.file == tmp_path / "mine.py" and loaded.beside == ()


def test_modules_beside_a_recipe_are_kept_and_those_of_another_folder_forgotten(
    tmp_path: Path,
) -> None:
    for number in (1, 2):
        folder = tmp_path / str(number)
        file = write(folder, "mine.py", "import helpers\nvalue = helpers.value")
        (folder / "helpers.py").write_text(f"value = {number}\n")
        loaded = load(file)
        assert loaded.beside == (folder / "helpers.py",)
        assert sys.modules["imgclf_recipe_mine"].value == number


def test_a_scripts_own_modules_stay_what_they_are_when_a_recipe_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, "mine.py", "import helpers")
    (tmp_path / "helpers.py").write_text("class Own: pass\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, helpers\n"
        "from imgclf.recipe import load\n"
        "from imgclf.recipe.files import from_script\n"
        "recipe = load('mine.py').recipe\n"
        "from_script(recipe)\n"
        "load('digits')\n"
        "assert sys.modules['helpers'] is helpers\n"
    )
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True)


def test_a_class_of_a_recipe_file_is_pickled_by_value(tmp_path: Path) -> None:
    more = "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass Own:\n    x: int = 5\n"
    load(write(tmp_path, "own.py", more))
    pickled = cloudpickle.dumps(sys.modules["imgclf_recipe_own"].Own())
    code = f"import pickle; print(pickle.loads({pickled!r}).x)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "5"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("x = 1", "must define `recipe`"),
        ("def f(:", "line 1: invalid syntax"),
        ("\n1 / 0", "line 2: ZeroDivisionError"),
        ("import no_such_module", "line 1: ModuleNotFoundError"),
    ],
)
def test_a_mistake_in_a_recipe_file_is_told_with_its_place(
    tmp_path: Path, content: str, said: str
) -> None:
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(UserError) as error:
        load(str(tmp_path / "bad.py"))
    assert said in str(error.value) and "bad.py" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'digits'"):
        load("digitz")
    with pytest.raises(UserError, match="There is no recipe file"):
        load(str(tmp_path / "none.py"))
    with pytest.raises(UserError, match="is a folder"):
        load(str(tmp_path) + "/")
