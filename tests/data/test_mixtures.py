"""Mixtures and new labels: classes find each other by name."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imgclf.data import (
    Arrays,
    Folder,
    Mixture,
    Relabelled,
    Subset,
    Synthetic,
    class_list,
    located,
)
from imgclf.errors import UserError


@pytest.fixture
def two(class_folders: Callable[..., Path]) -> tuple[Folder, Folder]:
    return (
        Folder(str(class_folders("one", bee=2, cat=1))),
        Folder(str(class_folders("other", ant=1, cat=2))),
    )


def named(source):
    return [source.classes[label] for label in source.labels()]


def test_a_mixture_has_all_examples_and_classes_of_one_name_are_one(two):
    mixture = Mixture(two)
    assert mixture.classes == ("bee", "cat", "ant")
    assert named(mixture) == [*named(two[0]), *named(two[1])]
    assert list(mixture.ids())[::5] == ["0/bee/0.png", "1/cat/1.png"]
    assert [mixture.read(i) for i in range(6)] == [s.read(i) for s in two for i in range(3)]
    assert mixture.parts().tolist() == [0, 0, 0, 1, 1, 1]
    sources = [Synthetic(n, 2, 1, 3, seed=n) for n in (1, 4, 2)]
    expected = np.concatenate([[source.read(i) for i in range(len(source))] for source in sources])
    found = [Mixture(tuple(sources)).read(i) for i in range(7)]
    np.testing.assert_array_equal(found, expected)


def test_soft_labels_in_a_mixture_move_to_their_classes_and_whole_numbers_become_one_hot(tmp_path):
    images, classes = np.zeros((2, 8, 8, 1), np.uint8), np.array(["y", "x"])
    labels = np.array([[0.25, 0.75], [1, 0]], np.float32)
    np.savez(tmp_path / "soft.npz", images=images, labels=labels, classes=classes)
    np.savez(tmp_path / "hard.npz", images=images, labels=[0, 1], classes=["x", "z"])
    mixture = Mixture((Arrays(str(tmp_path / "hard.npz")), Arrays(str(tmp_path / "soft.npz"))))
    assert mixture.classes == ("x", "z", "y")
    assert mixture.labels().tolist() == [[1, 0, 0], [0, 1, 0], [0.75, 0, 0.25], [0, 0, 1]]


def test_relative_paths_in_a_mixture_are_found_below_the_root():
    mixture = Mixture((Folder("a"), Relabelled(Folder("b")), Synthetic()))
    found = located(mixture, "/top").sources
    assert (found[0].path, found[1].source.path, found[2]) == ("/top/a", "/top/b", Synthetic())


def test_images_of_several_shapes_cannot_be_mixed_and_no_sources_neither(two):
    with pytest.raises(UserError, match=r"arrays of one shape; got encoded, \(8, 8, 3\)"):
        Mixture((two[0], Synthetic(n=5, size=8))).read(0)
    with pytest.raises(UserError, match="The `sources` of `Mixture` must be one or more; got none"):
        len(Mixture(()))


def test_classes_are_renamed_and_those_of_one_name_merged(two):
    relabelled = Relabelled(two[0], names={"bee": "insect"})
    assert relabelled.classes == ("insect", "cat")
    assert named(relabelled) == ["insect", "insect", "cat"]
    merged = Relabelled(Mixture(two), names={"bee": "insect", "ant": "insect"})
    assert merged.classes == ("insect", "cat")
    assert named(merged) == ["insect", "insect", "cat", "insect", "cat", "cat"]
    assert merged.read(0) == two[0].read(0) and list(merged.ids()) == list(Mixture(two).ids())


def test_classes_take_the_places_of_a_list_and_what_has_no_examples_may_be_left_out(two):
    mixture = Mixture(two)
    assert Relabelled(mixture, class_names=("ant", "dog", "cat", "bee")).labels().tolist() == [
        *(3, 3, 2),
        *(0, 2, 2),
    ]
    alone = Relabelled(Subset(mixture, class_names=("cat", "ant")), class_names=("ant", "cat"))
    assert named(alone) == ["cat", "ant", "cat", "cat"]
    with pytest.raises(UserError, match="among the 2 of `class_names`; got 'bee'"):
        Relabelled(mixture, class_names=("ant", "cat")).labels()


def test_soft_labels_of_merged_classes_are_added_up(tmp_path):
    labels = np.array([[0.2, 0.3, 0.5], [1, 0, 1]], np.float32)
    np.savez(tmp_path / "soft.npz", images=np.zeros((2, 4, 4), np.uint8), labels=labels)
    source = Relabelled(Arrays(str(tmp_path / "soft.npz")), names={"0": "a", "2": "a"})
    assert source.classes == ("a", "1")
    np.testing.assert_allclose(source.labels(), [[0.7, 0.3], [1, 0]], rtol=1e-6)


def test_the_thousand_classes_stand_where_imagenet_has_them(shared):
    classes = class_list("imagenet1k")
    assert len(set(classes)) == 1000
    with open(shared / "data" / "imagenet_samples" / "labels.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 160
    assert all(classes[int(row["class_index"])] == row["wnid"] for row in rows)


def test_ten_folders_keep_their_places_among_the_thousand(class_folders):
    source = Relabelled(
        Folder(str(class_folders("ten", n01440764=1, n03888257=2))), to="imagenet1k"
    )
    assert source.labels().tolist() == [0, 701, 701]
    assert source.classes == class_list("imagenet1k")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": {"be": "insect"}}, "`names` of `Relabelled` 'be'; did you mean 'bee'"),
        ({"to": "imagenet"}, "Unknown list of classes 'imagenet'; did you mean 'imagenet1k'"),
        ({"to": "imagenet1k"}, "must be among the 1000 of imagenet1k; got 'bee'"),
        ({"to": "imagenet1k", "class_names": ("a",)}, "one of `to` and `class_names`; got both"),
    ],
)
def test_new_labels_that_make_no_sense_say_so(two, options, message):
    with pytest.raises(UserError, match=message):
        Relabelled(two[0], **options).labels()
