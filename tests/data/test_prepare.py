"""Data sets that `imgclf data prepare` wrote: what is in them, and who reads them."""

import io
import json
import sys

import numpy as np
import pytest
import tensorflow_datasets
from PIL import Image

from imgclf.data import TFDS, Arrays, Folder, prepare, writing
from imgclf.data.decode import decode
from imgclf.data.order import Order
from imgclf.data.prepared_shard import encoded
from imgclf.errors import UserError


@pytest.fixture
def photos(class_folders):
    """12 images for training and 4 for validation, of two classes."""
    class_folders("photos/val", ant=2, bee=2)
    return class_folders("photos/train", ant=7, bee=5).parent


def picture(height, width, kind="JPEG", orientation=1):
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows * 4, columns * 6, (rows + columns) * 2], axis=2).astype(np.uint8)
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


def written(out, source, **options):
    job = prepare.plan({"train": source}, out, **options)
    writing.write(job, range(job.total))
    return prepare.finish(job)


def test_every_image_comes_back_with_its_bytes_label_and_name(imgclf, photos, tmp_path):
    ended = imgclf("data", "prepare", str(photos), "out/1.2.3", "--shards", "3", "--workers", "1")
    assert ended.status == 0, ended.err
    assert "photos: class folders (2 classes, 12 images) for training, val (4)" in ended.out
    assert "4 shards (train 3, val 1), 4 of 4 to be made" in ended.out
    for split, n in (("train", 12), ("val", 4)):
        folder, found = Folder(str(photos / split)), TFDS(str(tmp_path / "out"), split)
        places = [folder.ids().index(name) for name in found.ids()]
        assert sorted(places) == list(range(n)) and places == Order(n, 0).ids(range(n)).tolist()
        assert found.classes == folder.classes
        assert found.labels().tolist() == folder.labels()[places].tolist()
        assert [found.read(i) for i in range(n)] == [folder.read(i) for i in places]


def test_tfds_itself_reads_what_was_written(photos, tmp_path):
    folder = Folder(str(photos / "train"))
    written(tmp_path / "flowers" / "1.0.0", folder, shards=2)
    builder = tensorflow_datasets.builder_from_directory(tmp_path / "flowers" / "1.0.0")
    assert builder.info.full_name == "flowers/1.0.0"
    assert builder.info.features["label"].names == ["ant", "bee"]
    assert builder.info.splits["train"].num_examples == 12
    for example in builder.as_data_source("train"):
        i = folder.ids().index(example["id"].decode())
        assert example["label"] == folder.labels()[i]
        np.testing.assert_array_equal(example["image"], decode(folder.read(i)))


@pytest.mark.parametrize("soft", [False, True])
def test_arrays_become_png_files_of_one_shape_and_keep_soft_labels(tmp_path, soft):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 5, 7, 1), np.uint8)
    labels = rng.random((6, 3), np.float32) if soft else np.arange(6) % 3
    np.savez(tmp_path / "a.npz", images=images, labels=labels, classes=np.array(["x", "y", "z"]))
    written(tmp_path / "out", Arrays(str(tmp_path / "a.npz")))
    found = TFDS(str(tmp_path / "out"))
    places = Order(6, 0).ids(np.arange(6))
    assert found.classes == ("x", "y", "z")
    np.testing.assert_array_equal(found.labels(), labels[places])
    pixels = [decode(found.read(i))[..., :1] for i in range(6)]
    np.testing.assert_array_equal(pixels, images[places])
    builder = tensorflow_datasets.builder_from_directory(tmp_path / "out")
    assert builder.info.features["image"].shape == (5, 7, 1)


