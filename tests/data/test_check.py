"""Findings on images of which it is known what is wrong with them."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from imgclf.data import Digits, Folder, Source, Synthetic, findings, leaks, measure
from imgclf.data.check import as_json, total
from imgclf.errors import UserError

SIDE = 96


def photo(seed: int) -> Image.Image:
    """An image with large and small structure, which is neither blurred nor dark."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(30, 226, (6, 6, 3), np.uint8))
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
    noisy = smooth + rng.integers(-20, 21, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of twelve good JPEG files each."""
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / name).mkdir()
        for i in range(12):
            photo(100 * label + i).save(tmp_path / name / f"{i:02d}.jpg", quality=92)
    return tmp_path


def checked(path: Path) -> list[tuple[str, list[str]]]:
    found = findings(measure(Folder(str(path))))
    return [(each.kind, [part.ids[i] for part, i in each.images]) for each in found]


def test_good_images_give_no_findings(folder):
    assert checked(folder) == []


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


WRONG: dict[str, tuple[str, Callable[[Path], object]]] = {
    "no image": ("unreadable", lambda path: path.write_bytes(b"<html>404</html>")),
    "empty file": ("unreadable", lambda path: path.write_bytes(b"")),
    "half a file": ("truncated", cut),
    "PNG as .jpg": ("mistyped", lambda path: photo(999).save(path, "PNG")),
    "dark": ("dark", lambda path: photo(999).point(lambda v: v // 8).save(path)),
    "burnt out": ("over-exposed", lambda path: photo(999).point(lambda v: 205 + v // 2).save(path)),
    "one colour": ("near-empty", lambda path: Image.new("RGB", (SIDE, SIDE), "navy").save(path)),
    "blurred": (
        "blurred",
        lambda path: photo(999).filter(ImageFilter.GaussianBlur(6)).save(path, quality=95),
    ),
    "tiny": ("odd size", lambda path: photo(999).resize((20, 20)).save(path)),
    "long": ("odd size", lambda path: photo(999).resize((400, 90)).save(path)),
    "large": ("odd size", lambda path: photo(999).resize((700, 700), 0).save(path)),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_one_image_is_found_and_nothing_else(folder, wrong):
    kind, spoil = WRONG[wrong]
    spoil(folder / "bee" / "05.jpg")
    assert checked(folder) == [(kind, ["bee/05.jpg"])]


def test_a_png_without_its_last_block_is_cut_though_it_can_be_decoded(folder):
    photo(999).save(folder / "ant" / "x.png")
    content = (folder / "ant" / "x.png").read_bytes()
    (folder / "ant" / "x.png").write_bytes(content[:-6])
    (found,) = findings(measure(Folder(str(folder))))
    assert found.kind == "truncated" and "can be decoded all the same" in found.said


def test_copies_are_found_whole_near_and_under_another_label(folder):
    shutil.copy(folder / "ant" / "01.jpg", folder / "ant" / "copy.jpg")
    Image.open(folder / "ant" / "01.jpg").save(folder / "ant" / "pixels.png")
    Image.open(folder / "bee" / "02.jpg").resize((70, 70)).save(folder / "bee" / "small.png")
    Image.open(folder / "bee" / "02.jpg").save(folder / "bee" / "worse.jpg", quality=40)
    shutil.copy(folder / "ant" / "03.jpg", folder / "bee" / "other.jpg")
    found = checked(folder)
    assert found == [
        ("conflict", ["ant/03.jpg", "bee/other.jpg"]),
        ("duplicate", ["ant/01.jpg", "ant/copy.jpg", "ant/pixels.png"]),
        ("near-duplicate", ["bee/02.jpg", "bee/small.png", "bee/worse.jpg"]),
    ]


def test_a_leak_is_found_whole_and_near_and_copies_on_one_side_are_none(folder, tmp_path):
    other = tmp_path / "other"
    for name in ("ant", "bee"):
        (other / name).mkdir(parents=True)
        photo(500 + len(name)).save(other / name / "own.png")
    photo(700).save(other / "ant" / "twice.png")
    photo(700).save(other / "ant" / "twice2.png")
    shutil.copy(folder / "ant" / "04.jpg", other / "ant" / "same.jpg")
    Image.open(folder / "bee" / "07.jpg").save(other / "ant" / "near.jpg", quality=50)
    shutil.move(other, tmp_path.parent / f"{tmp_path.name}-other")
    other = tmp_path.parent / f"{tmp_path.name}-other"
    a, b = measure(Folder(str(folder)), "a"), measure(Folder(str(other)), "b")
    found = leaks(a, b)
    images = [[(part.name, part.ids[i]) for part, i in each.images] for each in found]
    assert [each.kind for each in found] == ["leak", "near leak"]
    assert images == [
        [("a", "ant/04.jpg"), ("b", "ant/same.jpg")],
        [("a", "bee/07.jpg"), ("b", "ant/near.jpg")],
    ]
    assert found[1].said.endswith("labelled ant, bee")
    assert total(found, "leak", b) == 1 and total(found, "duplicate", b) == 0


def test_threads_change_nothing_and_progress_ends_with_the_last(folder):
    told: list[int] = []
    one = measure(Folder(str(folder)), threads=1, progress=told.append)
    many = measure(Folder(str(folder)), threads=7)
    assert told[-1] == 24
    np.testing.assert_array_equal(one.rows, many.rows)
    assert one.rows.nbytes / len(one.rows) < 100


def test_small_grey_images_are_looked_at_without_false_copies():
    assert {finding.kind for finding in findings(measure(Digits("all")))} <= {"near-empty"}


def test_classes_are_counted_and_few_are_named(folder):
    for i in range(4):
        (folder / "bee" / f"{i:02d}.jpg").unlink()
    part = as_json([measure(Folder(str(folder)), "train")], [])["parts"]["train"]
    assert part["classes"] == {"ant": 12, "bee": 8}
    assert (part["least"], part["greatest"], part["fewer_than_10"]) == (8, 12, ["bee"])


class Soft(Source):
    """Two images with several labels each."""

    classes = ("a", "b", "c")

    def __len__(self):
        return 2

    def labels(self):
        return np.array([[1, 1, 0], [0.1, 0.9, 0]], np.float32)

    def ids(self):
        return ["x", "y"]

    def read(self, i):
        return Synthetic(n=2, size=40).read(i)


def test_soft_and_several_labels_are_counted_by_share_and_named():
    seen = measure(Soft())
    assert seen.counts() == {"a": 1.1, "b": 1.9, "c": 0}
    assert (seen.label(0), seen.label(1)) == ("a + b", "b")


def test_a_source_of_which_nothing_can_be_read_is_refused(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"No image of 'mine' can be read: ant/0\.jpg: not"):
        measure(Folder(str(tmp_path)), "mine")


def test_of_real_photographs_none_is_falsely_found_twice_and_copies_are_found(shared, tmp_path):
    path = shared / "data" / "imagenette" / "val"
    photographs = measure(Folder(str(path)), "val")
    kinds = [finding.kind for finding in findings(photographs)]
    assert not {"conflict", "duplicate", "near-duplicate", "unreadable", "truncated"} & set(kinds)
    assert len(kinds) <= 3
    for name in photographs.ids[::10]:  # thirty, encoded anew at half the size
        copy = tmp_path / name
        copy.parent.mkdir(exist_ok=True)
        with Image.open(path / name) as image:
            file = io.BytesIO()
            image.resize((80, 80)).save(file, "JPEG", quality=60)
        copy.write_bytes(file.getvalue())
    found = leaks(photographs, measure(Folder(str(tmp_path)), "copies"))
    assert len(found) >= 28
    assert all(len({part.ids[i] for part, i in each.images}) == 1 for each in found)


def test_what_a_persons_source_raises_says_for_which_image():
    class Own(Digits):
        def read(self, i):
            return super().read(i) if i != 3 else 1 / 0

    with pytest.raises(ZeroDivisionError) as caught:
        measure(Own())
    assert caught.value.__notes__ == ["raised for example 3 of 'data': digit0005"]
