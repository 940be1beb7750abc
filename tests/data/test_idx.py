"""IDX files give MNIST's images and labels; a damaged one says what is wrong with it."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from imgclf.data import Idx
from imgclf.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 5, 4), np.uint8)
LABELS = np.array([3, 0, 1, 2, 3, 1, 0], np.uint8)


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: Path, part: str = "train", ending: str = "", images=IMAGES, labels=LABELS) -> str:
    folder.mkdir(exist_ok=True)
    for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", labels)):
        data = idx(array)
        (folder / f"{name}-ubyte{ending}").write_bytes(gzip.compress(data) if ending else data)
    return str(folder)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_both_parts_are_read_plain_and_compressed(tmp_path, ending):
    path = write(tmp_path, "train", ending)
    write(tmp_path, "t10k", ending, IMAGES[:2], LABELS[1:3])
    train, test = Idx("train", path), Idx("test", path)
    assert (len(train), len(test)) == (7, 2)
    assert test.classes == train.classes == ("0", "1", "2", "3")
    assert train.labels().tolist() == LABELS.tolist() and train.labels().dtype == np.int32
    np.testing.assert_array_equal(train.read(6), IMAGES[6][..., None])
    assert test.ids() == ["test/0", "test/1"]


def test_one_of_several_sets_is_chosen_by_name(tmp_path):
    write(tmp_path, "emnist-letters-train")
    assert len(Idx("train", str(tmp_path))) == 7
    write(tmp_path, "emnist-digits-train", images=IMAGES[:2], labels=LABELS[:2])
    assert len(Idx("train", str(tmp_path), "emnist-digits")) == 2
    with pytest.raises(UserError, match=r"which set .* 'emnist-digits', 'emnist-letters'"):
        len(Idx("train", str(tmp_path)))
    with pytest.raises(UserError, match="'emnist-leters'; did you mean 'emnist-letters'"):
        len(Idx("train", str(tmp_path), "emnist-leters"))


def test_a_missing_set_says_where_it_is_to_be_had(tmp_path):
    with pytest.raises(UserError, match=r"no t10k-images-idx3-ubyte\[.gz\] .*curl -O 'https://"):
        len(Idx("test", write(tmp_path)))
    with pytest.raises(UserError, match="Unknown split of `Idx` 'val'"):
        len(Idx("val", str(tmp_path)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (idx(IMAGES)[:-1], r"shape \(7, 5, 4\) must have 156 bytes; .* has 155"),
        (idx(IMAGES) + b"1", "must have 156 bytes; .* has 157"),
        (b"\0\0\x08\x03\0\0", "begins with 0, 0, 8, 3"),
        (b"\x1f\x8b\x08\0" + bytes(20), "must begin with the bytes 0, 0, 8, 3"),
        (b"", "begins with nothing"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "must have 79,228,162,4"),
        (idx(IMAGES[:0]), "must hold images"),
        (idx(IMAGES[:6]), "6 images and .* 7 labels"),
    ],
)
def test_a_damaged_file_is_told_of_in_a_line(tmp_path, data, message):
    source = Idx("train", write(tmp_path))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        source.labels()
    assert "\n" not in str(caught.value)


def test_a_compressed_file_that_is_cut_off_is_told_of(tmp_path):
    source = Idx("train", write(tmp_path, ending=".gz"))
    file = tmp_path / "train-images-idx3-ubyte.gz"
    whole = file.read_bytes()
    for damaged in (whole[:-9], whole[:20], b"plain", whole[:40] + b"\xff" * 20 + whole[60:]):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cannot be read \(cut off\?\)"):
            len(source)
        source.__dict__.clear()
        source = Idx("train", str(tmp_path))