def test_only_greater_images_are_scaled_and_those_upright():
    small = picture(30, 20, orientation=6)
    assert encoded(small, 20, 92) == small and encoded(small, 0, 92) == small
    assert encoded(picture(30, 20, "PNG"), 20, 92) == picture(30, 20, "PNG")
    great = picture(60, 41, orientation=6)
    whole = Image.fromarray(decode(great))
    wanted = np.asarray(whole.resize((29, 20), Image.Resampling.BICUBIC)).astype(float)
    coarse, fine = (decode(encoded(great, 20, quality)) for quality in (10, 95))
    assert fine.shape == (20, 29, 3)
    assert np.abs(fine - wanted).mean() < 2 < np.abs(coarse - wanted).mean()
    assert decode(encoded(great, 20, 92, exif=False)).shape == (29, 20, 3)


def test_images_that_cannot_be_read_are_left_out_listed_and_said(imgclf, photos, tmp_path):
    (photos / "train" / "ant" / "1.png").write_bytes(b"no image")
    cut = photos / "train" / "bee" / "2.png"
    cut.write_bytes(cut.read_bytes()[:60])
    ended = imgclf("data", "prepare", str(photos), "out", "--workers", "1", "--shards", "2")
    assert ended.status == 0 and "14 images" in ended.out
    assert "2 images could not be read and are left out; out/manifest.json lists them" in ended.err
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    listed = [each for file in manifest["splits"]["train"] for each in file["left_out"]]
    assert {each["id"] for each in listed} == {"ant/1.png", "bee/2.png"}
    assert any("not an image of a known format" in each["reason"] for each in listed)
    assert manifest["left_out"] == 2 and manifest["examples"] == 14
    train = TFDS(str(tmp_path / "out"))
    assert len(train) == 10 and not {"ant/1.png", "bee/2.png"} & set(train.ids())


def test_the_number_of_shards_follows_from_the_size_of_the_images(photos, tmp_path, monkeypatch):
    folder = Folder(str(photos / "train"))
    size = sum(len(folder.read(i)) for i in range(len(folder)))
    monkeypatch.setattr(prepare, "_SHARD_BYTES", size // 3)
    job = prepare.plan({"train": folder, "val": Folder(str(photos / "val"))}, tmp_path / "out")
    assert [split.shards for split in job.splits] == [3, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "was begun with the size 0, not 4"),
        ({"seed": 1}, "was begun with the seed 0, not 1"),
        ({"shards": 3}, "was begun with 2 shards of 'train', not 3"),
        ({"size": 4, "exif": False}, "was begun with the exif True, not False"),
        ({"exif": False}, "Without a `size` no image is changed"),
        ({"quality": 0}, "`quality` must be 1 to 100; got 0"),
        ({"shards": 13}, "no more than the 12 examples of 'train'"),
    ],
)
def test_other_options_than_the_folders_are_refused(photos, tmp_path, options, message):
    folder = Folder(str(photos / "train"))
    written(tmp_path / "out", folder, shards=2)
    before = {
        file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.is_file()
    }
    with pytest.raises(UserError, match=message):
        prepare.plan({"train": folder}, tmp_path / "out", **({"shards": 2} | options))
    assert before == {
        file.name: file.read_bytes() for file in (tmp_path / "out").iterdir() if file.is_file()
    }


def test_a_folder_of_images_as_they_lie_takes_none_that_are_turned(imgclf, refused, photos):
    words = ("data", "prepare", str(photos), "out", "--size", "20", "--workers", "1")
    assert imgclf(*words, "--exif", "False").status == 0
    assert "was begun with the exif False, not True" in refused(*words)


def test_a_source_that_changed_is_refused(photos, tmp_path):
    written(tmp_path / "out", Folder(str(photos / "train")))
    image = photos / "train" / "ant" / "3.png"
    image.write_bytes(image.read_bytes() + b"\0")
    with pytest.raises(UserError, match="begun from other images or labels of 'train'"):
        written(tmp_path / "out", Folder(str(photos / "train")))
    image.unlink()
    with pytest.raises(UserError, match="begun with 12 examples of 'train', not 11"):
        written(tmp_path / "out", Folder(str(photos / "train")))


