"""Every shipped recipe: its value as written, and a step of it through the command line.

`python tests/contracts/test_recipes.py` writes the golden files anew.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from imgclf.recipe import describe, load, names

GOLDEN = Path(__file__).parent / "golden"
SHORT = ("--length", "1steps", "--schedule.warmup", "0steps")
LIGHT = (
    *("--model.network", "resnet18", "--model.options.width", "4"),
    *("--model.options.depths", "[1, 1]", "--model.preprocess.size", "32"),
    *("--data.workers", "0"),
)
SHRUNK = {
    "cifar10": ("--data.batch_size", "8", "--model.options.depth", "1"),
    "digits": ("--data.batch_size", "8"),
    "imagenet_resnet50": (*LIGHT, "--data.batch_size", "4"),
    "imagenette": (*LIGHT, "--data.batch_size", "4"),
}
"""What makes a recipe's step fit into a test."""


def cifar10(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, count in (("data_batch_1", 10), ("test_batch", 10)):
        rows = np.random.default_rng(count).integers(0, 256, (count, 3073), np.uint8)
        rows[:, 0] = np.arange(count)
        rows.tofile(folder / f"{name}.bin")


def class_folders(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for part, label in (("train", "ant"), ("train", "bee"), ("val", "ant"), ("val", "bee")):
        (folder / part / label).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 256, (40 + i, 36, 3), np.uint8)
            Image.fromarray(pixels).save(folder / part / label / f"{i}.jpg")


DATA: dict[str, Callable[[Path], None]] = {
    "cifar-10-batches-bin": cifar10,
    "imagenet": class_folders,
    "imagenette2-160": class_folders,
}
"""The folders below `data` in which shipped recipes look."""


def written(name: str) -> dict[str, Any]:
    return describe(load(name).recipe)


@pytest.mark.parametrize("name", names())
def test_a_recipe_says_what_it_said(name: str) -> None:
    assert written(name) == json.loads((GOLDEN / f"{name}.json").read_text())


def test_every_golden_file_belongs_to_a_recipe() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(names())


@pytest.mark.parametrize("name", names())
def test_a_recipe_is_listed_with_its_first_line(name: str, imgclf: Callable[..., Any]) -> None:
    listed = imgclf("recipes").out.splitlines()
    (line,) = [line for line in listed if line.split()[0] == name]
    assert line.endswith(".")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name.startswith("imagenet") else ())
        for name in names()
    ],
)
def test_a_recipe_trains_and_is_evaluated(
    name: str, imgclf: Callable[..., Any], tmp_path: Path
) -> None:
    for folder, make in DATA.items():
        make(tmp_path / "data" / folder)
    ended = imgclf("train", name, "--run", "run", *SHORT, *SHRUNK[name])
    assert (ended.status, ended.err) == (0, "")
    trained = json.loads((tmp_path / "run" / "result.json").read_text())
    assert trained["steps"] == 1
    ended = imgclf("evaluate", "run", "--json")
    assert (ended.status, ended.err) == (0, "")
    (found,) = json.loads(ended.out).values()
    assert found["accuracy"] == trained["accuracy"] and found["total"] >= 6


if __name__ == "__main__":
    for each in names():
        (GOLDEN / f"{each}.json").write_text(json.dumps(written(each), indent=1) + "\n")
