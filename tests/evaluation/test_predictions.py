"""The folder of predictions: written whole, read exactly, refused where it is damaged."""

import dataclasses
import json

import numpy as np
import pytest

from imgclf.errors import UserError
from imgclf.evaluation import Predictions, evaluate


def predictions(n=5, soft=False, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, n).astype(np.int32)
    return Predictions(
        logits=random.normal(size=(n, 3)).astype(np.float32),
        labels=np.eye(3, dtype=np.float32)[labels] if soft else labels,
        ids=[f"a folder/image\n{i} \udcff é.jpg" for i in range(n)],
        classes=("cat", "dog", "$1_ 日本"),
    )


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("n", [5, 0])
def test_what_is_saved_comes_back_to_the_bit(tmp_path, n, soft):
    saved = predictions(n, soft)
    saved.save(tmp_path / "deep" / "test")
    loaded = Predictions.load(tmp_path / "deep" / "test")
    np.testing.assert_array_equal(loaded.logits, saved.logits)
    np.testing.assert_array_equal(loaded.labels, saved.labels)
    assert loaded.labels.dtype == saved.labels.dtype
    assert (list(loaded.ids), loaded.classes) == (list(saved.ids), saved.classes)


def test_saving_again_replaces_the_folder_and_leaves_nothing_else(tmp_path):
    predictions(5).save(tmp_path / "test")
    predictions(4).save(tmp_path / "test")
    assert len(Predictions.load(tmp_path / "test").ids) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


def test_failed_save_keeps_the_old_folder(tmp_path, monkeypatch):
    predictions(5).save(tmp_path / "test")
    monkeypatch.setattr(json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predictions(4).save(tmp_path / "test")
    assert len(Predictions.load(tmp_path / "test").ids) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["test"]


def test_absent_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"^No predictions at .*nowhere"):
        Predictions.load(tmp_path / "nowhere")


def test_whether_classes_are_independent_comes_back(tmp_path):
    for independent in (True, False):
        saved = dataclasses.replace(predictions(), independent=independent)
        saved.save(tmp_path / "test")
        loaded = Predictions.load(tmp_path / "test")
        np.testing.assert_array_equal(loaded.probabilities(), saved.probabilities())


@pytest.mark.parametrize("name", ["logits.npy", "labels.npy", "ids.json", "classes.json"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY garbage", b'{"not": "a list"}'])
def test_damaged_folder_is_refused_in_one_line(tmp_path, name, content):
    predictions().save(tmp_path / "test")
    (tmp_path / "test" / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read") as error:
        Predictions.load(tmp_path / "test")
    assert "\n" not in str(error.value)


def test_pickled_array_is_never_loaded(tmp_path):
    predictions().save(tmp_path / "test")
    np.save(tmp_path / "test" / "labels.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read"):
        Predictions.load(tmp_path / "test")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("logits", np.zeros((5, 4), np.float32)),
        ("labels", np.zeros(4, np.int32)),
        ("labels", np.full(5, 3, np.int32)),
        ("labels", np.full(5, -1, np.int32)),
        ("ids", ["only one"]),
    ],
)
def test_parts_that_do_not_fit_are_an_error(tmp_path, part, value):
    parts = {**vars(predictions()), part: value}
    with pytest.raises(UserError, match=r"^The `\w+` of `Predictions` must .*; got"):
        Predictions(**parts).save(tmp_path / "test")


def test_probabilities_sum_to_one_even_of_huge_logits():
    logits = np.array([[1e4, 0.0, -1e4], [1.0, 1.0, 1.0]], np.float32)
    found = Predictions(logits, np.zeros(2, np.int32), ["a", "b"], ("x", "y", "z")).probabilities()
    np.testing.assert_allclose(found, [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("soft", [False, True])
def test_among_the_present_classes_no_other_is_said(soft):
    labels = np.array([3, 1, 3], np.int32)
    logits = np.array([[9, 1, 2, 3], [9, 2, 1, 0], [9, 4, 8, 3]], np.float32)
    whole = Predictions(
        logits, np.eye(4, dtype=np.float32)[labels] if soft else labels, "abc", tuple("wxyz")
    )
    found = whole.of_present_classes()
    assert found.classes == ("x", "z")
    np.testing.assert_array_equal(found.logits, logits[:, [1, 3]])
    assert (evaluate(whole).right, evaluate(found).right) == (0, 2)
