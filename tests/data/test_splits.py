import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.data import Arrays, Digits, Split, Synthetic
from imgclf.data.splits import stratified
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
