import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.data import (
    Digits,
    LabelNoise,
    LongTail,
    PartiallyLabelled,
    Source,
    Split,
    Subset,
    Synthetic,
)
from imgclf.errors import UserError


class Even(Source):
    """As many examples of every class."""

    def __init__(self, each, k):
        self.each, self.k = each, k

    def __len__(self):
        return self.each * self.k

    @property
    def classes(self):
        return tuple(f"class {i}" for i in range(self.k))

    def labels(self):
        return np.tile(np.arange(self.k, dtype=np.int32), self.each)

    def ids(self):
        return [f"x{i}" for i in range(len(self))]

    def read(self, i):
        return np.full((1, 1, 1), i % 256, np.uint8)


@pytest.mark.parametrize(
    ("factor", "counts"),
    [
        (100, [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]),
        (10, [5000, 3871, 2997, 2320, 1796, 1391, 1077, 834, 645, 500]),
    ],
)
def test_a_long_tail_has_the_counts_of_the_papers_cifar10(factor, counts):
    tail = LongTail(Even(5000, 10), factor)
    assert np.bincount(tail.labels()).tolist() == counts


def test_a_steeper_tail_is_a_part_of_a_flatter_one_and_a_seed_chooses_it():
    steep, flat = (LongTail(Digits("all"), factor) for factor in (50, 5))
    assert set(steep.ids()) < set(flat.ids())
    assert steep.ids() != LongTail(Digits("all"), 50, seed=1).ids()


@given(
    share=st.floats(0, 1),
    kind=st.sampled_from(["symmetric", "pairwise"]),
    seed=st.integers(0, 2**32),
)
def test_exactly_the_share_of_labels_is_wrong_in_every_class(share, kind, seed):
    noisy = LabelNoise(Even(30, 4), share, kind, seed)
    labels, clean = noisy.labels(), noisy.clean_labels()
    assert labels.dtype == np.int32 and labels.min() >= 0 and labels.max() < 4
    wrong = labels != clean
    assert wrong.sum() == round(share * 120)
    assert np.ptp(np.bincount(clean[wrong], minlength=4)) <= 1
    if kind == "pairwise":
        assert (labels[wrong] == (clean[wrong] + 1) % 4).all()


def test_symmetric_noise_draws_all_other_classes_equally_often():
    noisy = LabelNoise(Even(3000, 5), 1.0)
    further = (noisy.labels() - noisy.clean_labels()) % 5
    counts = np.bincount(further, minlength=5)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 3750).max() < 5 * np.sqrt(3750)


@pytest.mark.parametrize(
    "part",
    [
        lambda noisy: Split(noisy, "test"),
        lambda noisy: Subset(noisy, fraction=0.1),
        lambda noisy: PartiallyLabelled(noisy, fraction=0.1),
        lambda noisy: PartiallyLabelled(noisy, per_class=50),
        lambda noisy: LongTail(noisy, 50),
    ],
)
def test_a_part_of_noisy_labels_has_its_share_of_wrong_ones(part):
    noisy = LabelNoise(Even(1000, 5), 0.2)
    some = part(noisy)
    clean = dict(zip(noisy.ids(), noisy.clean_labels(), strict=True))
    wrong = some.labels() != [clean[name] for name in some.ids()]
    assert abs(wrong.mean() - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(some))


def test_noise_and_tails_are_the_same_in_every_process_and_numpy_version():
    assert LabelNoise(Even(3, 4), 0.5, seed=5).labels().tolist() == [
        1,
        1,
        1,
        3,
        0,
        2,
        2,
        3,
        2,
        2,
        2,
        0,
    ]
    assert LongTail(Even(4, 3), 4, seed=5).ids() == ["x0", "x3", "x4", "x6", "x7", "x8", "x9"]


def test_noise_leaves_images_and_ids_as_they_are():
    noisy, clean = LabelNoise(Digits("test"), 0.4), Digits("test")
    assert noisy.ids() == clean.ids() and noisy.classes == clean.classes
    np.testing.assert_array_equal(noisy.read(3), clean.read(3))
    np.testing.assert_array_equal(noisy.clean_labels(), clean.labels())


@pytest.mark.parametrize(
    ("find", "message"),
    [
        (lambda s: len(LongTail(s, 0.5)), "The `factor` of `LongTail` must be 1 or more; got 0.5"),
        (lambda s: LabelNoise(s, 1.5).labels(), r"`share` of `LabelNoise` must lie in \[0, 1\]"),
        (lambda s: LabelNoise(s, kind="pair").labels(), "did you mean 'pairwise'"),
        (
            lambda s: LabelNoise(s, seed=-1).labels(),
            "`seed` of `LabelNoise` must be 0 or more; got -1",
        ),
    ],
)
def test_damage_that_makes_no_sense_says_so(find, message):
    with pytest.raises(UserError, match=message):
        find(Synthetic(n=20, size=2, num_classes=3))
