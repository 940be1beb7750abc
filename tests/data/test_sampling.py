"""Samplings: how often each example comes, exactly, and from the position alone."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgclf.data import (
    Balanced,
    EffectiveNumber,
    GroupOrder,
    LabelNoise,
    Mixed,
    Mixture,
    Order,
    RandomResizedCrop,
    Repeated,
    Source,
    Split,
    Synthetic,
    Undersampled,
    Uniform,
    train_batches,
)
from imgclf.errors import UserError
from imgclf.preprocess import Preprocess


class Labelled(Source):
    """Nothing but labels."""

    def __init__(self, labels, k=0):
        self._labels = np.array(labels)
        self._k = k or int(self._labels.max()) + 1

    def __len__(self):
        return len(self._labels)

    @property
    def classes(self):
        return tuple(map(str, range(self._k)))

    def labels(self):
        return self._labels

    def ids(self):
        return [f"x{i}" for i in range(len(self))]

    def read(self, i):
        return np.zeros((2, 2, 1), np.uint8)


BY_CLASS = [Balanced(), Balanced(0.5), EffectiveNumber(0.9), Undersampled()]
KINDS = [Uniform(), *BY_CLASS, Repeated(3)]
labellings = st.lists(st.integers(0, 6), min_size=1, max_size=80)
seeds = st.integers(-(2**70), 2**70)


def epochs_of(stream, count):
    return stream.ids(np.arange(count * stream.n)).reshape(count, stream.n)


@given(kind=st.sampled_from(KINDS), labels=labellings, seed=seeds, start=st.integers(0, 2**40))
def test_any_part_of_a_stream_is_the_same_however_it_is_asked_for(kind, labels, seed, start):
    stream = kind.build(Labelled(labels), seed)
    positions = start + np.arange(30).reshape(5, 6)
    ids = stream.ids(positions)
    assert ids.dtype == np.int64 and ids.shape == (5, 6)
    assert ids.min() >= 0 and ids.max() < len(labels)
    one_by_one = [int(stream.ids(np.array(position))) for position in positions.ravel()]
    assert ids.ravel().tolist() == one_by_one
    again = pickle.loads(pickle.dumps(stream)).ids(positions[::-1])
    np.testing.assert_array_equal(again, ids[::-1])


@given(kind=st.sampled_from(BY_CLASS), labels=labellings, seed=seeds, count=st.integers(1, 7))
def test_every_epoch_gives_a_class_the_same_number_and_its_members_come_equally_often(
    kind, labels, seed, count
):
    labels = np.array(labels)
    epochs = epochs_of(kind.build(Labelled(labels), seed), count)
    per_epoch = np.stack([np.bincount(labels[ids], minlength=7) for ids in epochs])
    assert (per_epoch == per_epoch[0]).all()
    often = np.bincount(epochs.ravel(), minlength=len(labels))
    for label in set(labels.tolist()):
        assert per_epoch[0, label] >= 1
        assert np.ptp(often[labels == label]) <= 1


def test_balanced_classes_come_equally_often_or_by_the_root_of_their_sizes():
    source = Labelled([0] * 64 + [1] * 16 + [2] * 4)
    counts = {
        power: np.bincount(source.labels()[epochs_of(Balanced(power).build(source, 1), 1)[0]])
        for power in (0.0, 0.5, 1.0)
    }
    assert counts[1.0].tolist() == [28, 28, 28]
    assert counts[0.5].tolist() == [48, 24, 12]  # 8 : 4 : 2 of 84
    assert counts[0.0].tolist() == [64, 16, 4]


def test_an_effective_number_lies_between_classes_as_they_are_and_equal_ones():
    source = Labelled([0] * 64 + [1] * 16 + [2] * 4)

    def counts(beta):
        return np.bincount(source.labels()[epochs_of(EffectiveNumber(beta).build(source, 1), 1)[0]])

    assert counts(0.0).tolist() == [64, 16, 4]
    assert counts(1 - 1e-9).tolist() == [28, 28, 28]
    exact = np.array([n / ((1 - 0.9**n) / 0.1) for n in (64, 16, 4)])
    assert np.abs(counts(0.9) - 84 * exact / exact.sum()).max() < 1


def test_undersampling_shows_all_examples_of_a_large_class_before_any_comes_again():
    source = Labelled([0] * 12 + [1] * 4, k=3)  # nothing of the third class
    stream = Undersampled().build(source, 5)
    assert stream.n == 8
    epochs = epochs_of(stream, 3)
    large = [ids[ids < 12].tolist() for ids in epochs]
    assert sorted(np.concatenate(large)) == list(range(12))
    assert [sorted(ids[ids >= 12]) for ids in epochs] == [[12, 13, 14, 15]] * 3


def test_repeated_examples_stand_in_a_row_and_as_many_epochs_show_all_of_them():
    stream = Repeated(3).build(Labelled([0] * 20), 7)
    assert stream.n == 20
    ids = stream.ids(np.arange(60)).reshape(20, 3)
    assert (ids == ids[:, :1]).all()
    assert sorted(ids[:, 0]) == list(range(20))


def test_uniform_is_the_order_that_runs_have_always_had():
    assert Uniform().build(Labelled([0] * 10), 3) == Order(10, 3)


@given(labels=labellings, seed=seeds)
@settings(max_examples=30)
def test_each_group_follows_an_order_of_its_own(labels, seed):
    labels = np.array(labels)
    counts = np.bincount(labels)
    stream = GroupOrder(labels, 2 * counts, seed)
    epochs = epochs_of(stream, 3)
    assert stream.n == 2 * len(labels)
    for label in np.flatnonzero(counts):
        members = np.flatnonzero(labels == label)
        own = Order(len(members), int(stream.seeds[label])).ids(np.arange(6 * len(members)))
        for epoch, expected in zip(epochs, own.reshape(3, -1), strict=True):
            seen = epoch[labels[epoch] == label]
            assert sorted(seen) == sorted(members[expected])


def test_the_stream_of_a_seed_does_not_change_between_versions():
    stream = Balanced().build(Labelled([0] * 8 + [1] * 2), seed=0)
    assert stream.ids(np.arange(20)).tolist() == [
        9,
        5,
        3,
        4,
        6,
        1,
        8,
        9,
        8,
        9,
        9,
        2,
        8,
        8,
        0,
        7,
        9,
        0,
        8,
        7,
    ]


def test_classes_are_spread_over_an_epoch():
    labels = np.repeat(np.arange(10), [500, *[50] * 9])
    ids = epochs_of(Balanced().build(Labelled(labels), 0), 1)[0]
    tenths = [np.bincount(labels[part], minlength=10) for part in np.array_split(ids, 10)]
    assert np.abs(np.array(tenths) - 9.5).max() < 5 * np.sqrt(9.5)


def test_the_sources_of_a_mixture_come_by_their_weights_also_in_a_part_of_it():
    mixture = Mixture((Synthetic(n=90, num_classes=3), Synthetic(n=10, num_classes=3, seed=1)))
    for source in (mixture, Split(mixture)):
        parts = source.parts()
        stream = Mixed((1, 3)).build(source, 0)
        assert np.bincount(parts[epochs_of(stream, 1)[0]]).tolist() == [
            stream.n / 4,
            stream.n / 2 + stream.n / 4,
        ]
    assert set(parts[Mixed((1, 0)).build(source, 0).ids(np.arange(200))]) == {0}
    assert np.bincount(mixture.parts()[epochs_of(Mixed().build(mixture, 0), 1)[0]]).tolist() == [
        50,
        50,
    ]


def test_soft_labels_count_as_their_greatest_entry_and_several_are_refused():
    soft = np.eye(2, dtype=np.float32)[[0, 0, 0, 1]] * 0.8 + 0.1
    ids = Balanced().build(Labelled(soft, k=2), 0).ids(np.arange(400))
    assert (ids == 3).sum() == 200
    several = np.array([[1, 0], [1, 1]], np.float32)
    with pytest.raises(UserError, match=r"one class for each image.*'x1' add up to 2"):
        Balanced().build(Labelled(several, k=2), 0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Balanced(1.5), r"The `power` of `Balanced` must lie in \[0, 1\]; got 1.5"),
        (EffectiveNumber(1.0), r"`beta` of an effective number must lie in \[0, 1\); got 1.0"),
        (Repeated(0), "The `times` of `Repeated` must be 1 or more; got 0"),
        (Mixed((1, 1)), "The source of `Mixed` must be a `Mixture`; got `Labelled`"),
    ],
)
def test_a_sampling_that_makes_no_sense_says_so(kind, message):
    with pytest.raises(UserError, match=message):
        kind.build(Labelled([0, 1]), 0)


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (1, -1), (0, 0), (float("nan"), 1)])
def test_weights_that_do_not_fit_the_mixture_are_refused(weights):
    mixture = Mixture((Synthetic(n=5, num_classes=2), Synthetic(n=5, num_classes=2)))
    with pytest.raises(UserError, match="The `weights` of `Mixed` must be 2 numbers"):
        Mixed(weights).build(mixture, 0)


def test_workers_and_processes_do_not_change_what_a_sampling_feeds():
    source = Mixture((Synthetic(30, 4, 1, 3), LabelNoise(Synthetic(9, 4, 1, 3, seed=1), 0.5)))
    stream = Mixed((1, 2)).build(source, 5)

    def fed(**options):
        with train_batches(
            source,
            stream,
            batch_size=6,
            start=2,  # in the middle of an epoch, and over its end
            stop=12,
            geometry=RandomResizedCrop(),
            preprocess=Preprocess(),
            seed=5,
            **options,
        ) as batches:
            return {
                name: np.stack([batch[name] for batch in found])
                for found in [list(batches)]
                for name in ("id", "image", "label")
            }

    whole, workers = fed(), fed(workers=2)
    halves = [fed(process_index=i, process_count=2) for i in range(2)]
    assert whole["id"].ravel().tolist() == stream.ids(np.arange(12, 72)).tolist()
    assert (whole["label"] == source.labels()[whole["id"]]).all()
    for name, expected in whole.items():
        np.testing.assert_array_equal(workers[name], expected)
        np.testing.assert_array_equal(np.concatenate([h[name] for h in halves], 1), expected)
