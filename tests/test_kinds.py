from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Optional

import numpy as np
import pytest

from imgclf.kinds import fits, in_words
from imgclf.units import Epochs, Unit


@pytest.mark.parametrize(
    ("value", "hint", "answer"),
    [
        (3, int, True),
        (np.int64(3), int, True),
        (True, int, False),
        (3, float, True),
        (np.float32(3), float, True),
        (True, float, False),
        ("3", float, False),
        ("se", Literal["", "se"], True),
        ("eca", Literal["", "se"], False),
        ((1, 2), tuple[int, ...], True),
        ((1, "2"), tuple[int, ...], False),
        ([1, 2], tuple[int, ...], False),
        ((1, "a"), tuple[int, str], True),
        ((1,), tuple[int, str], False),
        ({"a": 1}, Mapping[str, int], True),
        ({"a": "b"}, Mapping[str, int], False),
        (None, int | None, True),
        (1.5, Optional[int], False),  # noqa: UP045
        (int, type[int] | type[str], True),
        (float, type[int] | type[str], False),
        (len, Callable[..., Any], True),
        (3, Callable[..., Any], False),
        ([1], Sequence[int], True),
        (object(), Any, True),
    ],
)
def test_a_value_fits_where_its_annotation_allows_it(value, hint, answer):
    assert fits(value, hint) is answer


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (int | None, "a whole number or None"),
        (Literal["a", "b"], "one of 'a', 'b'"),
        (tuple[int, str], "a tuple: a whole number, one word"),
        (type[int] | type[str], "the class int or the class str"),
        (Mapping[str, float], "a dict of values, each a number"),
        (Unit, "a duration, such as Epochs(10) or Steps(500)"),
        (Epochs | bool, "a duration, such as Epochs(10) or Steps(500) or True or False"),
    ],
)
def test_kinds_are_said_in_words(hint, words):
    assert in_words(hint) == words
