import dataclasses
import io
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from imgclf import data
from imgclf.data import (
    Arrays,
    Cifar,
    Digits,
    Folder,
    Images,
    Source,
    Split,
    Synthetic,
    fixed_shape,
    located,
)
from imgclf.data.source import as_written
from imgclf.errors import UserError


@pytest.fixture
def each_kind(class_folders, cifar, shards, insects, tmp_path) -> list[Source]:
    arrays = {"images": np.zeros((6, 4, 5), np.uint8), "labels": np.arange(6) % 2}
    np.savez(tmp_path / "arrays.npz", **arrays)
    table = tmp_path / "table.csv"
    table.write_text("image,label\nphotos/bee/0.png,bee\nphotos/ant/1.png,ant\n")
    idx = {"images-idx3": [0, 0, 8, 3, *[0, 0, 0, 3] * 3], "labels-idx1": [0, 0, 8, 1, 0, 0, 0, 3]}
    for name, head in idx.items():
        body = bytes(27) if "images" in name else bytes([1, 0, 1])
        (tmp_path / f"train-{name}-ubyte").write_bytes(bytes(head) + body)
    rows = {"image": [str(i).encode() for i in range(4)], "label": ["a", "b", "a", "b"]}
    parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(4):
            for name, content in ((f"{i}.png", str(i).encode()), (f"{i}.cls", b"%d" % (i % 2))):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return [
        data.Tar(str(tmp_path / "a.tar")),
        data.Parquet(str(tmp_path / "a.parquet")),
        Digits("test"),
        Folder(str(class_folders("photos", ant=3, bee=2))),
        Cifar("train", str(cifar)),
        Arrays(str(tmp_path / "arrays.npz")),
        Synthetic(n=20, size=6, num_classes=4),
        Split(Synthetic(n=20, size=6, num_classes=4), "test"),
        data.Fold(Digits("test"), part="test"),
        data.Subset(Synthetic(n=20, size=6, num_classes=4), first=5),
        data.PartiallyLabelled(Digits("test"), per_class=2),
        data.LongTail(Digits("test")),
        data.LabelNoise(Digits("test")),
        data.Mixture((Digits("test"), Digits("train"))),
        data.Relabelled(Digits("test"), names={"3": "three"}),
        data.Records(str(shards)),
        data.TFDS(str(insects)),
        data.Table(str(table)),
        data.Idx("train", str(tmp_path)),
    ]


def test_every_kind_keeps_the_contract_of_a_source(each_kind):
    for source in each_kind:
        n, k = len(source), len(source.classes)
        labels = source.labels()
        assert labels.shape == (n,) and labels.dtype == np.int32, source
        assert labels.min() >= 0 and labels.max() < k, source
        assert len(set(source.ids())) == n and all(isinstance(name, str) for name in source.ids())
        assert len(set(source.classes)) == k and isinstance(source.classes, tuple)
        shape = fixed_shape(source)
        for i in {0, n - 1}:
            image = source.read(i)
            if shape is None:
                assert isinstance(image, bytes)
            else:
                assert image.dtype == np.uint8 and image.shape == shape


def test_every_kind_pickles_to_an_equal_source_without_what_it_has_loaded(each_kind):
    for source in each_kind:
        expected = source.read(1)
        source.labels()
        pickled = pickle.dumps(source)
        assert len(pickled) < 2000, source
        copy = pickle.loads(pickled)
        assert copy == source
        np.testing.assert_array_equal(copy.read(1), expected)


def test_a_source_that_is_kept_on_disk_is_only_what_was_written(class_folders):
    root = class_folders("photos", ant=2, bee=2)
    source = Split(Folder(str(root)))
    assert len(source) == 3
    with as_written():
        pickled = pickle.dumps(source)
    assert "_chosen" in pickle.loads(pickle.dumps(source)).__dict__
    (root / "ant" / "new.png").write_bytes(b"1")
    kept = pickle.loads(pickled)
    assert kept == source and len(kept) == 4 and "ant/new.png" in kept.source.ids()


def test_making_a_source_touches_no_disk_and_every_kind_says_what_is_missing():
    for kind in (
        Folder,
        Arrays,
        data.Records,
        data.TFDS,
        data.Table,
        lambda path: Cifar("train", path),
    ):
        source = kind("/nowhere/at/all")
        with pytest.raises(UserError, match="/nowhere/at/all") as caught:
            len(source)
        assert "\n" not in str(caught.value)


def test_relative_paths_are_found_below_the_root_also_inside_another_source():
    inner = located(Split(Folder("photos")), "/top").source
    assert inner.path == "/top/photos"
    assert located(Folder("/photos"), "/top").path == "/photos"
    assert located(Digits(), "/top") == Digits()
    assert not located(Folder("~/photos"), "/top").path.startswith("/top/~")


def test_a_persons_own_source_that_is_no_dataclass_can_be_located_and_pickled():
    assert located(Own(), "/top").read(0).shape == (2, 2, 1)
    assert pickle.loads(pickle.dumps(Own())).count == 3


