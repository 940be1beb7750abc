"""What lies at a URL is read as it is on disk, kept in bounds, and no lost server ends a run."""

import io
import json
import pickle
import tarfile
from pathlib import Path

import pytest

from imgclf.data import Folder, Source, Split, Table, Tar, evaluation_batches, located
from imgclf.data.guess import guess, whole
from imgclf.data.index_cache import cache_folder
from imgclf.errors import UserError
from imgclf.preprocess import Preprocess


def content(source: Source) -> tuple:
    reads = [source.read(i) for i in range(len(source))]
    return list(source.ids()), source.labels().tolist(), source.classes, reads


def copies() -> list[Path]:
    return [file for file in (cache_folder() / "remote").rglob("*") if file.is_file()]


def write_tar(file: Path, examples) -> None:
    with tarfile.open(file, "w") as tar:
        for i, (image, label) in enumerate(examples):
            for name, data in ((f"{i:03d}.png", image), (f"{i:03d}.cls", b"%d" % label)):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def photos(class_folders, examples) -> Path:
    root = class_folders("photos", ant=3, bee=2)
    (root / "ü & co").mkdir()
    for name in ("ü & co/a b%20#?.png", "bee/.hidden.png", "bee/deep/er/+1.PNG", "bee/note.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(examples[7][0])
    return root


def test_a_folder_is_read_as_on_disk_and_asked_for_once(server, photos):
    source = Folder(f"{server.url}/photos/")
    copy = pickle.loads(pickle.dumps(source))
    assert content(source) == content(Folder(str(photos)))
    assert source.ids()[5:] == ["bee/deep/er/+1.PNG", "ü & co/a b%20#?.png"]
    assert sum(each.startswith("GET") for each in server.asked) <= 6 * 2 + len(source)
    server.asked.clear()
    assert content(source) == content(Folder(str(photos)))
    pickled = pickle.loads(pickle.dumps(source))
    assert content(pickled) == content(source) and server.asked == []
    assert content(copy) == content(source)
    with pytest.raises(UserError, match=r"must be a folder; http://.*/none lists no files"):
        len(Folder(f"{server.url}/none"))
    (photos / "cat").mkdir()
    with pytest.raises(UserError, match=r"photos/cat holds none"):
        len(Folder(f"{server.url}/photos"))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_table_is_read_as_on_disk_and_anew_when_it_has_changed(server, photos, suffix):
    rows = [("ant/0.png", "ant"), ("ü & co/a b%20#?.png", "other")]
    file = photos / f"t.{suffix}"

    def write() -> None:
        if suffix == "csv":
            file.write_text("\n".join(f"{a},{b}" for a, b in [("image", "label"), *rows]))
        elif suffix == "jsonl":
            file.write_text("\n".join(json.dumps({"image": a, "label": b}) for a, b in rows))
        else:
            import pyarrow
            from pyarrow import parquet

            columns = {"image": [a for a, _ in rows], "label": [b for _, b in rows]}
            parquet.write_table(pyarrow.table(columns), file)

    for _ in range(2):
        write()
        source = Table(f"{server.url}/photos/{file.name}")
        assert content(source) == content(Table(str(file)))
        rows.append(("bee/1.png", "bee"))
    near = photos.parent / "near.csv"
    urls = "\n".join(f"{server.url}/photos/{each}.png,{each[:3]}" for each in ("ant/0", "bee/1"))
    near.write_text(f"image,label\n{urls}\n")
    assert Table(str(near)).read(1) == (photos / "bee/1.png").read_bytes()
    with pytest.raises(UserError, match=r"http://.*/photos/u\.csv is not there"):
        len(Table(f"{server.url}/photos/u.csv"))


def test_tars_are_read_by_parts_and_never_copied(server, tmp_path, examples):
    (tmp_path / "tars").mkdir()
    for number, some in enumerate((examples[:5], examples[5:9])):
        write_tar(tmp_path / "tars" / f"t-{number:02d}.tar", some)
    (tmp_path / "tars" / "labels.txt").write_text("x\ny\nz\n")
    for path in ("tars", "tars/t-{00..01}.tar", "tars/t-*.tar"):
        source = Tar(f"{server.url}/{path}")
        assert content(source) == content(Tar(str(tmp_path / path)))
    server.asked.clear()
    worker = pickle.loads(pickle.dumps(source))
    assert content(worker) == content(source) and server.asked == []
    sizes = {file.stat().st_size - 4 for file in copies()}
    assert sizes == {len(image) for image, _ in examples[:9]} | {len("x\ny\nz\n")}
    server.has_parts = False
    (tmp_path / "tars" / "t-00.tar").touch()
    with pytest.raises(UserError, match=r"must be able to read .*gives no parts of a file"):
        len(Tar(f"{server.url}/tars/t-00.tar"))
    with pytest.raises(UserError, match=r"nothing at http://.*/tars/t-02\.tar"):
        len(Tar(f"{server.url}/tars/t-{{00..02}}.tar"))


def test_a_failing_request_is_made_again_and_then_an_error_that_names_the_url(server, photos):
    source = Folder(f"{server.url}/photos")
    server.failing = 2
    assert len(source) == 7 and server.failing == 0
    server.failing = 2
    assert source.read(0) == (photos / "ant/0.png").read_bytes()
    server.asked.clear()
    server.failing = 3
    with pytest.raises(OSError, match=r"http://.*/photos/ant/1.png cannot be read: 503"):
        source.read(1)
    assert server.asked == ["GET /photos/ant/1.png"] * 3
    (photos / "ant/2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"nothing at http://.*/photos/ant/2.png"):
        source.read(2)
    assert server.asked[3:] == ["GET /photos/ant/2.png"]


def test_a_transfer_that_is_cut_off_leaves_no_file(server, photos, tmp_path, examples):
    write_tar(tmp_path / "t.tar", examples)
    folder, tar = Folder(f"{server.url}/photos"), Tar(f"{server.url}/t.tar")
    assert (len(folder), len(tar)) == (7, 16) and copies() == []
    for source in (folder, tar):
        server.cuts = 3
        with pytest.raises(OSError, match=r"http://.* cannot be read: "):
            source.read(0)
        assert server.cuts == 0 and copies() == []
    server.cuts = 2
    assert folder.read(0) == (photos / "ant/0.png").read_bytes()


def test_a_lost_server_makes_bad_records_but_of_what_is_in_the_cache(server, photos):
    source = Folder(f"{server.url}/photos")
    assert len({source.read(0), source.read(1)}) == 2
    server.go_away()
    with evaluation_batches(source, batch_size=7, preprocess=Preprocess(size=8)) as batches:
        (batch,) = batches
    assert batch["mask"].tolist() == [True, True] + [False] * 5
    assert [problem.id for problem in batch["problems"]] == [2, 3, 4, 5, 6]
    assert "/photos/ant/2.png cannot be read" in batch["problems"][0].reason
    for lost in (Folder, Table, Tar):
        with pytest.raises(UserError, match=r"http://.* cannot be read"):
            len(lost(f"{server.url}/{'a.csv' if lost is Table else 'photos'}"))


def test_what_is_at_a_url_is_guessed_as_on_disk(server, photos, class_folders, tmp_path, examples):
    class_folders("both/train", ant=4, bee=2)
    class_folders("both/val", bee=2)
    write_tar(tmp_path / "t.tar", examples)
    rows = "both/val/bee/0.png,x\nphotos/ant/1.png,y\n" * 3
    (tmp_path / "labels.csv").write_text("path,label\n" + rows)
    for path in ("photos", "both", "t.tar", "labels.csv"):
        here, there = guess(str(tmp_path / path)), guess(f"{server.url}/{path}")
        assert there.said == here.said and list(there.evaluate) == list(here.evaluate)
        assert list(there.train.ids()) == list(here.train.ids())
        train = there.train.source if isinstance(there.train, Split) else there.train
        assert located(train, "root").path.startswith(server.url)
    assert whole(f"{server.url}/both")[1] == whole(str(tmp_path / "both"))[1]
    with pytest.raises(UserError, match=r"there is nothing at http://.*/none"):
        guess(f"{server.url}/none")
    with pytest.raises(UserError, match=r"must be of a kind folder, table, tar; got 'idx'"):
        guess(f"{server.url}/photos", "idx")
    with pytest.raises(UserError, match=r"or \*\.tar files; it holds images that nothing"):
        guess(f"{server.url}/both/val/bee")
    with pytest.raises(UserError, match="pip install 'imgclf"):
        guess("nothing-speaks-this://photos")


def test_training_by_a_url_on_the_command_line(server, class_folders, imgclf, tmp_path):
    class_folders("photos", ant=10, bee=10)
    words = "--length 2steps --schedule.warmup 0steps --data.batch_size 8 --data.workers 1"
    words += " --model.dtype float32 --model.network cnn --model.preprocess.size 8 --run run"
    url = f"{server.url}/photos"
    ended = imgclf("train", "imagenette", "--data.train", url, *words.split())
    assert ended.status == 0, ended.err
    assert "photos: 80 % of class folders (2 classes, 16 images)" in ended.out
    assert url in json.loads((tmp_path / "run/overrides.json").read_text())["overrides"]
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 2
    assert not (tmp_path / "run/bad_records.jsonl").exists()
    assert imgclf("data", "check", url).status == 0
