from dataclasses import dataclass
from typing import final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.data import Arrays, Digits, Fold, GroupSplit, Source, Split, Synthetic
from imgclf.data.splits import group_folds, grouped, numbered_groups, stratified, stratified_folds
from imgclf.errors import UserError


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
def test_a_split_takes_every_example_once_and_every_class_in_proportion(labels, share, seed):
    array = np.array(labels, np.int32)
    held_out = min(max(1, round(share * len(array))), len(array) - 1)
    kept, held = stratified(array, held_out, seed)
    assert sorted([*kept, *held]) == list(range(len(array)))
    assert len(held) == held_out
    for label in set(labels):
        exact = labels.count(label) * held_out / len(labels)
        assert abs((array[held] == label).sum() - exact) < 1


def test_a_split_is_the_same_in_every_process_and_numpy_version():
    _, held = stratified(np.arange(30, dtype=np.int32) % 3, 6, seed=5)
    assert held.tolist() == [3, 4, 7, 8, 21, 29]


def test_another_seed_chooses_other_examples():
    labels = np.zeros(100, np.int32)
    assert stratified(labels, 20, 0)[1].tolist() != stratified(labels, 20, 1)[1].tolist()


def test_the_held_out_digits_are_360_of_1797_in_proportion():
    train, test, everything = Digits("train"), Digits("test"), Digits("all")
    assert (len(train), len(test), len(everything)) == (1437, 360, 1797)
    assert set(train.ids()).isdisjoint(test.ids())
    assert {*train.ids(), *test.ids()} == set(everything.ids())
    assert np.ptp(np.bincount(test.labels())) <= 2


def test_the_parts_of_a_split_read_what_their_source_has_there():
    source = Synthetic(n=50, size=4, num_classes=3)
    train, test = Split(source, "train"), Split(source, "test")
    assert len(train) == 40 and len(test) == 10
    assert train.classes == source.classes
    for part in (train, test):
        for i, name in enumerate(part.ids()):
            original = source.ids().index(name)
            assert part.labels()[i] == source.labels()[original]
            np.testing.assert_array_equal(part.read(i), source.read(original))


def test_soft_labels_are_split_by_their_greatest_entry(tmp_path):
    soft = np.eye(2, dtype=np.float32)[np.arange(20) % 2] * 0.8 + 0.1
    np.savez(tmp_path / "soft.npz", images=np.zeros((20, 4, 4), np.uint8), labels=soft)
    held_out = Split(Arrays(str(tmp_path / "soft.npz")), "test").labels()
    assert held_out.shape == (4, 2)
    assert np.bincount(held_out.argmax(1)).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Split(Synthetic(n=50), fraction=1.0), "The `fraction` of `Split` must lie in"),
        (Split(Synthetic(n=50), fraction=0.001), "hold out at least one example"),
        (Split(Synthetic(n=50), seed=-1), "The `seed` of a split must be 0 or more"),
        (Split(Synthetic(n=50), "val"), "Unknown part of `Split` 'val'"),
        (Digits("trian"), "did you mean 'train'"),
        (Digits(held_out=1797), "got 1797 to be held out of 1797"),
    ],
)
def test_a_split_that_makes_no_sense_says_so(source, message):
    with pytest.raises(UserError, match=message):
        len(source)


@final
@dataclass(frozen=True)
class Patients(Source):
    """Images of patients, some of whom have many."""

    sizes: tuple[int, ...]

    def __len__(self):
        return sum(self.sizes)

    @property
    def classes(self):
        return ("ill", "well")

    def labels(self):
        return (np.arange(len(self)) % 2).astype(np.int32)

    def ids(self):
        return [f"image {i}" for i in range(len(self))]

    def read(self, i):
        return np.zeros((2, 2, 1), np.uint8)

    def column(self, name):
        return [f"{name} {i}" for i, size in enumerate(self.sizes) for _ in range(size)]


def groups_of(source):
    return set(source.column("patient"))


sizes = st.lists(st.integers(1, 12), min_size=3, max_size=25).map(tuple)


