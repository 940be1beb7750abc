"""Parquet images are read one by one, as pyarrow reads them all, however the file was written."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from imgclf.data import Parquet
from imgclf.data import parquet as room
from imgclf.data.guess import guess
from imgclf.errors import UserError

STRUCT = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(count: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [rng.bytes(int(n)) for n in rng.integers(0, 3000, count)]


def write(file: Path, rows: list[Any], labels: list[Any], named: str = "", **how: Any) -> Path:
    struct = [row if row is None else {"bytes": row, "path": "x"} for row in rows]
    table = pyarrow.table({"image": pyarrow.array(struct, STRUCT), "label": labels})
    if named:
        features = {
            "info": {"features": {"label": {"names": named.split(), "_type": "ClassLabel"}}}
        }
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    parquet.write_table(table, file, **how)
    return file


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("use_dictionary", [False, True])
def test_every_row_is_what_pyarrow_reads(tmp_path, compression, version, use_dictionary):
    expected: list[bytes | None] = [*images(300), *images(40)]  # some twice, for the dictionary
    expected[5], expected[77] = None, None
    how = {"row_group_size": 130, "data_page_size": 20_000, "dictionary_pagesize_limit": 100_000}
    how |= {"compression": compression, "data_page_version": version}
    how["use_dictionary"] = use_dictionary
    file = write(tmp_path / "a.parquet", expected, [i % 3 for i in range(340)], **how)
    source = pickle.loads(pickle.dumps(Parquet(str(file))))
    for i in np.random.default_rng(1).permutation(340).tolist():
        if expected[i] is None:
            with pytest.raises(OSError, match=rf"a\.parquet/{i} is null"):
                source.read(i)
        else:
            assert source.read(i) == expected[i]


def test_a_large_page_is_decompressed_once_and_then_read_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_LARGE", 1000)
    expected = [*images(50), None]
    file = write(tmp_path / "a.parquet", expected, [i % 2 for i in range(51)])
    assert Parquet(str(file)).read(0) == expected[0]
    monkeypatch.setattr(room, "values", None)
    source = Parquet(str(file))
    assert [source.read(i) for i in range(50)] == expected[:50]
    with pytest.raises(OSError, match="50 is null"):
        source.read(50)


def test_shards_with_class_labels_plain_columns_and_names_are_read(tmp_path):
    write(tmp_path / "train-0.parquet", images(3), [0, 1, 1], "ant bee cat")
    write(tmp_path / "train-1.parquet", images(2), [1, 0], "ant bee cat")
    source = Parquet(str(tmp_path / "train-*.parquet"))
    assert source.classes == ("ant", "bee", "cat") and source.labels().tolist() == [0, 1, 1, 1, 0]
    assert source.ids()[3] == "train-1.parquet/0"
    assert [source.read(i) for i in range(5)] == images(3) + images(2)
    for kind in (pyarrow.binary(), pyarrow.large_binary()):
        table = {"img": pyarrow.array(images(4), kind), "kind": ["b", "a", "b", "c"]}
        parquet.write_table(pyarrow.table(table), tmp_path / "plain.parquet")
        plain = Parquet(str(tmp_path / "plain.parquet"), image="img", label="kind")
        assert plain.classes == ("a", "b", "c") and plain.labels().tolist() == [1, 0, 1, 2]
        assert [plain.read(i) for i in range(4)] == images(4)


def test_what_does_not_fit_is_said(tmp_path):
    file = write(tmp_path / "a.parquet", images(3), [0, 1, None])
    with pytest.raises(UserError, match="whole numbers or names; got None in row 2"):
        len(Parquet(str(file)))
    with pytest.raises(UserError, match=r"Unknown column in .* 'lable'; did you mean 'label'"):
        len(Parquet(str(file), label="lable"))
    file = write(tmp_path / "a.parquet", images(3), [0, 1, 2], "ant bee")
    with pytest.raises(UserError, match=r"must lie in 0\.\.1.*got 2"):
        len(Parquet(str(file)))
    with pytest.raises(UserError, match=r"column 'label' of .* must hold .*; got int64"):
        len(Parquet(str(file), image="label"))


def test_a_damaged_file_is_refused_or_fails_in_single_rows_with_an_oserror(tmp_path):
    rows = images(60)
    how = {"row_group_size": 25, "data_page_size": 4000}
    whole = write(tmp_path / "a.parquet", rows, [i % 2 for i in range(60)], **how).read_bytes()
    refused = failed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        if seed % 10 == 0:
            del data[int(rng.integers(len(data))) :]
        else:
            for at in rng.integers(len(data), size=40):
                data[at] = int(rng.integers(256))
        file = tmp_path / f"{seed}.parquet"
        file.write_bytes(data)
        source = Parquet(str(file))
        try:
            assert len(source) == 60, seed
        except UserError:
            refused += 1
            continue
        for i in range(60):
            try:
                assert isinstance(source.read(i), bytes)
            except OSError:
                failed += 1
    assert refused > 20 and failed > 20


def test_only_what_holds_images_counts_as_their_column():
    schema = pyarrow.schema({"image": STRUCT, "path": pyarrow.string(), "raw": pyarrow.binary()})
    assert room.image_columns(schema) == ["image", "raw"]


def test_files_with_images_are_recognised_and_tables_of_paths_are_not(tmp_path):
    write(tmp_path / "train-0.parquet", images(4), [0, 1, 0, 1])
    write(tmp_path / "test-0.parquet", images(2), [1, 0])
    found = guess(str(tmp_path))
    assert found.train == Parquet(str(tmp_path / "train*.parquet"))
    assert found.evaluate["test"].labels().tolist() == [1, 0]
    parquet.write_table(pyarrow.table({"path": ["a"], "label": [0]}), tmp_path / "t.parquet")
    assert not room.has_parquet_images(tmp_path / "t.parquet")
