"""Words, tables and plots."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgclf.evaluation import class_table, per_class, plot_confusion, plot_curves, say

NAMES = ("$x^{", "_private", "a % b\udce9", "日本", "new\nline", "n" * 100)


@pytest.mark.parametrize(
    ("right", "total", "words"),
    [
        (355, 360, "355 of 360 right (98.6 %)"),
        (360, 360, "360 of 360 right (100.0 %)"),
        (49_999, 50_000, "49,999 of 50,000 right (over 99.9 %)"),
        (0, 0, "0 of 0 right (0.0 %)"),
    ],
)
def test_accuracy_is_said_and_never_rounded_up_to_all(right, total, words):
    assert say(right, total) == words


def test_table_is_aligned_and_has_every_class_once():
    matrix = np.arange(36).reshape(6, 6)
    lines = class_table(per_class(matrix), NAMES).encode().decode().splitlines()
    assert len(lines) == 1 + 6 + 1 + 2
    assert len({len(line) for line in lines if line}) == 1
    assert [line.split()[-1] for line in lines[1:3]] == ["15", "51"]
    assert lines[-1].split()[-1] == "630"


def test_table_of_two_classes_reads_so():
    table = class_table(per_class(np.array([[8, 2], [0, 10]])), ("cat", "dog"))
    assert table.splitlines() == [
        "class            precision  recall    f1  examples",
        "cat                  100.0    80.0  88.9        10",
        "dog                   83.3   100.0  90.9        10",
        "",
        "mean of classes       91.7    90.0  89.9        20",
        "mean by support       91.7    90.0  89.9        20",
    ]


def grey(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


@pytest.mark.parametrize("k", [2, 6, 25, 61])
def test_confusion_of_any_number_of_classes_is_drawn(tmp_path, k):
    path = tmp_path / "new" / "confusion.png"
    names = (NAMES * 11)[:k]
    plot_confusion(np.eye(k, dtype=np.int64) * 1234, names, path)
    image = grey(path)
    assert min(image.shape) > 400
    assert (image < 100).mean() > 0.005


def test_confusion_of_nothing_is_drawn(tmp_path):
    plot_confusion(np.zeros((3, 3), np.int64), ("a", "b", "c"), tmp_path / "confusion.png")
    assert min(grey(tmp_path / "confusion.png").shape) > 400


def epoch(number, **more):
    loss, share = math.exp(-number), 1 - math.exp(-number)
    return {"epoch": number, "train_loss": loss, "train_accuracy": share, **more}


@pytest.mark.parametrize(
    "history",
    [
        [],
        [epoch(1, test_loss=1.0, test_accuracy=0.5)],
        [epoch(1), epoch(2, test_loss=float("nan"), test_accuracy=0.5), epoch(3)],
        [epoch(1, **{"a $b_loss": None, "a $b_accuracy": 0.1}), epoch(2)],
        [epoch(i, test_loss=1 / i, test_accuracy=1 - 1 / i) for i in range(1, 100)],
    ],
    ids=["nothing", "one epoch", "gaps", "odd name", "long"],
)
def test_curves_of_any_history_are_drawn(tmp_path, history):
    plot_curves(history, tmp_path / "curves.png")
    assert grey(tmp_path / "curves.png").shape == (480, 1200)


def test_room_needs_neither_jax_nor_matplotlib_until_it_draws():
    program = (
        "import sys, imgclf.evaluation; "
        "assert not {'jax', 'matplotlib', 'sklearn', 'PIL'} & set(sys.modules), sys.modules"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True)
    assert result.returncode == 0, result.stderr
