"""Names in a buffer are those that went in, however they are looked at."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgclf.data.names import Names, chosen

some_names = st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])))


@given(names=some_names, data=st.data())
def test_names_come_back_by_place_slice_selection_and_pickle(
    names: list[str], data: st.DataObject
) -> None:
    kept = Names.of(names)
    assert list(kept) == names and kept == names and len(kept) == len(names)
    places = data.draw(st.lists(st.integers(0, max(len(names) - 1, 0)), max_size=9 * len(names)))
    assert list(kept.take(places)) == [names[i] for i in places]
    part = slice(*data.draw(st.tuples(st.integers(-9, 9), st.integers(-9, 9))))
    assert list(kept[part]) == names[part]
    assert pickle.loads(pickle.dumps(kept)) == kept
    assert [kept[-1 - i] for i in range(len(names))] == names[::-1]


def test_a_file_name_that_is_no_utf8_comes_back_as_python_has_it() -> None:
    assert Names.of(["\udcff.png"])[0] == "\udcff.png"


def test_names_differ_in_one_letter_or_in_where_they_end() -> None:
    assert Names.of(["ab", "c"]) != Names.of(["a", "bc"])
    assert Names.of(["ab"]) != ["ac"] and Names.of(["ab"]) != ["ab", ""]


def test_a_place_outside_is_refused() -> None:
    for place in (2, -3, np.int64(2)):
        with pytest.raises(IndexError, match="there are 2 names"):
            Names.of(["a", "b"])[place]


@given(names=some_names, data=st.data())
def test_chosen_names_are_those_at_the_places_whatever_they_are_chosen_from(
    names: list[str], data: st.DataObject
) -> None:
    most = max(len(names) - 1, 0)
    places = np.array(data.draw(st.lists(st.integers(0, most), max_size=9 * len(names))), np.int64)
    expected = [names[i] for i in places]
    for inner in (names, Names.of(names)):
        few = chosen(inner, places)
        assert few == expected and list(few[1:]) == expected[1:] and len(few) == len(expected)
        assert few != [*expected, "more"]
        assert chosen(few, np.arange(len(few))[::-1]) == expected[::-1]


def test_more_names_than_are_gathered_at_once_are_taken() -> None:
    names = Names.of(map(str, range(200_000)))
    places = np.random.default_rng(0).permutation(200_000)
    assert list(names.take(places)) == list(map(str, places))
