"""TFDS data sets and ArrayRecord shards, written by hand and read without TensorFlow."""

import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from imgclf.data import TFDS, Records
from imgclf.data import examples as package_examples
from imgclf.errors import UserError

from ..conftest import write_records


def test_a_prepared_data_set_gives_its_bytes_labels_and_class_names(insects, examples):
    train, test = TFDS(str(insects)), TFDS(str(insects), "test")
    assert (len(train), len(test)) == (12, 4)
    assert train.classes == ("ant", "bee", "cat")
    assert train.labels().dtype == np.int32
    assert train.labels().tolist() == [label for _, label in examples[:12]]
    assert [train.read(i) for i in range(12)] == [image for image, _ in examples[:12]]
    assert test.read(0) == examples[12][0]
    assert test.ids() == ["test/0", "test/1", "test/2", "test/3"]
    assert TFDS(str(insects), "train[:50%]").ids() == [f"train[:50%]/{i}" for i in range(6)]


def test_the_newest_version_is_taken_by_number_not_by_name(insects):
    for version in ("9.0.0", "10.0.0"):
        shutil.copytree(insects / "1.0.0", insects / version)
        info = insects / version / "dataset_info.json"
        info.write_text(info.read_text().replace("1.0.0", version))
    (insects / "10.0.0" / "label.labels.txt").write_text("x\ny\nz\n")
    assert TFDS(str(insects)).classes == ("x", "y", "z")


def test_a_worker_does_not_read_every_record_again_for_the_labels(insects):
    source = TFDS(str(insects))
    labels = source.labels()
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source and copy.read(3) == source.read(3)
    for shard in insects.glob("*/*.array_record*"):
        shard.unlink()
    assert copy.labels().tolist() == labels.tolist()


def test_neither_tensorflow_nor_jax_is_imported(insects):
    code = (
        "import sys; from imgclf.data import TFDS; s = TFDS(sys.argv[1]); s.labels(); s.read(0);"
        "assert not {'tensorflow', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(insects)], check=True)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"split": "trian"}, "Unknown split of `TFDS` 'trian'; did you mean 'train'"),
        ({"split": "train[:x]"}, "cannot read 'train"),
        ({"image": "imag"}, "did you mean 'image'"),
        ({"image": "label"}, "must be of kind Image; got ClassLabel"),
        ({"label": "image"}, "must be of kind ClassLabel; got Image"),
    ],
)
def test_a_wrong_split_or_feature_name_is_said(insects, fields, message):
    with pytest.raises(UserError, match=message):
        TFDS(str(insects), **fields).labels()


def test_a_folder_without_a_data_set_is_said(insects, tmp_path):
    with pytest.raises(UserError, match=r"must be a folder with dataset_info\.json"):
        len(TFDS(str(tmp_path / "nowhere")))
    (tmp_path / "many").mkdir()
    insects.rename(tmp_path / "many" / "small")
    with pytest.raises(UserError, match="it has the configurations small: name one"):
        len(TFDS(str(tmp_path / "many")))


def test_a_data_set_prepared_in_another_format_says_how_to_prepare_it(insects):
    info = insects / "1.0.0" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="prepare it again with file_format='array_record'"):
        len(TFDS(str(insects)))


def test_a_damaged_description_is_said(insects):
    (insects / "1.0.0" / "dataset_info.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read") as caught:
        len(TFDS(str(insects)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 65536, 131000])
def test_a_truncated_shard_is_an_error_for_the_labels_and_an_oserror_for_one_record(insects, kept):
    shard = insects / "1.0.0" / "insects-train.array_record-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:kept])
    source = TFDS(str(insects))
    with pytest.raises(UserError, match="cannot read 'train'"):
        source.labels()
    with pytest.raises(OSError, match="record 8"):
        source.read(8)
    assert source.read(0)


def test_records_give_their_bytes_and_labels(shards, examples):
    for path in (shards, shards / "a.array_record-*"):
        source = Records(str(path))
        assert source.classes == ("0", "1", "2")
        assert source.labels().tolist() == [label for _, label in examples[:12]]
        assert [source.read(i) for i in range(12)] == [image for image, _ in examples[:12]]
        assert pickle.loads(pickle.dumps(source)).read(5) == examples[5][0]


def test_records_take_class_names_from_the_file_beside_them(shards):
    (shards / "labels.txt").write_text("ant\nbee\ncat\n\n")
    assert Records(str(shards)).classes == ("ant", "bee", "cat")
    (shards / "labels.txt").write_text("ant\nbee\n")
    with pytest.raises(UserError, match=r"must lie in 0\.\.1, the places of its classes; got 2"):
        Records(str(shards)).labels()


