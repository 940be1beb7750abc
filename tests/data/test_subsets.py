import numpy as np
import pytest

from imgclf.data import Digits, PartiallyLabelled, Subset, Synthetic
from imgclf.errors import UserError

SOURCE = Synthetic(n=60, size=4, num_classes=3)


def test_a_subset_reads_what_its_source_has_there_and_keeps_all_classes():
    subset = Subset(SOURCE, class_names=("2", "0"))
    assert subset.classes == SOURCE.classes
    assert set(subset.labels().tolist()) == {0, 2}
    assert len(subset) == (SOURCE.labels() != 1).sum()
    for i, name in enumerate(subset.ids()):
        original = SOURCE.ids().index(name)
        assert subset.labels()[i] == SOURCE.labels()[original]
        np.testing.assert_array_equal(subset.read(i), SOURCE.read(original))


def test_a_subset_is_the_first_ones_or_those_named_or_a_share_of_every_class():
    assert Subset(SOURCE, first=3).ids() == ["noise0", "noise1", "noise2"]
    assert Subset(SOURCE, names=("noise9", "noise2")).ids() == ["noise2", "noise9"]
    digits = Digits("all")
    tenth = Subset(digits, fraction=0.1)
    assert len(tenth) == 180
    exact = np.bincount(digits.labels()) * 180 / len(digits)
    assert np.abs(np.bincount(tenth.labels()) - exact).max() < 1
    assert tenth.ids() != Subset(digits, fraction=0.1, seed=1).ids()


@pytest.mark.parametrize(
    "choice", [{"fraction": 0.25}, {"per_class": 4}, {"names": ("noise3", "noise50")}]
)
def test_the_labelled_part_and_the_rest_have_every_example_once(choice):
    parts = [PartiallyLabelled(SOURCE, part, **choice) for part in ("labelled", "unlabelled")]
    labelled, rest = (part.ids() for part in parts)
    assert len(labelled) == {"fraction": 15, "per_class": 12, "names": 2}[next(iter(choice))]
    assert sorted([*labelled, *rest]) == sorted(SOURCE.ids())


def test_equally_many_of_every_class_are_labelled_and_more_include_them():
    few, more = (PartiallyLabelled(SOURCE, per_class=count) for count in (2, 5))
    assert np.bincount(few.labels()).tolist() == [2, 2, 2]
    assert set(few.ids()) < set(more.ids())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Subset(SOURCE), "must be given one of `first`, .* and `class_names`; got none"),
        (Subset(SOURCE, first=1, fraction=0.5), "got 2"),
        (Subset(SOURCE, first=61), r"The `first` of `Subset` must lie in 1\.\.60; got 61"),
        (Subset(SOURCE, fraction=1.5), r"The `fraction` of `Subset` must lie in \(0, 1\)"),
        (Subset(SOURCE, fraction=0.001), "must take one example or more; got 0.001"),
        (Subset(SOURCE, names=("noise1", "nois")), "must be ids of its source; got 'nois'"),
        (Subset(SOURCE, class_names=("3",)), "Unknown class of `Subset` '3'; there are: 0, 1, 2"),
        (PartiallyLabelled(SOURCE), "one of `fraction`, `per_class` and `names`; got none"),
        (PartiallyLabelled(SOURCE, "labeled", 0.5), "did you mean 'labelled'"),
        (PartiallyLabelled(SOURCE, per_class=40), "to the size of the rarest class"),
    ],
)
def test_a_choice_that_makes_no_sense_says_so(source, message):
    with pytest.raises(UserError, match=message):
        len(source)
