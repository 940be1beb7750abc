"""Where an example lies: what a person opens who is told that it cannot be read."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from imgclf.data import (
    TFDS,
    Digits,
    Folder,
    Images,
    Mixture,
    Parquet,
    Records,
    Relabelled,
    Source,
    Subset,
    Table,
    Tar,
)
from imgclf.data.parts import place_of

from ..conftest import encoded, write_tfds

EXAMPLES = [(encoded(i), i % 3) for i in range(12)]


@pytest.fixture
def folder(class_folders: Callable[..., Path]) -> Path:
    return class_folders("photos", ant=4, bee=3)


def bytes_at(source: Source, i: int) -> bytes:
    """The image of example i, read from where the source says it is."""
    file, offset = place_of(source, i)
    image = source.read(i)
    assert isinstance(image, bytes)
    return Path(file).read_bytes()[offset : offset + len(image)]


def test_files_are_named_and_images_in_tars_with_their_first_byte(folder, tmp_path):
    (folder / "table.csv").write_text("image,label\nant/2.png,ant\nbee/1.png,bee\n")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, (image, label) in enumerate(EXAMPLES):
            for name, data in ((f"{i}.png", image), (f"{i}.cls", b"%d" % label)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    single = Folder(str(folder)), Images(str(folder)), Table(str(folder / "table.csv"))
    for source in (*single, Tar(str(tmp_path / "a.tar"))):
        for i in range(len(source)):
            assert bytes_at(source, i) == source.read(i)
    assert place_of(single[2], 1) == (str(folder / "bee" / "1.png"), 0)


def test_records_are_counted_in_their_own_file(tmp_path):
    write_tfds(tmp_path / "1.0.0", {"train": [EXAMPLES[:5], EXAMPLES[5:]]})
    for source in (TFDS(str(tmp_path), "train"), Records(str(tmp_path / "1.0.0"))):
        shards = sorted(map(str, (tmp_path / "1.0.0").glob("*.array_record*")))
        places = [place_of(source, i) for i in range(12)]
        assert places == [(shards[0], i) for i in range(5)] + [(shards[1], i) for i in range(7)]
    part = TFDS(str(tmp_path), "train[3:7]")
    assert [place_of(part, i)[1] for i in range(4)] == [3, 4, 0, 1]


def test_parquet_tells_the_page(tmp_path):
    images = [image for image, _ in EXAMPLES]
    struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    rows = pyarrow.array([{"bytes": image, "path": ""} for image in images], struct)
    table = pyarrow.table({"image": rows, "label": [i % 3 for i in range(12)]})
    how = {"compression": "none", "use_dictionary": False, "row_group_size": 4}
    parquet.write_table(table, tmp_path / "a.parquet", **how)
    source, content = Parquet(str(tmp_path / "a.parquet")), (tmp_path / "a.parquet").read_bytes()
    offsets = [place_of(source, i)[1] for i in range(12)]
    assert len(set(offsets)) == 3 and offsets == sorted(offsets)
    for i, image in enumerate(images):
        after = next(offset for offset in (*offsets, len(content)) if offset > offsets[i])
        assert image in content[offsets[i] : after]


def test_sources_of_sources_say_what_theirs_do(folder):
    photos = Folder(str(folder))
    last = Subset(photos, names=("bee/2.png",))
    both = Mixture((Relabelled(photos, names={"bee": "wasp"}), last))
    assert place_of(both, 2) == place_of(photos, 2) != place_of(photos, 6)
    assert place_of(both, 7) == place_of(last, 0) == place_of(photos, 6)
    assert place_of(Subset(Digits(), first=3), 2) == ("", 0)
