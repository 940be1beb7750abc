"""Images anywhere, and a table beside them that says what is on each."""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from imgclf.data.index import Index, indexed
from imgclf.data.index_cache import Arrays
from imgclf.data.names import Names
from imgclf.data.remote import Place, Url, at, is_remote, stamp_of
from imgclf.data.rows import SUFFIXES, rows
from imgclf.data.source import Source, carried, check_classes, check_labels, numbered
from imgclf.errors import UserError, nearest, unknown

_MOST_NUMBERED = 1_000_000  # a whole number that great is no place among classes


@final
@dataclass(frozen=True)
class Table(Source):
    """A CSV, TSV, JSONL or Parquet file with a row for each image: its path and its label.

    Labels are names, or whole numbers from 0. An image has several where they are lists, or where
    a `separator` is given: then they are float32 (n, k) of zeros and ones. An image that is missing
    is found out when it is read.
    """

    path: str
    """The file, or its URL; the paths in it are relative to its folder, or URLs."""
    image: str = "image"
    """Name of the column with the path of the image."""
    label: str = "label"
    """Name of the column with the label, or the labels."""
    class_names: tuple[str, ...] = ()
    """The classes in their order; empty: the names in the table, sorted, or 0, 1, ..."""
    separator: str = ""
    """What stands between several labels of one image, such as ";"."""
    split: str = ""
    """Only the rows with this word in the column `split_column`; empty: all rows."""
    split_column: str = "split"
    """Name of the column that says to which split a row belongs."""

    def __len__(self) -> int:
        return len(self._index.names)

    @property
    def classes(self) -> tuple[str, ...]:
        return self._index.classes

    def labels(self) -> np.ndarray:
        return self._index.labels

    def ids(self) -> Sequence[str]:
        return self._index.names

    def read(self, i: int) -> bytes:
        return self._at(i).read_bytes()

    def place(self, i: int) -> tuple[str, int]:
        """The file of example i, and where it begins there."""
        return str(self._at(i)), 0

    def _at(self, i: int) -> Place:
        name = self._index.names[i]
        return Url(name) if is_remote(name) else self._file.parent / name

    def column(self, name: str) -> Sequence[str]:
        """What stands in the column `name` of each example, as a string; "" where nothing does.

        Raises a `UserError` for a column that there is not.
        """
        chosen = (values[0] for _, is_mine, values in self._rows(name) if is_mine)
        return Names.of("" if value is None else str(value) for value in chosen)

    @property
    def _file(self) -> Place:
        return at(self.path).absolute()

    @carried
    def _index(self) -> Index:
        return indexed(f"Table {self._file}\n{self!r}", stamp_of(self._checked()), self._found)

    def _checked(self) -> Place:
        file = self._file
        if not file.is_file() or file.suffix.lower() not in SUFFIXES:
            what = "is another" if file.is_file() else "is not there"
            raise UserError(
                f"The `path` of `Table` must be a file that ends in {', '.join(SUFFIXES)}; {file} "
                f"{what}"
            )
        return file

    def _rows(self, *names: str) -> Iterator[tuple[str, bool, tuple[Any, ...]]]:
        """Where a row stands, whether it is of this split, and what it has in the columns."""
        file = self._checked()
        if not self.split:
            for where, values in rows(file, names):
                yield where, True, values
            return
        seen = set()
        for where, (part, *others) in rows(file, (self.split_column, *names)):
            seen.add(str(part))
            yield where, part == self.split, tuple(others)
        if self.split not in seen:
            raise unknown(f"split of {file}", self.split, seen)

    def _found(self) -> tuple[Index, Arrays]:
        labels = _Labels(self.separator)

        def images() -> Iterator[str]:
            for where, is_mine, (image, label) in self._rows(self.image, self.label):
                labels.add(where, self.label, label, is_mine)
                if not isinstance(image, str) or not image or not _is_sound(image):
                    raise UserError(
                        f"The `{self.image}` must be the path of an image; got {image!r} ({where})"
                    )
                if is_mine:
                    yield image

        names = Names.of(images())
        if not names:
            raise UserError(f"The table must have a row for each image; {self._file} has none")
        classes, places = _classes(self._file, list(labels.places), self.class_names)
        return Index(classes, names, labels.array(places, len(classes))), {}


