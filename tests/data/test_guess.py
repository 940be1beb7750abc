import io
import itertools
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from imgclf.data import KINDS, TFDS, Arrays, Cifar, Folder, Idx, Parquet, Records, Split, Table, Tar
from imgclf.data.guess import _KINDS, guess, whole
from imgclf.errors import UserError

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


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
    held_out = Arrays(str(tmp_path / "test.npz"), class_names=("0", "1"))
    assert found.evaluate == {"test": held_out}
    (tmp_path / "train.npz").rename(tmp_path / "other.npz")
    with pytest.raises(UserError, match=r"must hold a single \.npz file, or train\.npz and one of"):
        guess(str(tmp_path))


def _write_tar(file, labels):
    with tarfile.open(file, "w") as tar:
        for i, label in enumerate(labels):
            for ending, content in (("png", b"1"), ("cls", label.encode())):
                member = tarfile.TarInfo(f"{i}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _write_parquet(file, labels):
    parquet.write_table(pyarrow.table({"image": [b"1"] * len(labels), "label": labels}), file)


def _write_npz(file, labels):
    images = np.zeros((len(labels), 4, 4), np.uint8)
    np.savez(file, images=images, labels=np.array(labels, int))


KINDS_OF_LABELS = [
    ("a.tar", _write_tar, ["bee", "ant"]),
    ("a.tar", _write_tar, ["1", "0"]),
    ("a.tar", _write_tar, ["1"]),
    ("a.parquet", _write_parquet, ["bee", "ant"]),
    ("a.parquet", _write_parquet, [1, 0]),
]


@pytest.mark.parametrize(("name", "write", "labels"), KINDS_OF_LABELS)
def test_labels_take_their_places_among_known_classes_that_do_not_all_occur(
    tmp_path, name, write, labels
):
    write(tmp_path / name, labels)
    classes = ("ant", "bee", "cat")
    source, _ = whole(str(tmp_path / name), classes=classes)
    assert source.classes == classes
    assert [str(label) for label in labels] in (
        [classes[label] for label in source.labels()],
        [str(label) for label in source.labels()],
    )


def test_a_list_beside_the_files_says_what_numbers_mean_whatever_is_known(tmp_path):
    (tmp_path / "set").mkdir()
    _write_tar(tmp_path / "set" / "a.tar", ["1", "0"])
    _write_parquet(tmp_path / "set" / "a.parquet", [1, 0])
    (tmp_path / "set" / "labels.txt").write_text("bee\nant\n")
    for kind in ("tar", "parquet"):
        source, _ = whole(str(tmp_path / "set"), kind, classes=("ant", "bee"))
        assert [source.classes[label] for label in source.labels()] == ["ant", "bee"]


def test_a_folder_with_the_signs_of_a_pattern_in_its_name_is_a_folder(tmp_path, shards):
    odd = tmp_path / "sets [1]*?"
    for kind, write in (("tar", _write_tar), ("parquet", _write_parquet)):
        (odd / kind).mkdir(parents=True)
        for part in ("train", "test-0"):
            write(odd / kind / f"{part}.{kind}", ["ant", "bee"])
        found = guess(str(odd / kind))
        assert len(found.train) == len(found.evaluate["test"]) == 2
    assert len(Tar(str(odd / "tar" / "t*.tar"))) == 4
    shards.rename(odd / "records")
    assert len(Records(str(odd / "records"))) == 12
    assert len(Records(str(odd / "records" / "*-of-00002"))) == 12
    assert len(Tar(str(tmp_path / "*" / "tar" / "train.tar"))) == 2


def test_held_out_arrays_need_not_have_every_class(tmp_path):
    _write_npz(tmp_path / "train.npz", [0, 1, 2])
    _write_npz(tmp_path / "test.npz", [1, 0])
    found = guess(str(tmp_path))
    assert found.evaluate["test"].classes == found.train.classes == ("0", "1", "2")


def test_a_tfds_data_set_is_recognised_by_name_and_by_version(insects):
    for path in (insects, insects / "1.0.0"):
        found = guess(str(path))
        assert isinstance(found.train, TFDS)
        assert found.evaluate == {"test": TFDS(str(path), "test")}


def test_shards_are_recognised_and_split(shards):
    found = guess(str(shards))
    assert isinstance(found.train, Split) and isinstance(found.train.source, Records)
    assert (len(found.train), len(found.evaluate["test"])) == (10, 2)


ROWS = "path,label\na/0.png,cat\na/1.png,ant\nb/2.png,cat\nb/3.png,ant\nb/4.png,ant\n"


def test_a_table_is_recognised_by_its_columns_in_a_folder_and_as_a_file(tmp_path, class_folders):
    class_folders(".", images=3)  # where a table's images lie is no class
    (tmp_path / "about.csv").write_text("name,licence\nants,free\n")
    file = tmp_path / "labels.csv"
    for header, image, label in (
        ("Path,LABEL", "Path", "LABEL"),
        ("x,file,target", "file", "target"),
    ):
        extra = (
            ROWS.splitlines()[1:]
            if image == "Path"
            else [f"x,{line}" for line in ROWS.splitlines()[1:]]
        )
        file.write_text("\n".join([header, *extra]))
        for path in (tmp_path, file):
            found = guess(str(path))
            assert found.train.source == Table(str(file), image, label)
            assert (len(found.train), len(found.evaluate["test"])) == (4, 1)
            assert f"the table labels.csv, columns {image!r} and {label!r} (2" in found.said


def test_a_column_or_a_second_table_says_what_is_held_out(tmp_path):
    file = tmp_path / "a.csv"
    parts = ("Split", "train", "train", "valid", "train", "valid")
    file.write_text("\n".join(map(",".join, zip(ROWS.splitlines(), parts, strict=True))))
    found = guess(str(file))
    assert list(found.train.ids()) == ["a/0.png", "a/1.png", "b/3.png"]
    assert found.evaluate["valid"].labels().tolist() == [1, 0]
    assert len(whole(str(file))[0]) == 2
    file.write_text(file.read_text().replace("valid", "held-out"))
    with pytest.raises(UserError, match=r"'Split' of .* must have the words train, .*'held-out'"):
        guess(str(file))

    file.rename(tmp_path / "train.csv")
    (tmp_path / "train.csv").write_text(ROWS)
    (tmp_path / "test.jsonl").write_text('{"path": "x.png", "label": "cat"}\n')
    found = guess(str(tmp_path))
    assert len(found.train) == 5 and found.train.classes == ("ant", "cat")
    assert found.evaluate["test"].labels().tolist() == [1]
    assert whole(str(tmp_path), classes=("x", "ant", "cat"))[0].labels().tolist() == [2]
    (tmp_path / "train.csv").rename(tmp_path / "other.csv")
    with pytest.raises(UserError, match=r"a single table .*; got other\.csv, test\.jsonl"):
        guess(str(tmp_path))


def test_idx_files_are_recognised_with_and_without_their_test_part(idx_files):
    found = guess(str(idx_files))
    assert found.train == Idx("train", str(idx_files))
    assert found.evaluate == {"test": Idx("test", str(idx_files))}
    for file in idx_files.glob("t10k*"):
        file.unlink()
    assert len(guess(str(idx_files)).evaluate["test"]) == 2


def test_images_that_nothing_says_the_classes_of_are_said_to_be_such(tmp_path):
    (tmp_path / "a.png").write_bytes(b"1")
    with pytest.raises(UserError, match=r"a folder for each class, or a table labels.csv beside"):
        guess(str(tmp_path))
    (tmp_path / "t.csv").write_text("x,label\na.png,cat\n")
    with pytest.raises(
        UserError, match=r"t\.csv, with the columns x, label: one must be called path"
    ):
        guess(str(tmp_path))
    (tmp_path / "t.jsonl").write_text("{")
    (tmp_path / "t.csv").unlink()
    with pytest.raises(UserError, match=r"t\.jsonl cannot be read"):
        guess(str(tmp_path))


@pytest.fixture
def idx_files(tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    for part, n in (("train", 10), ("t10k", 4)):
        images = bytes([0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(n * 6)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = bytes([0, 0, 8, 1, 0, 0, 0, n]) + bytes(i % 2 for i in range(n))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    return folder


@pytest.fixture
def there(request, tmp_path, class_folders, cifar, shards, insects, idx_files):
    """For a word of each row of the README's table: what lies there, and what it is taken for."""
    for name in ("both", "parts", "one", "two", "tars", "pages"):
        (tmp_path / name).mkdir()
    for name in ("train-0.tar", "val-0.tar"):
        with tarfile.open(tmp_path / "tars" / name, "w") as tar:
            for i, ending in itertools.product(range(2), ("cls", "png")):
                member = tarfile.TarInfo(f"{i}.{ending}")
                member.size = 1
                tar.addfile(member, io.BytesIO(b"%d" % i))
    rows = {"image": [b"1"] * 10, "label": ["ant", "bee"] * 5}
    parquet.write_table(pyarrow.table(rows), tmp_path / "pages" / "a.parquet")
    class_folders("both/train", ant=2, bee=2)
    class_folders("both/val", ant=1, bee=1)
    (tmp_path / "one" / "labels.csv").write_text(ROWS)
    for name in ("train.csv", "val.csv"):
        (tmp_path / "two" / name).write_text(ROWS)
    arrays = {"images": np.zeros((10, 4, 4), np.uint8), "labels": np.arange(10) % 2}
    np.savez(tmp_path / "parts" / "train.npz", **arrays)
    return {
        "`train/` and `val/`": (tmp_path / "both", Folder, "folder", False),
        "one folder per class": (class_folders("own", ant=5, bee=5), Folder, "folder", True),
        "one `.csv`": (tmp_path / "one", Table, "table", True),
        "`train.csv` and": (tmp_path / "two", Table, "table", False),
        "`data_batch_*.bin`": (cifar, Cifar, "cifar", False),
        "`train-images-idx3": (idx_files, Idx, "idx", False),
        "one `.npz`": (tmp_path / "parts", Arrays, "arrays", True),
        "`dataset_info.json`": (insects, TFDS, "tfds", False),
        "`*.array_record*`": (shards, Records, "records", True),
        "`*.tar`": (tmp_path / "tars", Tar, "tar", False),
        "`*.parquet` with a column": (tmp_path / "pages", Parquet, "parquet", True),
    }


def test_the_readmes_table_is_true_row_by_row(there):
    table = README.split("| at PATH | is taken as |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [row.removeprefix("| ") for row in table.splitlines()]
    assert len(rows) == len(there)
    for row, (begins, (path, source, kind, is_split)) in zip(rows, there.items(), strict=True):
        assert row.startswith(begins)
        for found in (guess(str(path)), guess(str(path), kind)):
            assert isinstance(found.train, Split) == is_split, row
            assert isinstance(found.train.source if is_split else found.train, source), row
            assert found.said.startswith(f"{path.name}: ") and len(found.evaluate) == 1
    assert {kind for _, _, kind, _ in there.values()} == set(KINDS)
    assert tuple(_KINDS) == KINDS
    assert re.findall(r"`--kind ([a-z]+\|[a-z|]+)`", README) == ["|".join(KINDS)]


def test_what_is_two_things_is_said_to_be_both_and_how_to_name_each(there, class_folders):
    for name, kind in (("own", "folder"), ("cifar-10-batches-bin", "cifar"), ("mnist", "idx")):
        (path,) = [path for path, _, _, _ in there.values() if path.name == name]
        (path / "labels.csv").write_text(ROWS)
        with pytest.raises(UserError) as caught:
            guess(str(path))
        first, second = sorted((kind, "table"), key=KINDS.index)
        said = str(caught.value)
        assert f"{name} holds more than one: {first}, {second} (name the kind): --kind" in said
        assert f"--kind {kind} for " in said and "--kind table for a table" in said
        assert isinstance(guess(str(path), "table").train.source, Table)


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
