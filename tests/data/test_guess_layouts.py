"""Layouts that downloads and people make are recognised, or refused with what to do about them."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from imgclf.data import Cifar, Folder, Idx, Parquet, Table
from imgclf.data.guess import guess
from imgclf.errors import UserError

STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def refused(path: Any, kind: str = "") -> str:
    with pytest.raises(UserError) as caught:
        guess(str(path), kind)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_parquet(file: Path, rows: int = 10, **labels: Any) -> None:
    """A file as Hugging Face has it; `labels`: a column with its rows, or None for images."""
    file.parent.mkdir(parents=True, exist_ok=True)
    images = pyarrow.array([{"bytes": b"%d" % i, "path": "x"} for i in range(rows)], STRUCT)
    columns = {name: images if value is None else value for name, value in labels.items()}
    parquet.write_table(pyarrow.table(columns), file)


@pytest.mark.parametrize(
    ("train", "held_out"),
    [("Train", "Val"), ("TRAIN", "TEST"), ("training", "testing"), ("Training", "Validation")],
)
def test_parts_are_known_in_any_case_and_by_their_usual_names(
    class_folders, tmp_path, train, held_out
):
    class_folders(train, ant=4, bee=2)
    class_folders(held_out, bee=2)
    found = guess(str(tmp_path))
    assert found.train == Folder(str(tmp_path / train)) and found.train.classes == ("ant", "bee")
    assert list(found.evaluate) == [held_out.lower()]
    assert found.evaluate[held_out.lower()].labels().tolist() == [1, 1]
    with pytest.raises(UserError, match=rf"holds .*: did you mean .*/{train}\?"):
        len(Folder(str(tmp_path)))


def test_tables_arrays_and_words_of_a_column_have_the_same_names_as_folders(tmp_path):
    rows = "path,label\na.png,cat\nb.png,ant\n"
    for name in ("Train.csv", "testing.csv"):
        (tmp_path / name).write_text(rows)
    found = guess(str(tmp_path))
    assert found.train == Table(str(tmp_path / "Train.csv"), "path")
    assert list(found.evaluate) == ["testing"]
    (tmp_path / "testing.csv").unlink()
    lines = zip(rows.splitlines(), ("split", "Training", "Test"), strict=True)
    (tmp_path / "Train.csv").write_text("\n".join(map(",".join, lines)))
    found = guess(str(tmp_path))
    assert (found.train.split, len(found.train)) == ("Training", 1)
    assert list(found.evaluate["test"].ids()) == ["b.png"]
    (tmp_path / "Train.csv").unlink()
    for name in ("Train", "TEST"):
        np.savez(tmp_path / name, images=np.zeros((2, 4, 4), np.uint8), labels=np.arange(2))
    assert list(guess(str(tmp_path)).evaluate) == ["test"]


def test_two_folders_of_one_meaning_are_refused(class_folders, tmp_path):
    for name in ("train", "training", "val"):
        class_folders(name, ant=2, bee=2)
    assert "called train or training; got train and training" in refused(tmp_path)


def test_a_class_may_be_called_train(class_folders):
    found = guess(str(class_folders("own", car=3, plane=3, train=3)))
    assert found.train.classes == ("car", "plane", "train")


def test_folders_of_class_folders_are_no_classes_unless_it_is_said(class_folders, tmp_path):
    for name in ("north", "south"):
        class_folders(name, ant=3, bee=3)
    said = refused(tmp_path)
    assert "north, south hold only folders, such as ant, bee: did you mean" in said
    assert f"{tmp_path}/north?" in said and "--kind folder" in said
    assert guess(str(tmp_path), "folder").train.classes == ("north", "south")
    (tmp_path / "north" / "ant" / "0.png").rename(tmp_path / "north" / "0.png")
    assert guess(str(tmp_path)).train.classes == ("north", "south")  # images at any depth


def test_one_folder_in_each_class_is_no_split(class_folders, tmp_path):
    for name in ("train/ant", "train/bee"):
        class_folders(name, images=5)
    assert guess(str(tmp_path)).train.classes == ("ant", "bee")


def test_a_table_beside_folders_of_images_is_not_passed_over(class_folders, tmp_path):
    class_folders(".", part_1=3, part_2=3)
    (tmp_path / "HAM_metadata.csv").write_text("lesion_id,image_id,dx\n1,0,nv\n")
    said = refused(tmp_path)
    assert "HAM_metadata.csv, with the columns lesion_id, image_id, dx: one must be" in said
    assert "Table('HAM_metadata.csv', image=COLUMN, label=COLUMN)" in said
    assert "if the folders are the classes, say --kind folder" in said
    assert guess(str(tmp_path), "folder").train.classes == ("part_1", "part_2")


def test_a_table_beside_folders_for_training_and_evaluation_is_passed_over(class_folders, tmp_path):
    class_folders("train", ant=2, bee=2)
    class_folders("val", ant=2, bee=2)
    (tmp_path / "noisy.csv").write_text("path,noisy_labels_0\ntrain/ant/0.png,bee\n")
    assert guess(str(tmp_path)).evaluate.keys() == {"val"}


FAULTS = {
    "wrong names": (
        "labels.csv",
        b"photo,species\nimages/0.png,ant\n",
        "labels.csv, with the columns photo, species: one must be called path, file, filename,",
    ),
    "another mark": (
        "labels.csv",
        b"path;label\nimages/0.png;ant\n",
        "separate its columns by commas; got ';'",
    ),
    "Latin-1": (
        "labels.csv",
        "path,label\nimages/0.png,Käfer\n".encode("latin-1"),
        "it must be UTF-8 (iconv -f latin1 -t utf-8",
    ),
    "empty": ("labels.csv", b"", "labels.csv, that is empty"),
    "damaged": ("labels.parquet", b"PAR1 and no more", "labels.parquet cannot be read"),
    "blanks": (
        "labels.csv",
        b"path, label\nimages/0.png, ant\n",
        "the columns path, ' label': one must be called",
    ),
    "no words": ("labels.jsonl", b"[1]\n", "line 1 must be a JSON object"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("kind", ["", "table"])
def test_what_is_wrong_with_a_table_beside_its_images_is_said(class_folders, tmp_path, fault, kind):
    class_folders("set", images=3)
    name, data, message = FAULTS[fault]
    (tmp_path / "set" / name).write_bytes(data)
    assert message in refused(tmp_path / "set", kind)
    assert message in refused(tmp_path / "set" / name, kind)


def test_a_table_of_numbers_for_paths_is_said_to_be_one(class_folders, tmp_path):
    class_folders("set", images=3)
    table = pyarrow.table({"path": [0, 1], "label": ["a", "b"]})
    parquet.write_table(table, tmp_path / "set" / "labels.parquet")
    assert "labels.parquet, whose column of paths holds" in refused(tmp_path / "set")


def test_of_several_tables_that_for_training_is_explained(class_folders, tmp_path):
    class_folders("set", train=3, test=3)
    (tmp_path / "set" / "sample.csv").write_text("id,breed\n1,2\n")
    (tmp_path / "set" / "train.csv").write_text("id,breed\n1,2\n")
    said = refused(tmp_path / "set")
    assert "train.csv, with the columns id, breed: one must be called" in said
    assert said.endswith("; nor is sample.csv a table of paths and labels")


def test_where_a_table_was_asked_for_and_none_is_there_what_is_there_is_said(
    class_folders, tmp_path
):
    class_folders("set", images=3)
    (tmp_path / "set" / "labels.xlsx").write_bytes(b"x")
    assert "got none, but images, labels.xlsx" in refused(tmp_path / "set", "table")


def test_a_table_in_parquet_at_a_url_is_found_in_its_folder(class_folders, tmp_path, server):
    class_folders("set", images=4)
    file = tmp_path / "set" / "labels.parquet"
    paths = [f"images/{i}.png" for i in range(4)]
    parquet.write_table(pyarrow.table({"path": paths, "label": ["a", "b"] * 2}), file)
    found = guess(f"{server.url}/set")
    assert found.train.source == Table(f"{server.url}/set/labels.parquet", "path")
    assert found.said == guess(str(tmp_path / "set")).said
    parquet.write_table(pyarrow.table({"photo": paths, "species": ["a", "b"] * 2}), file)
    assert "labels.parquet, with the columns photo, species" in refused(f"{server.url}/set")


def test_what_is_read_from_a_disk_alone_is_said_to_be_so_at_a_url(tmp_path, server):
    (tmp_path / "set").mkdir()
    np.savez(tmp_path / "set" / "d.npz", images=np.zeros((4, 4, 4), np.uint8), labels=np.arange(4))
    said = refused(f"{server.url}/set/d.npz")
    assert "must be class folders, a table" in said and "must be copied to a disk" in said
    assert "d.npz, which is of a kind that must be copied" in refused(f"{server.url}/set")
    assert "there is nothing at" in refused(f"{server.url}/set/e.npz")
    write_parquet(tmp_path / "hub" / "a.parquet", image=None, label=[0, 1] * 5)
    assert "images in Parquet are read from a disk alone" in refused(f"{server.url}/hub")


@pytest.mark.parametrize(
    ("columns", "image", "label"),
    [
        ({"image": None, "label": [0, 1] * 5}, "image", "label"),
        ({"img": None, "label": [0, 1] * 5}, "img", "label"),
        ({"img": None, "labels": [0, 1] * 5, "class": ["x"] * 10}, "img", "labels"),
        (
            {"id": [7] * 10, "photo": None, "fine_label": ["x", "y"] * 5},
            "photo",
            "fine_label",
        ),
    ],
)
def test_the_columns_of_parquet_images_are_found(tmp_path, columns, image, label):
    write_parquet(tmp_path / "train-0.parquet", **columns)
    write_parquet(tmp_path / "test-0.parquet", **columns)
    found = guess(str(tmp_path))
    assert found.train == Parquet(str(tmp_path / "train*.parquet"), image, label)
    assert found.train.labels().tolist() == [0, 1] * 5
    assert found.evaluate["test"].read(3) == b"3"


def test_columns_of_parquet_that_are_not_clear_are_said_with_what_works(tmp_path):
    file = tmp_path / "a.parquet"
    coarse = {"fine_label": [0, 1] * 5, "coarse_label": [1, 0] * 5}
    write_parquet(file, img=None, **coarse)
    said = refused(file)
    assert "must be for labels; got fine_label and coarse_label among img (struct), fine_" in said
    assert "write a recipe with Parquet(path, image=COLUMN, label=COLUMN)" in said
    write_parquet(file, left=None, right=None, label=[0, 1] * 5)
    assert "must be for images; got left and right among" in refused(file)
    write_parquet(file, img=None, caption=["a cat"] * 10)
    assert "must be for labels; got none among img (struct), caption (string)" in refused(file)


def test_a_hidden_label_in_parquet_is_said_to_be_one(tmp_path):
    write_parquet(tmp_path / "a.parquet", image=None, label=[0, -1] * 5)
    said = refused(tmp_path)
    assert "must be 0 or more; got -1, which often stands for labels that are not" in said
    assert "a.parquet/1 in " in said
    write_parquet(tmp_path / "a.parquet", image=None, label=[-1] * 10)
    assert "must be 0 or more; got -1" in refused(tmp_path)


def test_what_lies_one_or_two_folders_down_is_found_and_said(tmp_path, cifar, class_folders):
    for part in ("train", "validation"):
        write_parquet(tmp_path / f"hub/data/{part}-0-of-1.parquet", image=None, label=[0, 1] * 5)
    (tmp_path / "hub" / "README.md").write_text("hello")
    found = guess(str(tmp_path / "hub"))
    assert isinstance(found.train, Parquet) and list(found.evaluate) == ["validation"]
    assert found.said.startswith("hub/data: Parquet images (2 classes, 10 images)")

    shutil.copytree(cifar, tmp_path / "c" / cifar.name)
    found = guess(str(tmp_path / "c"))
    assert found.train == Cifar("train", str(tmp_path / "c" / cifar.name))
    assert found.said.startswith("c/cifar-10-batches-bin: CIFAR's binary files")

    raw = tmp_path / "m" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 10), ("t10k", 4)):
        images = bytes([0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(n * 6)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(images)
        labels = bytes([0, 0, 8, 1, 0, 0, 0, n]) + bytes(i % 2 for i in range(n))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    for kind in ("", "idx"):
        found = guess(str(tmp_path / "m"), kind)
        assert found.train == Idx("train", str(raw)) and found.said.startswith("m/MNIST/raw: IDX")
    shutil.copytree(tmp_path / "m" / "MNIST", tmp_path / "m" / "FashionMNIST")
    said = refused(tmp_path / "m")
    assert f"did you mean {tmp_path}/m/FashionMNIST/raw or {raw}?" in said


def test_class_folders_below_are_taken_where_they_can_be_no_class(class_folders, tmp_path):
    for part in ("train", "val"):
        class_folders(f"d/data/{part}", ant=2, bee=2)
    assert guess(str(tmp_path / "d")).said.startswith("d/data: class folders (2 classes, 4 images)")
    (tmp_path / "d" / "notes").mkdir()
    assert guess(str(tmp_path / "d")).train == Folder(str(tmp_path / "d/data/train"))
    (tmp_path / "d" / "data").rename(tmp_path / "d" / "photos")
    assert f"did you mean {tmp_path}/d/photos?" in refused(tmp_path / "d")
    (tmp_path / "d" / "notes" / "labels.csv").write_text("path,label\na,x\nb,y\n" * 9)
    assert f"did you mean {tmp_path}/d/notes or {tmp_path}/d/photos?" in refused(tmp_path / "d")
    shutil.rmtree(tmp_path / "d" / "notes")
    assert guess(str(tmp_path / "d")).said.startswith("d/photos: class folders")
    (tmp_path / "d" / "about.jsonl").write_text(json.dumps({"name": "ants"}))
    assert "if the folders below are the classes, say --kind folder" in refused(tmp_path / "d")
    assert guess(str(tmp_path / "d"), "folder").said.startswith("d/photos: class folders")


def test_parts_that_hold_images_without_classes_are_said_to_be_such(class_folders, tmp_path):
    class_folders(".", train=3, val=3)
    assert "images that nothing says the classes of" in refused(tmp_path)


def test_a_part_without_labels_beside_others_is_said_to_be_left_alone(class_folders, tmp_path):
    class_folders("d/train", ant=4, bee=4)
    class_folders("d", test=3)
    said = guess(str(tmp_path / "d")).said
    assert said.startswith("d: 80 %") and said.endswith("test/ left alone, without class folders")


@pytest.mark.parametrize("rows", ["ant/0.png,0,1\nbee/1.png,1,0\n", "x,ant,1\ny,bee,2\n"])
def test_a_table_that_names_the_class_folders_does_not_stand_in_their_way(
    class_folders, tmp_path, rows
):
    folder = class_folders("d", ant=4, bee=4)
    (folder / "about.csv").write_text("place,what,number\n" + rows)
    assert guess(str(tmp_path / "d")).said.startswith("d: 80 % of class folders (2 classes")
    (folder / "about.csv").write_text("place,what,number\n" + rows + "no,wasp,3\n")
    assert "--kind folder" in refused(tmp_path / "d")
