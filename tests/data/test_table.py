"""Tables say which image has which label; what is wrong with a row is said with its number."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from imgclf.data import Table
from imgclf.errors import UserError

ROWS = [("a/0.png", "cat"), ("a/1.png", "ant"), ("ü, 2.png", "cat")]


def write(file: Path, rows: list[tuple], names: tuple[str, ...] = ("image", "label")) -> str:
    """The rows as a table of the kind that the name of the file says."""
    if file.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        file.write_text("\n".join([*lines, ""]), encoding="utf-8")
    elif file.suffix == ".parquet":
        columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
    else:
        between = "\t" if file.suffix == ".tsv" else ","
        cells = [names, *(tuple(f'"{each}"' for each in row) for row in rows)]
        file.write_text("\n".join(map(between.join, cells)), encoding="utf-8-sig")
    return str(file)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_every_kind_of_table_gives_paths_labels_and_other_columns(tmp_path, examples, suffix):
    rows = [(*row, f"group {i % 2}") for i, row in enumerate(ROWS)]
    source = Table(write(tmp_path / f"t.{suffix}", rows, ("image", "label", "group")))
    assert source.ids() == [path for path, _ in ROWS]
    assert source.classes == ("ant", "cat")
    assert source.labels().tolist() == [1, 0, 1] and source.labels().dtype == np.int32
    assert list(source.column("group")) == ["group 0", "group 1", "group 0"]
    (tmp_path / "ü, 2.png").write_bytes(examples[0][0])
    assert source.read(2) == examples[0][0]
    with pytest.raises(FileNotFoundError):  # a bad record, found when it is read
        source.read(0)
    with pytest.raises(UserError, match=r"Unknown column of .* 'grop'; did you mean 'group'"):
        source.column("grop")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_whole_numbers_are_the_places_of_classes(tmp_path, suffix):
    path = write(tmp_path / f"t.{suffix}", [("a", 0), ("b", 10), ("c", 2)])
    assert Table(path).labels().tolist() == [0, 10, 2]
    assert Table(path).classes == tuple(map(str, range(11)))
    named = Table(path, class_names=tuple("abcdefghijk"))
    assert named.labels().tolist() == [0, 10, 2] and named.classes[10] == "k"
    assert Table(path, class_names=("10", "2", "0")).labels().tolist() == [2, 0, 1]


def test_given_classes_keep_their_order_and_refuse_another_name(tmp_path):
    path = write(tmp_path / "t.csv", ROWS)
    assert Table(path, class_names=("dog", "cat", "ant")).labels().tolist() == [1, 2, 1]
    with pytest.raises(UserError, match=r"the 2 classes .*; got 'cat' \(is it 'cats'\?\)"):
        len(Table(path, class_names=("cats", "ant")))


def test_several_labels_of_an_image_are_ones_among_zeros(tmp_path):
    expected = [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    joined = write(tmp_path / "t.csv", [("a", "cat; ant"), ("b", ""), ("c", "dog")])
    lists = [("a", ["cat", "ant"]), ("b", []), ("c", ["dog"])]
    for source in (
        Table(joined, separator=";"),
        Table(write(tmp_path / "t.jsonl", lists)),
        Table(write(tmp_path / "t.parquet", lists)),
    ):
        assert source.classes == ("ant", "cat", "dog")
        assert source.labels().tolist() == expected and source.labels().dtype == np.float32


def test_a_split_takes_its_rows_and_the_classes_of_all(tmp_path):
    rows = [("a", "cat", "train"), ("b", "ant", "val"), ("c", "bee", "train")]
    path = write(tmp_path / "t.csv", rows, ("image", "label", "part"))
    train = Table(path, split="train", split_column="part")
    assert (list(train.ids()), train.labels().tolist()) == (["a", "c"], [2, 1])
    assert train.classes == ("ant", "bee", "cat")
    assert list(train.column("label")) == ["cat", "bee"]
    with pytest.raises(UserError, match=r"Unknown split of .* 'vall'; did you mean 'val'"):
        len(Table(path, split="vall", split_column="part"))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "image,label\na,x\nb,\n", r"`label` must be a name .*; got '' \(.*t.csv, line 3"),
        ("t.csv", "image,label\n,x\n", r"`image` must be the path .*; got '' \(.*line 2"),
        ("t.csv", "image,label\na,x\n\nb\n", r"each of the 2 columns; .*t.csv, line 4 has 1"),
        ("t.csv", "imag,label\na,x\n", "Unknown column of .* 'image'; did you mean 'imag'"),
        ("t.csv", "image,label\na,x\n", "two classes or more; got only 'x'"),
        ("t.csv", "image,label\n", "must have a row for each image"),
        ("t.csv", "", "must have columns; it is empty"),
        ("t.csv", "image,label\na,0\nb,-1", r"must lie in 0\.\.0, .*got -1"),
        ("t.csv", "image,label\na,0\nb,20260101", "20260101: are they names"),
        ("t.csv", "image,label\na,10\nb,1o", "all numbers or all names; got '10' and '1o'"),
        ("t.csv", b"image,label\na,\xff\n", r"t.csv cannot be read \(line"),
        ("t.jsonl", '{"image": "a", "label": "x"}\n{"image":', r"cannot be read \(line 2\)"),
        ("t.jsonl", '{"image": "a", "label": "x"}\n[1]', "line 2 must be a JSON object"),
        ("t.jsonl", '{"image": "a", "label": "None"}\n{"image": "b"}', "got None .*line 2"),
        ("t.jsonl", '{"image": "a", "label": 0.5}', "whole number; got 0.5 .*line 1"),
        ("t.jsonl", '{"image": "a", "label": ["x"]}\n{"image": "b", "label": "y"}', "or none .*2"),
        ("t.jsonl", '{"image": "a", "label": true}', "whole number; got True .*line 1"),
        ("t.jsonl", '{"image": "a", "label": "x"}\n{"image": "\\ud800", "label": "y"}', "path .*2"),
        ("t.jsonl", '{"image": "a", "label": ' + "9" * 5000 + "}", r"cannot be read \(line 1\)"),
        ("t.jsonl", '{"image": 7, "label": "x"}', "path of an image; got 7"),
        ("t.parquet", "PAR1 and no more", "t.parquet cannot be read"),
        ("t.txt", "image,label\n", "must be a file that ends in .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_the_row(tmp_path, name, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as caught:
        len(Table(str(tmp_path / name)))
    assert "\n" not in str(caught.value)