@final
class _Labels:
    """The labels of the rows, as the places of the words in the order of their first appearance."""

    def __init__(self, separator: str):
        self.places: dict[str, int] = {}
        self._separator = separator
        self._found, self._ends = array("i"), array("q")
        self._several: bool | None = None  # until there is a row

    def add(self, where: str, column: str, value: Any, is_kept: bool) -> None:
        several = isinstance(value, list)
        if self._separator and isinstance(value, str):
            value, several = [word for word in value.split(self._separator) if word.strip()], True
        if self._several not in (None, several):
            raise UserError(f"Either all rows must have a list of labels or none ({where})")
        self._several = several
        for each in value if several else (value,):
            word = each.strip() if isinstance(each, str) else each
            known = isinstance(word, str) and word in self.places
            if not known and not _is_label(word):
                raise UserError(
                    f"The `{column}` must be a name or a whole number; got {each!r} ({where})"
                )
            place = self.places.setdefault(str(word), len(self.places))
            if is_kept:
                self._found.append(place)
        if is_kept:
            self._ends.append(len(self._found))

    def array(self, places: np.ndarray, count: int) -> np.ndarray:
        """int32 (n,) or float32 (n, k); `places` (seen,): of each word seen, among the classes."""
        labels = places[np.frombuffer(self._found, np.int32)] if self._found else places[:0]
        if not self._several:
            return labels
        ends = np.frombuffer(self._ends, np.int64)
        several = np.zeros((len(ends), count), np.float32)
        several[np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0)), labels] = 1
        return several


def _is_label(word: Any) -> bool:
    if isinstance(word, str):
        return bool(word) and _is_sound(word)
    return isinstance(word, int) and not isinstance(word, bool)


def _is_sound(text: str) -> bool:
    """Whether the text can be a path: half a character, as JSON may have it, cannot."""
    return (text.isascii() and "\0" not in text) or not re.search("[\0\ud800-\udfff]", text)


def _classes(
    file: Place, seen: list[str], given: tuple[str, ...]
) -> tuple[tuple[str, ...], np.ndarray]:
    """The classes, and the place among them of each word that was `seen` as a label."""
    wrong = next(iter(sorted(set(seen) - set(given))), "") if given else ""
    if all(re.fullmatch(r"-?\d{1,18}", word) for word in seen) and (wrong or not given):
        numbers = [int(word) for word in seen]
        if not given and max(numbers, default=0) >= _MOST_NUMBERED:
            raise UserError(
                f"The whole numbers of a table must be the places of its classes; {file} has "
                f"{max(numbers)}: are they names? Then give them as `class_names`"
            )
        classes = given or numbered(max(numbers, default=-1) + 1)
        check_labels("Table", file, np.array(numbers, np.int64), classes)
        places = numbers
    elif wrong:
        close = nearest(wrong, given)
        hint = f" (is it {close!r}?)" if close else ""
        raise UserError(
            f"The labels of {file} must be among the {len(given)} classes of the training data; "
            f"got {wrong!r}{hint}"
        )
    else:
        numbers_too = next((word for word in seen if word.isdigit()), "") if not given else ""
        if numbers_too:
            name = next(word for word in seen if not word.isdigit())
            raise UserError(
                f"The labels of {file} must be all numbers or all names; got {numbers_too!r} and "
                f"{name!r}. If both are names, give all of them as `class_names`"
            )
        classes = given or tuple(sorted(seen))
        place_of = {name: place for place, name in enumerate(classes)}
        places = [place_of[word] for word in seen]
    check_classes("Table", file, classes)
    return classes, np.array(places, np.int32)