def test_a_folder_with_something_else_in_it_is_refused(refused, photos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    line = refused("data", "prepare", str(photos), "mine")
    assert "must be an empty folder" in line and "thesis.txt" in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "takes a source and a folder to write; got x"),
        (["photos", "photos/out"], "must lie outside the source; got photos/out"),
        (["photos", "out", "--sise", "3"], "did you mean '--size'?"),
        (["photos", "out", "--size", "big"], "`--size` must be a whole number; got 'big'"),
        (["photos", "out", "--shards", "2", "--shard-range", "1:9"], "among the 3 shards"),
        (["photos", "out", "--exif", "no"], "`--exif` must be True or False; got 'no'"),
        (["--verify", "photos"], "has no manifest.json"),
    ],
)
def test_a_mistaken_command_is_answered_in_one_line(refused, photos, words, message):
    assert message in refused("data", "prepare", *words)


def test_training_takes_a_prepared_folder_by_one_argument(imgclf, photos, tmp_path):
    imgclf("data", "prepare", str(photos), "out", "--workers", "1", "--size", "6")
    words = ["--run", "run", "--quiet", "--length", "2steps", "--schedule.warmup", "1steps"]
    words += ["--data.batch_size", "4", "--data.workers", "0", "--log.tensorboard", "False"]
    words += ["--model.options.width", "4", "--model.preprocess.size", "8"]
    ended = imgclf("train", "digits", "--data.train", "out", *words)
    assert ended.status == 0, ended.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 2 and 0 <= result["accuracy"] <= 1


def test_an_unfinished_folder_is_not_trained_on(refused, imgclf, photos):
    imgclf(
        "data",
        "prepare",
        str(photos),
        "out",
        "--shards",
        "2",
        "--shard-range",
        "0:1",
        "--workers",
        "1",
    )
    line = refused("train", "imagenette", "--data.train", "out")
    assert "is not whole yet; the `imgclf data prepare` that began it" in line


def test_verify_names_a_shard_with_a_flipped_bit(imgclf, photos, tmp_path):
    imgclf("data", "prepare", str(photos), "out", "--workers", "1", "--shards", "2")
    ended = imgclf("data", "prepare", "--verify", "out")
    assert (ended.status, ended.out) == (0, "3 shards, each as it was written\n")
    shard = tmp_path / "out" / "out-train.array_record-00001-of-00002"
    for position in (20, 40_000, shard.stat().st_size - 1):
        whole = shard.read_bytes()
        raw = bytearray(whole)
        raw[position] ^= 1
        shard.write_bytes(raw)
        ended = imgclf("data", "prepare", "out", "--verify")
        assert ended.out == f"{shard.name} is damaged: its checksum is not that of the manifest\n"
        assert ended.status == 2 and "1 of 3 shards of out are not as they were" in ended.err
        shard.write_bytes(whole)
    shard.unlink()
    assert f"{shard.name} cannot be read" in imgclf("data", "prepare", "--verify", "out").out


def test_beam_makes_the_same_bytes(imgclf, photos, tmp_path):
    pytest.importorskip("apache_beam", reason="Apache Beam is not installed: imgclf[beam]")
    words = ["data", "prepare", str(photos), "out", "--shards", "3"]
    imgclf(*words, "--workers", "1")
    (tmp_path / "out").rename(tmp_path / "ours")
    ended = imgclf(*words, "--runner", "DirectRunner")
    assert ended.status == 0, ended.err
    for file in (tmp_path / "ours").rglob("*.*"):
        theirs = tmp_path / "out" / file.relative_to(tmp_path / "ours")
        assert theirs.read_bytes() == file.read_bytes()


def test_a_runner_without_beam_says_how_to_get_it(refused, photos, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    line = refused("data", "prepare", str(photos), "out", "--runner", "DirectRunner")
    assert "needs Apache Beam; get it by: pip install 'imgclf[beam]'" in line
