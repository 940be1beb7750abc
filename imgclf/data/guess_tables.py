"""Which of somebody's tables, and which of their columns, hold paths and labels."""

import dataclasses
import os
from collections.abc import Collection
from itertools import islice

from imgclf.data.remote import Place, Url
from imgclf.data.rows import SUFFIXES, columns, has_words, rows
from imgclf.data.split_names import HELD_OUT, SPLITS, chosen, is_split
from imgclf.data.table import Table
from imgclf.errors import UserError

IMAGE_COLUMNS = ("path", "file", "filename", "file_name", "image")
LABEL_COLUMNS = ("label", "class", "target")
"""What is usual, in upper or lower case; the first that is there is taken."""

_LOOKED_AT = 100  # rows of a table
_MOST_REMOTE, _LARGEST_REMOTE = 8, 64 << 20  # Parquet files at a URL, and bytes of each


def names_in(folder: Place) -> list[str]:
    """What is in a folder."""
    return folder.names() if isinstance(folder, Url) else os.listdir(folder)


def tables(root: Place) -> list[Place]:
    """The files at `root`, or in it, that end as a table does."""
    if not root.is_dir():
        return [root] if root.name.lower().endswith(SUFFIXES) else []
    found = sorted(name for name in names_in(root) if name.lower().endswith(SUFFIXES))
    if isinstance(root, Url):
        few = sum(map(_is_parquet, found)) <= _MOST_REMOTE
        found = [n for n in found if not _is_parquet(n) or (few and _is_small(root / n))]
    return [root / name for name in found]


def _is_parquet(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _is_small(file: Url) -> bool:
    """Whether a file is no gigabytes of images, which would be copied to be looked at."""
    size = file.size()
    return size is not None and size <= _LARGEST_REMOTE


def names_folders(file: Place, folders: Collection[str]) -> bool:
    """Whether a column of a table names these folders, or files in them: it says what they say."""
    try:
        words = [name for name in columns(file) if has_words(file, name)]
        first = [values for _, values in islice(rows(file, words), _LOOKED_AT)]
    except UserError:
        return False
    return any(
        all(isinstance(each, str) and each.split("/")[0] in folders for each in column)
        for column in zip(*first, strict=True)
    )


def faults(root: Place) -> str:
    """What is wrong with the tables at `root`, none of which can be used, in words."""
    first, *others = sorted(tables(root), key=lambda file: not is_split(file.stem))
    said = _fault(first)
    if others:
        shown = ", ".join(file.name for file in others[:5]) + (", ..." if others[5:] else "")
        said += f"; nor is {shown} a table of paths and labels"
    return said


def _fault(file: Place) -> str:
    try:
        there = columns(file)
    except UserError as error:
        return f"a table that is of no use: {error}"
    if not there:
        return f"a table, {file.name}, that is empty"
    usual = {name.lower() for name in there}
    if usual & set(IMAGE_COLUMNS) and usual & set(LABEL_COLUMNS):
        hint = " (images in Parquet are read from a disk alone)" if isinstance(file, Url) else ""
        return f"a table, {file.name}, whose column of paths holds something else than text{hint}"
    shown = ", ".join(name if name == name.strip() else repr(name) for name in there)
    return (
        f"a table, {file.name}, with the columns {shown}: one must be called "
        f"{', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}, and one "
        f"{', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]} ({_remedy(file, there)})"
    )


def _remedy(file: Place, there: list[str]) -> str:
    if any(name != name.strip() for name in there):
        return "take the blanks out of its first line"
    other = next((mark for mark in ";\t|," if mark in there[0]), "") if len(there) == 1 else ""
    if other:
        wanted = "tabs" if file.suffix.lower() == ".tsv" else "commas"
        return f"separate its columns by {wanted}; got {other!r}"
    return f"rename them, or write a recipe with Table({file.name!r}, image=COLUMN, label=COLUMN)"


def _usable(root: Place) -> list[Place]:
    return [file for file in tables(root) if _usual(file)]


def _usual(file: Place) -> tuple[str, str] | None:
    """The columns of a table that are meant for paths and for labels."""
    try:
        there = {name.lower(): name for name in reversed(columns(file))}
        image = next((there[name] for name in IMAGE_COLUMNS if name in there), "")
        label = next((there[name] for name in LABEL_COLUMNS if name in there), "")
        return (image, label) if image and label and has_words(file, image) else None
    except UserError:
        return None


def has_table(root: Place) -> bool:
    """Whether a table of paths and labels is at `root`, or in it."""
    return bool(_usable(root))


def table_sources(root: Place) -> tuple[Table, tuple[str, Table] | None]:
    """What the tables at `root` are for: training, and evaluation under its name.

    Raises a `UserError` where that is not clear.
    """
    files = _usable(root)
    if len(files) == 1:
        return _parts(files[0])
    if not files and tables(root):
        raise UserError(f"{root} must hold a table of paths and labels; it holds {faults(root)}")
    named = {file.stem: file for file in files}
    learned, other = chosen(root, named)
    if learned and other and len(named) == len(files):
        train = _one(named[learned])
        held_out = dataclasses.replace(_one(named[other]), class_names=train.classes)
        return train, (other.lower(), held_out)
    raise UserError(
        f"{root} must hold a single table with the columns path and label, or train.csv and one of "
        f"{', '.join(f'{name}.csv' for name in HELD_OUT)}; got "
        f"{', '.join(file.name for file in files) or _instead(root)}"
    )


def _instead(root: Place) -> str:
    names = sorted(names_in(root)) if root.is_dir() else [root.name]
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"none, but {shown}" if names else "none"


def _one(file: Place) -> Table:
    image, label = _usual(file) or ("path", "label")
    return Table(str(file), image, label)


def _parts(file: Place) -> tuple[Table, tuple[str, Table] | None]:
    """The rows for training and those for evaluation, if a column says which are which."""
    table = _one(file)
    column = next((name for name in columns(file) if name.lower() == "split"), "")
    if not column:
        return table, None
    found = {str(value) for _, (value,) in rows(file, [column])}
    odd = [word for word in found if not is_split(word)]
    if odd:
        raise UserError(
            f"The column {column!r} of {file} must have the words {', '.join(SPLITS)}; got "
            f"{min(odd)!r}"
        )
    learned, other = chosen(f"The column {column!r} of {file}", found)
    if not learned or not other:
        return table, None
    train = dataclasses.replace(table, split=learned, split_column=column)
    return train, (other.lower(), dataclasses.replace(train, split=other))
