import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import pytest

from imgclf import Epochs, Log, Recipe, Steps, UserError
from imgclf.data import Digits
from imgclf.losses import CrossEntropy
from imgclf.recipe import Data, describe, differences
from imgclf.recipe.description import at_default, may_change

RECIPE = Recipe(data=Data(Digits(), {"test": Digits("test")}))


def test_a_described_value_tells_kind_and_fields() -> None:
    assert describe(CrossEntropy(0.1)) == {
        "kind": "CrossEntropy",
        "label_smoothing": 0.1,
        "class_weights": [],
    }
    assert describe((Epochs(2), 1)) == ["2epochs", 1]
    numbers = describe((np.int64(3), np.float32(0.5)))
    assert json.dumps(numbers) == "[3, 0.5]"


def test_a_persons_kind_is_told_with_its_module() -> None:
    @dataclass(frozen=True)
    class Own:
        x: int = 1

    assert describe(Own())["kind"].startswith(f"{__name__}.")


def test_what_cannot_be_written_down_is_refused() -> None:
    with pytest.raises(UserError, match="must be made of dataclasses"):
        describe({"x": object()})


def test_differences_are_dotted_fields_with_both_values() -> None:
    other = dataclasses.replace(RECIPE, seed=1, data=dataclasses.replace(RECIPE.data, batch_size=7))
    found = differences(describe(RECIPE), describe(other))
    assert found == {"data.batch_size": (128, 7), "seed": (0, 1)}


def test_another_kind_is_one_difference() -> None:
    changed = dataclasses.replace(RECIPE, augment=())
    assert differences(describe(RECIPE), describe(changed)) == {}
    old, new = describe(CrossEntropy()), describe(Digits())
    assert differences(old, new, path="task") == {"task": (old, new)}


def test_only_fields_that_change_nothing_learned_may_change_on_a_resume() -> None:
    changed = dataclasses.replace(
        RECIPE,
        length=Epochs(3),
        log=Log(every=Steps(1)),
        data=dataclasses.replace(RECIPE.data, workers=2),
    )
    assert all(may_change(name) for name in differences(describe(RECIPE), describe(changed)))
    for name in ("seed", "data.batch_size", "optimizer.momentum", "lengthy", "data.train.split"):
        assert not may_change(name)


def test_a_field_that_came_later_is_no_difference_at_its_default() -> None:
    old = describe(RECIPE)
    del old["accumulate"], old["optimizer"]["momentum"]
    given = dataclasses.replace(RECIPE, accumulate=4)
    assert differences(old, describe(RECIPE), at_default(RECIPE)) == {}
    assert differences(old, describe(given), at_default(given)) == {"accumulate": ("absent", 4)}