@given(sizes=sizes, fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32))
def test_no_group_is_on_both_sides_and_no_example_is_lost(sizes, fraction, seed):
    source = Patients(sizes)
    train, test = (
        GroupSplit(source, "patient", part, fraction, seed) for part in ("train", "test")
    )
    assert len(train) and len(test)
    assert groups_of(train).isdisjoint(groups_of(test))
    assert sorted([*train.ids(), *test.ids()]) == sorted(source.ids())
    nearly = abs(len(test) - fraction * len(source))
    assert nearly <= max(sizes) or len(train) <= max(sizes)


def test_a_part_of_a_group_split_can_be_split_by_group_again():
    rest = GroupSplit(Patients((4,) * 25), "patient", "train")
    train, val = (GroupSplit(rest, "patient", part, 0.25) for part in ("train", "test"))
    assert (len(train), len(val)) == (60, 20)
    assert groups_of(train).isdisjoint(groups_of(val))


def test_a_groups_side_does_not_depend_on_the_order_of_the_examples():
    names = [f"p{i % 7}" for i in range(70)]
    held = {names[i] for i in grouped(numbered_groups(names), 14, 3)[1]}
    names.reverse()
    assert {names[i] for i in grouped(numbered_groups(names), 14, 3)[1]} == held


@given(
    labels=st.lists(st.integers(0, 5), min_size=5, max_size=60),
    folds=st.integers(2, 5),
    seed=st.integers(0, 2**32),
)
def test_folds_share_out_the_examples_and_every_class_equally(labels, folds, seed):
    array = np.array(labels)
    fold = stratified_folds(array, folds, seed)
    assert np.ptp(np.bincount(fold, minlength=folds)) <= 1
    for label in set(labels):
        assert np.ptp(np.bincount(fold[array == label], minlength=folds)) <= 1


@pytest.mark.parametrize("group", ["", "patient"])
def test_every_example_is_tested_on_in_one_fold_and_trained_on_in_the_others(group):
    source = Patients((7, 1, 4, 4, 2, 9, 3))
    tested = []
    for fold in range(3):
        train, test = (Fold(source, fold, part, 3, group=group) for part in ("train", "test"))
        assert set(train.ids()).isdisjoint(test.ids())
        assert len(train) + len(test) == len(source)
        assert not group or groups_of(train).isdisjoint(groups_of(test))
        tested += test.ids()
        assert len(test) == 10
    assert sorted(tested) == sorted(source.ids())


def test_splits_and_folds_choose_the_same_in_every_process_and_numpy_version():
    labels = np.arange(12, dtype=np.int32) % 2
    assert stratified_folds(labels, 3, seed=5).tolist() == [2, 1, 0, 2, 1, 0, 2, 0, 0, 2, 1, 1]
    groups = np.arange(12) // 2
    assert grouped(groups, 4, seed=5)[1].tolist() == [6, 7, 8, 9]
    assert group_folds(groups, 3, seed=5).tolist() == [1, 1, 2, 2, 0, 0, 1, 1, 0, 0, 2, 2]


def test_a_split_by_ratio_looks_at_no_class():
    source = Patients((100,))
    halves = [Split(source, "test", 0.5, seed=seed, by="ratio").labels() for seed in range(20)]
    assert {len(half) for half in halves} == {50}
    assert len({int(half.sum()) for half in halves}) > 1
    assert sum(Split(source, "test", 0.5).labels()) == 25


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (GroupSplit(Synthetic(n=50), "x"), "must have columns, as a table has; got `Synthetic`"),
        (GroupSplit(Patients((9,)), "x"), "must have two groups or more; got 1"),
        (Fold(Patients((9, 3)), 5), "The `fold` of `Fold` must lie from 0 to 4"),
        (Fold(Patients((9, 3)), folds=3, group="x"), "2 to 2 folds, one for a group; got 3"),
        (Fold(Patients((9, 3)), folds=13), "2 to 12 folds, one for an example; got 13"),
        (Split(Patients((9, 3)), by="patient"), "Unknown value for the `by` of `Split`"),
    ],
)
def test_a_group_or_fold_that_makes_no_sense_says_so(source, message):
    with pytest.raises(UserError, match=message):
        len(source)
