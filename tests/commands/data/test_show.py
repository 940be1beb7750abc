"""`imgclf data show` as a user types it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Command = Callable[..., Any]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        assert opened.format == "PNG"
        return np.asarray(opened.convert("L"))


def test_a_recipe_is_shown_with_its_fields_changed(imgclf: Command, tmp_path: Path) -> None:
    words = ("--images", "3", "--draws", "2", "--augment.0.pixels", "3", "--at", "5")
    ended = imgclf("data", "show", "digits", *words)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith("sheet-digits.png shows 8 x 8 px") and "step 5 on" in ended.out
    sheet = pixels(tmp_path / "sheet-digits.png")
    assert sheet.shape[0] > 400 and sheet.shape[1] > 400
    assert (sheet < 40).mean() > 0.2, "the black of the digits is not there"


def test_a_path_is_shown_as_training_on_it_would_be(
    imgclf: Command, photos: Callable[..., Path], tmp_path: Path
) -> None:
    photos("mine", side=40, ant=6, bee=6)
    (tmp_path / "mine" / "ant" / "0.jpg").write_bytes(b"")
    words = ("--images", "20", "--draws", "1", "--out", "new/sheet.png")
    ended = imgclf("data", "show", "mine", *words, "--model.preprocess.size", "32")
    assert (ended.status, ended.err) == (0, "")
    assert "mine: 80 % of class folders (2 classes, 10 images) for training" in ended.out
    assert "new/sheet.png shows 32 x 32 px" in ended.out
    assert pixels(tmp_path / "new" / "sheet.png").shape[1] > 10 * 150  # all ten images


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "`imgclf data show` takes one recipe or path; got none"),
        (("digit",), "Unknown recipe 'digit'; did you mean 'digits'?"),
        (("digits", "--draws", "0"), "`--draws` must be a whole number of 1 or more; got '0'"),
        (("digits", "--out", "x.jpg"), "`--out` must end in .png; got x.jpg"),
        (("digits", "--at", "999999"), "The run has the steps 0 to 336; got 999,999"),
        (("digits", "--imags", "2"), "The recipe has no field --imags; did you mean --images?"),
    ],
)
def test_mistakes_are_said_in_a_line(refused: Command, words: tuple[str, ...], said: str) -> None:
    assert refused("data", "show", *words) == said
