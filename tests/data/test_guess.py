import numpy as np
import pytest

from imgclf.data import TFDS, Arrays, Cifar, Folder, Records, Split
from imgclf.data.guess import guess
from imgclf.errors import UserError


@pytest.mark.parametrize("held_out", ["val", "valid", "validation", "test"])
def test_train_and_held_out_folders_are_taken_as_they_are(class_folders, tmp_path, held_out):
    class_folders("train", ant=4, bee=2)
    class_folders(held_out, bee=2)
    found = guess(str(tmp_path))
    assert isinstance(found.train, Folder)
    assert list(found.evaluate) == [held_out]
    assert found.evaluate[held_out].labels().tolist() == [1, 1]
    assert found.said == (
        f"{tmp_path.name}: class folders (2 classes, 6 images) for training, {held_out} (2) "
        "for evaluation"
    )


@pytest.mark.parametrize("name", ["insects", "train"])
def test_class_folders_without_held_out_ones_are_split(class_folders, tmp_path, name):
    path = class_folders(name, ant=10, bee=5)
    found = guess(str(tmp_path if name == "train" else path), seed=3)
    assert isinstance(found.train, Split) and found.train.seed == 3
    assert len(found.train) == 12
    assert set(found.train.ids()).isdisjoint(found.evaluate["test"].ids())
    assert "80 % of class folders (2 classes, 12 images) for training, the rest (3)" in found.said


def test_cifar_files_are_recognised_with_and_without_their_test_part(cifar):
    assert guess(str(cifar)).evaluate == {"test": Cifar("test", str(cifar))}
    (cifar / "test_batch.bin").unlink()
    assert len(guess(str(cifar)).evaluate["test"]) == 6


def test_arrays_are_recognised_as_one_file_or_as_two(tmp_path):
    arrays = {"images": np.zeros((10, 4, 4), np.uint8), "labels": np.arange(10) % 2}
    np.savez(tmp_path / "train.npz", **arrays)
    for path in (tmp_path, tmp_path / "train.npz"):
        assert len(guess(str(path)).train) == 8
    np.savez(tmp_path / "test.npz", **arrays)
    found = guess(str(tmp_path))
    assert isinstance(found.train, Arrays) and len(found.train) == 10
    assert found.evaluate == {"test": Arrays(str(tmp_path / "test.npz"))}
    (tmp_path / "train.npz").rename(tmp_path / "other.npz")
    with pytest.raises(UserError, match=r"must hold a single \.npz file, or train\.npz and one of"):
        guess(str(tmp_path))


def test_a_tfds_data_set_is_recognised_by_name_and_by_version(insects):
    for path in (insects, insects / "1.0.0"):
        found = guess(str(path))
        assert isinstance(found.train, TFDS)
        assert found.evaluate == {"test": TFDS(str(path), "test")}


def test_shards_are_recognised_and_split(shards):
    found = guess(str(shards))
    assert isinstance(found.train, Split) and isinstance(found.train.source, Records)
    assert (len(found.train), len(found.evaluate["test"])) == (10, 2)


def test_what_is_not_there_not_recognised_or_ambiguous_is_said(class_folders, tmp_path):
    with pytest.raises(UserError, match=r"there is nothing at .*nowhere"):
        guess(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="it holds none of them"):
        guess(str(tmp_path / "empty"))
    path = class_folders("both", ant=4, bee=6)
    np.savez(path / "other.npz", a=np.zeros(1))
    with pytest.raises(UserError, match=r"more than one: folder, arrays \(name the kind\)"):
        guess(str(path))
    assert len(guess(str(path), "folder").train) == 8
    with pytest.raises(UserError, match="Unknown kind of data 'foldr'; did you mean 'folder'"):
        guess(str(path), "foldr")