class Own(Source):
    def __init__(self):
        self.count = 3

    def __len__(self):
        return self.count

    @property
    def classes(self):
        return ("a", "b")

    def labels(self):
        return np.zeros(self.count, np.int32)

    def ids(self):
        return ["x", "y", "z"]

    def read(self, i):
        return np.zeros((2, 2, 1), np.uint8)


def test_every_listed_name_is_there_and_neither_jax_nor_scikit_learn_is_imported():
    code = (
        "import sys; from imgclf import data; data.Digits().read(0); data.Folder; data.Guess;"
        "assert not {'jax', 'sklearn', 'tensorflow_datasets', 'grain'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name, module in data._MODULES.items():
        assert getattr(data, name).__module__ == f"imgclf.data.{module}"
        assert name in dir(data)
    with pytest.raises(AttributeError, match="Foldr"):
        _ = data.Foldr


def test_the_digits_are_scikit_learns_scaled_to_bytes():
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), Digits("all")
    assert ours.labels().tolist() == theirs.target.tolist()
    images = np.stack([ours.read(i)[..., 0] for i in range(len(ours))])
    np.testing.assert_array_equal(images, np.rint(theirs.images * 255 / 16))


def test_class_folders_are_read_in_order_and_only_images(class_folders):
    root = class_folders("photos", bee=2, ant=1)
    (root / "ant" / "deeper").mkdir()
    (root / "ant" / "deeper" / "UPPER.JPEG").write_bytes(b"1")
    (root / "ant" / ".hidden.png").write_bytes(b"2")
    (root / "ant" / "notes.txt").write_text("3")
    (root / ".cache").mkdir()
    (root / "readme.md").write_text("4")
    source = Folder(str(root))
    assert source.classes == ("ant", "bee")
    assert source.ids() == ["ant/0.png", "ant/deeper/UPPER.JPEG", "bee/0.png", "bee/1.png"]
    assert source.labels().tolist() == [0, 0, 1, 1]
    assert source.read(1) == b"1"


def test_a_folder_without_some_classes_keeps_the_places_of_the_others(class_folders):
    source = Folder(str(class_folders("val", bee=2)), class_names=("ant", "bee", "cat"))
    assert source.labels().tolist() == [1, 1]
    assert source.classes == ("ant", "bee", "cat")


def test_the_notes_that_macos_puts_into_archives_are_no_class(class_folders):
    root = class_folders("val", ant=2, bee=1)
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "x.png").write_bytes(b"no image")
    assert Folder(str(root)).labels().tolist() == [0, 0, 1]
    assert len(Images(str(root))) == 3


def test_a_folder_says_what_is_wrong_with_it(class_folders, tmp_path):
    root = class_folders("photos", ant=1, bee=1)
    cases = [
        (Folder(str(root / "ant" / "0.png")), "is a file"),
        (Folder(str(root / "ant")), "one folder for each class.*holds no folders"),
        (Folder(str(class_folders("one", ant=1))), "two classes or more; got only 'ant'"),
        (Folder(str(class_folders("bad", ant=1, bee=1, cat=0))), "bad/cat holds none"),
        (Folder(str(class_folders("set", train=1, val=1))), "did you mean .*set/train"),
        (Folder(str(root), class_names=("ant", "bees")), "got 'bee' .is it 'bees'"),
    ]
    for source, message in cases:
        with pytest.raises(UserError, match=message):
            len(source)


