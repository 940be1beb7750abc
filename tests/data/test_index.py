"""The index of a large source is found once, noticed to be old, and shared by processes."""

import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest

from imgclf.data import Folder, Split, Table, folder, index
from imgclf.data.index_cache import cache_folder
from imgclf.errors import UserError

BENCHMARK = Path(__file__).parent.parent.parent / "benchmarks" / "open_index.py"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "LARGE", 4)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The class folders that were looked through."""
    walked: list[str] = []
    images = folder._images

    def noted(root: Path, name: str, times: dict[str, int]) -> list[str]:
        walked.append(name)
        return images(root, name, times)

    monkeypatch.setattr(folder, "_images", noted)
    return walked


def settle(root: Path) -> None:
    """As if nothing had changed for a minute."""
    then = time.time_ns() - 60 * 10**9
    for each in (root, *(path for path in root.rglob("*") if path.is_dir())):
        os.utime(each, ns=(then, then))


@pytest.mark.usefixtures("small_is_large")
def test_a_folder_is_walked_once_and_again_when_a_file_comes_or_goes(class_folders, walks):
    root = class_folders("photos", ant=3, bee=2)
    (root / "ant" / "deep").mkdir()
    settle(root)
    first, second = Folder(str(root)), Folder(str(root))
    assert len(first) == len(second) == 5 and walks == ["ant", "bee"]
    assert second.ids() == first.ids() and second.classes == ("ant", "bee")
    assert second.labels().tolist() == [0, 0, 0, 1, 1]
    assert second.read(4) == (root / "bee" / "1.png").read_bytes()
    (root / "ant" / "deep" / "new.png").write_bytes(b"1")
    assert "ant/deep/new.png" in Folder(str(root)).ids()
    (root / "bee" / "0.png").unlink()
    assert "bee/0.png" not in Folder(str(root)).ids()
    assert len(Folder(str(root), class_names=("bee", "ant", "cat")).classes) == 3


@pytest.mark.usefixtures("small_is_large")
def test_a_folder_that_is_being_written_to_is_not_kept(class_folders, walks):
    root = class_folders("photos", ant=3, bee=2)
    future = time.time_ns() + 60 * 10**9
    os.utime(root / "ant", ns=(future, future))
    for _ in range(2):
        len(Folder(str(root)))
    assert walks == ["ant", "bee"] * 2


def test_a_small_source_touches_no_cache(class_folders, tmp_path):
    root = class_folders("photos", ant=3, bee=2)
    settle(root)
    (root / "t.csv").write_text("image,label\na,x\nb,y\n")
    assert len(Folder(str(root))) == 5 and len(Table(str(root / "t.csv"))) == 2
    assert not cache_folder().exists()


@pytest.mark.usefixtures("small_is_large")
def test_a_table_is_read_again_when_it_has_changed(tmp_path):
    file = tmp_path / "t.csv"
    for names in ("abcd", "abcdef"):
        file.write_text("image,label\n" + "".join(f"{name},{name}\n" for name in names))
        assert list(Table(str(file)).ids()) == list(Table(str(file)).ids()) == list(names)


@pytest.mark.usefixtures("small_is_large")
def test_a_kept_index_that_lacks_a_part_is_made_anew(class_folders, walks):
    root = class_folders("photos", ant=3, bee=2)
    settle(root)
    for name in ("labels", "times", "digest"):
        assert len(Folder(str(root))) == 5
        (file,) = cache_folder().glob(f"indices/*/{name}.npy")
        file.unlink()
        walks.clear()
        source = Folder(str(root))
        assert source.labels().tolist() == [0, 0, 0, 1, 1] and walks == ["ant", "bee"]


@pytest.mark.usefixtures("small_is_large")
def test_what_is_kept_is_pickled_as_where_it_lies_and_its_loss_is_said(class_folders):
    root = class_folders("photos", ant=12, bee=12)
    settle(root)
    source = Split(Folder(str(root)))
    ids = list(source.ids())
    for attempt in ("just made", "mapped"):
        pickled = pickle.dumps(source.source)
        assert b"ant/0.png" not in pickled, attempt
        assert pickle.loads(pickled).ids() == source.source.ids()
        source = Split(Folder(str(root)))
        assert list(source.ids()) == ids
    (root / "ant" / "0.png").unlink()
    settle(root)
    other = time.time_ns() - 30 * 10**9
    os.utime(root / "ant", ns=(other, other))
    assert len(Folder(str(root))) == 23
    with pytest.raises(UserError, match=r"^Folder .*photos has changed since it was opened"):
        pickle.loads(pickled)
    copy = pickle.loads(pickle.dumps(source))
    assert list(copy.ids()) == ids  # what is no longer kept takes itself along


def test_a_link_back_is_not_followed_and_others_are(class_folders, tmp_path):
    root = class_folders("photos", ant=1, bee=1)
    (root / "ant" / "up").symlink_to("..")
    (root / "ant" / "self").symlink_to("self")
    (root / "bee" / "same").symlink_to(".")
    (root / "bee" / "gone.png").symlink_to("nowhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(b"1")
    (root / "bee" / "there").symlink_to(tmp_path / "elsewhere")
    assert Folder(str(root)).ids() == [
        "ant/0.png", "ant/up/bee/0.png", "ant/up/bee/gone.png", "ant/up/bee/there/x.png",
        "bee/0.png", "bee/gone.png", "bee/there/x.png",
    ]  # fmt: skip


@pytest.mark.slow  # some 20 s, most of it for the first opening
def test_three_million_examples_open_again_in_less_than_300_mb(tmp_path):
    output = tmp_path / "opened.json"
    words = ["--kinds", "csv", "--again", "1", "--output", str(output)]
    subprocess.run([sys.executable, str(BENCHMARK), *words], check=True, timeout=600)
    first, again = json.loads(output.read_text())["openings"]
    assert first["opened"] == "first" and again["opened"] == "again"
    assert again["peak_mb_with_split_and_order"] < 300


def test_the_benchmark_says_what_it_measured(tmp_path):
    output = tmp_path / "opened.json"
    words = ["--kinds", "csv", "--again", "1", "--examples", "12000"]
    command = [sys.executable, str(BENCHMARK), *words, "--output", str(output)]
    subprocess.run(command, check=True, timeout=600, stdout=subprocess.PIPE)
    openings = json.loads(output.read_text())["openings"]
    assert [each["opened"] for each in openings] == ["first", "again"]
    assert all(each["seconds"] >= 0 and each["peak_mb"] > 0 for each in openings)
