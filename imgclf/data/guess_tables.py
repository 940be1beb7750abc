"""Which of somebody's tables, and which of their columns, hold paths and labels."""

import dataclasses
import os

from imgclf.data.folder import SPLITS
from imgclf.data.remote import Place, Url
from imgclf.data.rows import SUFFIXES, columns, has_words, rows
from imgclf.data.table import Table
from imgclf.errors import UserError

IMAGE_COLUMNS = ("path", "file", "filename", "file_name", "image")
LABEL_COLUMNS = ("label", "class", "target")
"""What is usual, in upper or lower case; the first that is there is taken."""

HELD_OUT = SPLITS[1:]
"""What the part for evaluation may be called; the first that is there is taken."""


def names_in(folder: Place) -> list[str]:
    """What is in a folder."""
    return folder.names() if isinstance(folder, Url) else os.listdir(folder)


def tables(root: Place) -> list[Place]:
    """The files at `root`, or in it, that end as a table does."""
    if not root.is_dir():
        return [root] if root.name.lower().endswith(SUFFIXES) else []
    found = sorted(name for name in names_in(root) if name.lower().endswith(SUFFIXES))
    if isinstance(root, Url):  # those may be gigabytes of images, to be copied to be looked at
        found = [name for name in found if not name.lower().endswith(".parquet")]
    return [root / name for name in found]


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
    named = {file.stem: file for file in files}
    if "train" in named and len(named) == len(files):
        for name in (name for name in HELD_OUT if name in named):
            train = _one(named["train"])
            held_out = dataclasses.replace(_one(named[name]), class_names=train.classes)
            return train, (name, held_out)
    raise UserError(
        f"{root} must hold a single table with the columns path and label, or train.csv and one of "
        f"{', '.join(f'{name}.csv' for name in HELD_OUT)}; got "
        f"{', '.join(file.name for file in files) or 'none'}"
    )


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
    if not found <= set(SPLITS):
        raise UserError(
            f"The column {column!r} of {file} must have the words {', '.join(SPLITS)}; got "
            f"{min(found - set(SPLITS))!r}"
        )
    for name in (name for name in HELD_OUT if name in found and "train" in found):
        train = dataclasses.replace(table, split="train", split_column=column)
        return train, (name, dataclasses.replace(train, split=name))
    return table, None