def test_cifar_reads_the_files_that_exist_plane_by_plane(cifar):
    source = Cifar("train", str(cifar))
    assert len(source) == 30
    assert source.ids()[19:21] == ["data_batch_1/19", "data_batch_3/0"]
    row = np.fromfile(cifar / "data_batch_3.bin", np.uint8)[:3073]
    assert source.read(20)[3, 7].tolist() == [
        row[1 + plane * 1024 + 3 * 32 + 7] for plane in range(3)
    ]
    assert source.classes == tuple("0123456789")
    (cifar / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert Cifar("test", str(cifar)).classes == tuple("abcdefghij")


def test_cifar_100_is_read_with_its_fine_labels(tmp_path):
    rows = np.zeros((4, 3074), np.uint8)
    rows[:, 0], rows[:, 1] = 7, [0, 33, 66, 99]
    rows.tofile(tmp_path / "train.bin")
    source = Cifar("train", str(tmp_path))
    assert len(source.classes) == 100
    assert source.labels().tolist() == [0, 33, 66, 99]


def test_cifar_says_what_is_wrong_and_where_to_get_it(cifar, tmp_path):
    missing = Cifar("test", str(tmp_path / "cifar-100-binary"))
    with pytest.raises(UserError, match=r"kriz/cifar-100-binary.tar.gz \| tar xz"):
        len(missing)
    with pytest.raises(UserError, match="Unknown split of `Cifar` 'val'"):
        len(Cifar("val", str(cifar)))
    batch = cifar / "data_batch_1.bin"
    whole = batch.read_bytes()
    for damaged, message in (
        (whole[:-1], "has 61,459 bytes"),
        (b"", "has 0 bytes"),
        (b"\x0b" + whole[1:], r"must lie in 0\.\.9, the places of its classes; got 11"),
    ):
        batch.write_bytes(damaged)
        with pytest.raises(UserError, match=message):
            Cifar("train", str(cifar)).labels()
    (cifar / "batches.meta.txt").write_text("one two")
    with pytest.raises(UserError, match="must name 10 classes; got 2"):
        _ = Cifar("test", str(cifar)).classes


def test_the_kept_cifar_images_have_their_published_counts(shared, cifar10):
    source = Cifar("test", str(cifar10 / "cifar-10-batches-bin"))
    counts = [196, 198, 195, 199, 198, 185, 216, 193, 217, 203]
    assert np.bincount(source.labels()).tolist() == counts
    assert source.classes[3] == "cat"
    expected = np.load(shared / "data" / "expected" / "cifar10_inputs_u8.npy")
    for i, image_chw in enumerate(expected):
        np.testing.assert_array_equal(source.read(i), image_chw.transpose(1, 2, 0))


def test_the_kept_photographs_are_found(shared):
    train = Folder(str(shared / "data" / "imagenette" / "train"))
    assert np.bincount(train.labels()).tolist() == [100] * 10
    assert train.read(0)[:2] == b"\xff\xd8"


GOOD = {"images": np.arange(96, dtype=np.uint8).reshape(6, 4, 4, 1), "labels": np.arange(6) % 2}


def test_arrays_take_their_names_shapes_and_classes_from_the_file(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, x=GOOD["images"][..., 0], y=GOOD["labels"][:, None], classes=["ant", "bee"])
    source = Arrays(path, image="x", label="y")
    assert source.classes == ("ant", "bee")
    assert source.labels().tolist() == [0, 1, 0, 1, 0, 1]
    np.testing.assert_array_equal(source.read(5), GOOD["images"][5])


def test_names_of_classes_that_arrays_keep_as_bytes_are_text(tmp_path):
    path = str(tmp_path / "a.npz")
    np.savez(path, **GOOD, classes=np.array(["kätzchen".encode(), b"dog"]))
    assert Arrays(path).classes == ("kätzchen", "dog")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.zeros(5, int)}, "6 images and 5 labels"),
        ({"labels": np.zeros(6, int)}, "two classes or more; got only '0'"),
        ({"labels": np.arange(6) - 1}, r"must lie in 0\.\.4, the places of its classes; got -1"),
        ({"classes": ["ant", "bee", "ant"][:1]}, "two classes or more; got only 'ant'"),
        ({"labels": np.array(list("ababab"))}, "must be whole numbers"),
        ({"labels": np.zeros((6, 3)), "classes": ["a", "b"]}, "a column for each of the 2 classes"),
        ({"labels": np.array([None] * 6)}, "must hold plain, undamaged arrays"),
        ({"images": np.zeros((6, 4, 4))}, r"must be uint8 .* has float64 \(6, 4, 4\)"),
        ({"images": np.zeros((0, 4, 4), np.uint8)}, "must be uint8"),
    ],
)
def test_arrays_that_make_no_sense_say_so(tmp_path, change, message):
    path = str(tmp_path / "a.npz")
    np.savez(path, **{**GOOD, **change})
    with pytest.raises(UserError, match=message):
        len(Arrays(path))


def test_arrays_name_the_array_that_is_meant_and_refuse_a_damaged_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, **GOOD)
    with pytest.raises(UserError, match="'image'; did you mean 'images'"):
        len(Arrays(str(path), image="image"))
    whole = path.read_bytes()
    start = whole.index(b"NUMPY")
    scratched = whole[:start] + bytes(9) + whole[start + 9 :]
    for damaged in (whole[: len(whole) // 2], b"", pickle.dumps({"a": 1}), scratched):
        path.write_bytes(damaged)
        with pytest.raises(
            UserError, match=r"must (be an \.npz file|hold plain, undamaged)"
        ) as caught:
            len(Arrays(str(path)))
        assert "\n" not in str(caught.value)


def test_synthetic_images_depend_on_seed_and_place_only():
    ten, twenty = Synthetic(n=10, size=5), Synthetic(n=20, size=5)
    np.testing.assert_array_equal(ten.read(7), twenty.read(7))
    np.testing.assert_array_equal(ten.labels(), twenty.labels()[:10])
    assert (ten.read(7) != ten.read(8)).any()
    assert (ten.read(7) != dataclasses.replace(ten, seed=1).read(7)).any()
    assert 100 < Synthetic(size=64).read(0).mean() < 155


@pytest.mark.parametrize("field", ["n", "size", "channels", "num_classes", "seed"])
def test_synthetic_says_which_field_is_too_small(field):
    with pytest.raises(UserError, match=f"The `{field}` of `Synthetic` must be"):
        len(Synthetic(**{field: -1}))