def test_a_number_that_is_not_whole_is_no_label_of_a_record(tmp_path):
    for name, labels in (("whole", (1.0, 0.0)), ("half", (0.0, 1.7)), ("none", (1.0, np.nan))):
        (tmp_path / name).mkdir()
        write_records(tmp_path / name / "a.array_record", [(b"1", label) for label in labels])
    assert Records(str(tmp_path / "whole")).labels().tolist() == [1, 0]
    for name, said in (("half", "1.7"), ("none", "nan")):
        with pytest.raises(UserError, match=f"`label` of `Records` must be a whole .*got {said} "):
            Records(str(tmp_path / name)).labels()


def test_records_say_what_is_wrong_with_them(shards, tmp_path):
    with pytest.raises(UserError, match="nothing fits"):
        len(Records(str(tmp_path / "nowhere")))
    with pytest.raises(
        UserError, match=r"Unknown feature in the records of .*did you mean 'label'"
    ):
        Records(str(shards), label="labels").labels()
    with pytest.raises(UserError, match="must be a number"):
        Records(str(shards), label="image").labels()
    shard = shards / "a.array_record-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:65536])
    with pytest.raises(UserError, match="must be given whole ArrayRecord files"):
        len(Records(str(shards)))


def flip_a_bit_of(shard, image):
    """Damages the shard where the encoded `image` lies in it."""
    raw = bytearray(shard.read_bytes())
    raw[raw.index(image) + len(image) // 2] ^= 4
    shard.write_bytes(raw)


def write_plain(insects, examples):
    """Writes the second shard anew, not compressed."""
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    shard = insects / "1.0.0" / "insects-train.array_record-00001-of-00002"
    writer = ArrayRecordWriter(str(shard), "group_size:1,uncompressed")
    for image, label in examples[7:12]:
        example = tf_example_pb2.Example()
        example.features.feature["image"].bytes_list.value.append(image)
        example.features.feature["label"].int64_list.value.append(label)
        writer.write(example.SerializeToString())
    writer.close()
    return shard


@pytest.mark.parametrize("kind", [TFDS, Records])
def test_a_flipped_bit_is_an_oserror_of_its_record_that_names_the_shard(insects, examples, kind):
    shard = write_plain(insects, examples)
    flip_a_bit_of(shard, examples[9][0])
    path = insects / "1.0.0" / "insects-train*" if kind is Records else insects
    source = kind(str(path))
    labels = source.labels().tolist()
    assert labels[:9] + labels[10:] == [label for _, label in [*examples[:9], *examples[10:12]]]
    with pytest.raises(OSError, match=f"record 9 of {shard.name} cannot be read: Corrupted"):
        source.read(9)
    assert [source.read(i) for i in (8, 10)] == [examples[i][0] for i in (8, 10)]


@pytest.mark.parametrize("kind", [TFDS, Records])
def test_labels_are_read_once_and_kept_unless_a_shard_changed_or_is_damaged(
    insects, examples, kind, monkeypatch
):
    path = str(insects / "1.0.0" / "insects-train*" if kind is Records else insects)
    shard = write_plain(insects, examples)
    looked, features = [], package_examples.features
    monkeypatch.setattr(
        package_examples, "features", lambda record: looked.append(record) or features(record)
    )
    wanted = [label for _, label in examples[:12]]
    for reads in (12, 12):  # the second time none more
        source = kind(path)
        assert source.labels().tolist() == wanted and len(source.ids()) == 12
        assert len(looked) == reads
    flip_a_bit_of(shard, examples[9][0])
    for reads in (23, 34):  # eleven are whole
        kind(path).labels()
        assert len(looked) == reads
    write_plain(insects, examples)
    assert kind(path).labels().tolist() == wanted and len(looked) == 46


def test_an_id_that_is_a_number_is_no_name(tmp_path, examples):
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    writer = ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for (image, label), name in zip(examples[:3], (7, b"\xff.png", None), strict=True):
        feature = (example := tf_example_pb2.Example()).features.feature
        feature["image"].bytes_list.value.append(image)
        feature["label"].int64_list.value.append(label)
        if isinstance(name, int):
            feature["id"].int64_list.value.append(name)
        elif name:
            feature["id"].bytes_list.value.append(name)
        writer.write(example.SerializeToString())
    writer.close()
    assert list(Records(str(tmp_path)).ids()) == ["record0", "\udcff.png", "record2"]
