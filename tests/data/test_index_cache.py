"""An index is made once, and again when what it describes, or its own file, has changed."""

import os
from pathlib import Path

import numpy as np
import pytest

from imgclf.data.index_cache import cache_folder, kept, looked_up, stamp_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Made:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.times += 1
        return {"numbers": np.arange(5) * self.times, "none": np.zeros((0, 2), np.uint8)}


def test_it_is_made_once_for_a_stamp_and_anew_for_another() -> None:
    made = Made()
    for stamp, times in (("a", 1), ("a", 1), ("b", 2), ("b", 2), ("a", 3)):
        found = kept("data", stamp, made)
        assert made.times == times
        assert found["numbers"].tolist() == [0, times, 2 * times, 3 * times, 4 * times]
        assert found["none"].shape == (0, 2)
    kept("other data", "a", made)
    assert made.times == 4


def test_it_is_made_anew_when_it_holds_no_more_and_kept_only_if_it_is_worth_it() -> None:
    made = Made()
    for _ in range(2):
        kept("data", "a", made, worth=lambda arrays: len(arrays["none"]) > 0)
    assert made.times == 2 and looked_up("data", "a") is None
    for holds, times in ((True, 3), (True, 3), (False, 4), (True, 4)):
        kept("data", "a", made, holds=lambda arrays, now=holds: now)  # type: ignore[misc]
        assert made.times == times
    found = looked_up("data", "a")
    assert found is not None and found["numbers"][1] == 4
    assert looked_up("data", "b") is None


def test_a_damaged_one_is_made_anew() -> None:
    made = Made()
    kept("data", "a", made)
    (file,) = cache_folder().glob("indices/*/numbers.npy")
    file.write_bytes(file.read_bytes()[:-3])
    assert kept("data", "a", made)["numbers"].tolist() == [0, 2, 4, 6, 8]
    assert kept("data", "a", made)["numbers"].tolist() == [0, 2, 4, 6, 8]


def test_it_is_made_each_time_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder would be")
    made = Made()
    assert [kept("data", "a", made)["numbers"][1] for _ in range(2)] == [1, 2]


def test_a_stamp_changes_with_size_time_and_path(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for file in (one, two):
        file.write_text("same")
        os.utime(file, ns=(10, 10))
    before = stamp_of(one)
    assert before == stamp_of(str(one)) != stamp_of(two)
    os.utime(one, ns=(10, 11))
    assert before != stamp_of(one)
    one.write_text("longer")
    os.utime(one, ns=(10, 10))
    assert before != stamp_of(one)
