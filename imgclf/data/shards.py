"""The files that one source is kept in, and the list of classes that lies beside them."""

import glob
import json
import re
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from imgclf.data.remote import Place, Url, at, is_remote
from imgclf.data.source import Source, check_classes, numbered
from imgclf.data.split_names import HELD_OUT
from imgclf.errors import UserError, unknown

_MOST_CLASSES = 1_000_000  # a damaged label should not make names without end


def shards(kind: str, path: str, ending: str) -> list[str]:
    """The files at `path`: one, those of a folder that end so, or what fits a pattern.

    A pattern has `*`, or braces that count: `train-{000..012}.tar`, of which each must be there.
    """
    where = at(path)
    counted = _counted(str(where))
    if counted:
        local = (file for file in counted if not is_remote(file))
        missing = next((file for file in local if not Path(file).is_file()), None)
        if missing:
            raise UserError(f"The `path` of `{kind}` must name files; there is no {missing}")
        return counted
    if where.is_dir():
        found = sorted(str(file) for file in where.glob(f"*{ending}"))
    elif where.is_file():
        found = [str(where)]
    elif isinstance(where, Url):
        found = sorted(map(str, where.parent.glob(where.name)))
    else:
        found = fitting(where)
    if not found:
        raise UserError(
            f"The `path` of `{kind}` must be a {ending} file, a folder with some, or a pattern "
            f"that fits some; nothing fits {where}"
        )
    return found


def fitting(pattern: Path) -> list[str]:
    """The files that a pattern fits, sorted; a folder that there is may be called as it likes."""
    if pattern.is_file():
        return [str(pattern)]
    folder = pattern.parent
    if folder.is_dir():
        return sorted(str(folder / name) for name in glob.glob(pattern.name, root_dir=folder))
    return sorted(glob.glob(str(pattern)))


def _counted(pattern: str) -> list[str]:
    span = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not span:
        return []
    first, last = span.groups()
    numbers = (str(number).zfill(len(first)) for number in range(int(first), int(last) + 1))
    names = [pattern[: span.start()] + number + pattern[span.end() :] for number in numbers]
    return list(chain.from_iterable(_counted(name) or [name] for name in names))


def names_beside(shard: str) -> tuple[str, ...]:
    """The classes as the lines of a `labels.txt` or `classes.txt` beside a file, or none.

    A `labels.json` or `classes.json` with a list of names is read likewise.
    """
    for name in ("labels.txt", "classes.txt", "labels.json", "classes.json"):
        file = at(shard).parent / name
        if not file.is_file():
            continue
        try:
            with file.open(encoding="utf-8") as opened:
                text = opened.read()
            lines = json.loads(text) if file.suffix == ".json" else text.splitlines()
        except ValueError:
            lines = None
        if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
            raise UserError(f"{file} must hold the names of the classes; got something else")
        return tuple(line.strip() for line in lines if line.strip())
    return ()


def placed(
    kind: str, path: str, texts: Sequence[str], given: tuple[str, ...], ids: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels int32 (n,) and classes of texts that are all whole numbers, or all names of classes.

    `given` are the classes in their order; where there are none, they are the names in order. The
    errors name the first of the `ids` (n,) that has a wrong label.
    """

    def where(text: str) -> str:
        return f"({ids[texts.index(text)]} in {path})"

    different = sorted(set(texts))
    numbers = [text for text in different if text.isascii() and text.isdigit()]
    known = set(given)
    hidden = next((t for t in different if re.fullmatch(r"-\d+", t) and t not in known), None)
    if hidden is not None:
        raise UserError(
            f"The labels of `{kind}` must be 0 or more; got {hidden}, which often stands for "
            f"labels that are not published: leave that part out {where(hidden)}"
        )
    if numbers and not set(different) <= known:
        odd = next((text for text in different if text not in numbers), None)
        if odd is not None:
            raise UserError(
                f"The labels of `{kind}` must be all numbers or all names; got {numbers[0]!r} and "
                f"{odd!r} {where(odd)}"
            )
        places = {text: int(text) for text in different}
        greatest = max(places.values())
        if greatest >= _MOST_CLASSES:
            raise UserError(
                f"The labels of `{kind}` must be below {_MOST_CLASSES:,}; got {greatest} "
                f"{where(next(text for text in different if places[text] == greatest))}"
            )
        classes = given or numbered(greatest + 1)
        wrong = next((text for text in different if places[text] >= len(classes)), None)
        if wrong is not None:
            raise UserError(
                f"The labels of `{kind}` must lie in 0..{len(classes) - 1}, the places of its "
                f"classes; got {wrong} {where(wrong)}"
            )
    else:
        classes = given or tuple(different)
        places = {name: place for place, name in enumerate(classes)}
        for text in different:
            if text not in places:
                raise unknown(f"class in {path} ({ids[texts.index(text)]})", text, classes)
    check_classes(kind, path, classes)
    return np.fromiter((places[text] for text in texts), np.int32, len(texts)), classes


def has_shards(ending: str) -> Callable[[Place], bool]:
    """Whether a path is a file that ends so, or a folder with some: for guessing what it is."""
    return lambda root: root.suffix == ending if root.is_file() else any(root.glob(f"*{ending}"))


def sources_of(
    kind: Callable[..., Source], ending: str
) -> Callable[[Place], tuple[Source, tuple[str, Source] | None]]:
    """What is in a file or folder: `train*` and the held-out shards by name, or all as one."""

    def found(root: Place) -> tuple[Source, tuple[str, Source] | None]:
        if any(root.glob(f"train*{ending}")):
            for name in HELD_OUT:
                single = (root / f"{name}{ending}").is_file()
                pattern = f"{name}{ending}" if single else f"{name}[-_]*{ending}"
                if any(root.glob(pattern)):
                    train = kind(str(root / f"train*{ending}"))
                    held_out = kind(str(root / pattern), class_names=train.classes)
                    return train, (name, held_out)
        return kind(str(root)), None

    return found
