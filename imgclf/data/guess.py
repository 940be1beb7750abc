"""From the path of somebody's data to the sources in it."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

from imgclf.data.arrays import Arrays
from imgclf.data.cifar import Cifar
from imgclf.data.folder import EXTENSIONS, Folder
from imgclf.data.guess_tables import (
    HELD_OUT,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    has_table,
    names_in,
    table_sources,
    tables,
)
from imgclf.data.idx import FILE, Idx
from imgclf.data.parquet import Parquet, has_parquet_images
from imgclf.data.records import Records
from imgclf.data.remote import Place, Url, at
from imgclf.data.rows import columns
from imgclf.data.shards import has_shards, sources_of
from imgclf.data.source import Source
from imgclf.data.splits import Split
from imgclf.data.table import Table
from imgclf.data.tars import Tar
from imgclf.data.tfds import TFDS, newest_version
from imgclf.errors import UserError, unknown


@final
@dataclass(frozen=True)
class Guess:
    """What was found at a path, ready to be trained on."""

    train: Source
    """What is learned from."""
    evaluate: dict[str, Source] = field(default_factory=dict)
    """What is held out, under the name that it has there."""
    said: str = ""
    """One line for the person who gave the path."""


def guess(path: str, kind: str = "", seed: int = 0) -> Guess:
    """The sources that lie at `path`: a folder or a file, on disk or at a URL.

    | there is | it is taken as |
    |---|---|
    | `train/` and `val/`, `valid/`, `validation/` or `test/`, with class folders | two `Folder`s |
    | class folders | a `Folder`, split |
    | `*.csv`, `*.tsv`, `*.jsonl` or `*.parquet` with columns of paths and labels | `Table` |
    | `data_batch_*.bin` or `train.bin` | `Cifar` |
    | `train-images-idx3-ubyte`, also `.gz` | `Idx` |
    | `*.npz`: `train.npz` and one of the names above, or a single file | `Arrays` |
    | `dataset_info.json`, here or in a version's folder | `TFDS` |
    | `*.array_record*` files | `Records`, split |
    | `*.tar` files | `Tar`; `train*` and one of the names above, or all, split |
    | `*.parquet` files with a column of images | `Parquet`, likewise |

    A table has a usual name for each column (`path`, `file`, `filename`, `file_name` or `image`;
    `label`, `class` or `target`). What is held out is a column `split`, or a table of its own. At a
    URL there may be class folders, a table or tars.
    Where nothing is held out, a fifth is, by class in proportion and chosen by `seed`.

    Args:
        path: where the data lie.
        kind: one of `imgclf.data.KINDS`, where it is known already.
        seed: chooses the examples held out, where a split must be made.

    Raises:
        UserError: nothing was recognised, or more than one thing.
    """
    root, found = _recognised(path, kind)
    train, evaluate = found.sources(root)
    what = _said(found, train)
    if evaluate:
        name, held_out = evaluate
        other = name
    else:
        name, held_out = "test", Split(train, "test", seed=seed)
        train = Split(train, "train", seed=seed)
        what, other = f"80 % of {what}", "the rest"
    said = (
        f"{root.resolve().name}: {what} ({len(train.classes):,} classes, {len(train):,} images) "
        f"for training, {other} ({len(held_out):,}) for evaluation"
    )
    return Guess(train, {name: held_out}, said)


def whole(path: str, kind: str = "", classes: tuple[str, ...] = ()) -> tuple[Source, str]:
    """All that lies at `path` as one source to evaluate on, and a line that says what it is.

    Where a part is held out there already, that part alone is taken. Class folders and the labels
    of tables take their places among `classes`, where these are given. Raises as `guess` does.
    """
    root, found = _recognised(path, kind)
    train, evaluate = found.sources(root)
    name, source = evaluate or ("all", train)
    if classes and isinstance(source, Folder | Table):
        source = dataclasses.replace(source, class_names=classes)
    return source, f"{root.resolve().name}: {_said(found, source)} ({name}, {len(source):,} images)"


def _said(found: "_Kind", source: Source) -> str:
    if not isinstance(source, Table):
        return found.said
    return f"the table {at(source.path).name}, columns {source.image!r} and {source.label!r}"


def _recognised(path: str, kind: str) -> tuple[Place, "_Kind"]:
    root = at(path)
    if kind and kind not in _KINDS:
        raise unknown("kind of data", kind, _KINDS)
    known = {n: each for n, each in _KINDS.items() if not isinstance(root, Url) or n in _REMOTE}
    if kind and kind not in known:
        raise UserError(f"What lies at a URL must be of a kind {', '.join(known)}; got {kind!r}")
    if not root.exists():
        raise UserError(f"The path of the data must exist; there is nothing at {root}")
    kinds = [kind] if kind else [name for name, each in known.items() if each.lies_at(root)]
    if len(kinds) > 1:
        takes = ", ".join(f"--kind {name} for {_KINDS[name].said}" for name in kinds)
        raise UserError(f"{root} holds more than one: {', '.join(kinds)} (name the kind): {takes}")
    if not kinds:
        wanted = [each.wanted or each.said for each in known.values()]
        raise UserError(
            f"{root} must hold {', '.join(wanted[:-1])} or {wanted[-1]}; it holds "
            f"{_nothing_known(root)}"
        )
    return root, _KINDS[kinds[0]]


def _nothing_known(root: Place) -> str:
    for file in tables(root):
        return (
            f"a table, {file.name}, with the columns {', '.join(columns(file))}: one must be "
            f"called {', '.join(IMAGE_COLUMNS[:-1])} or {IMAGE_COLUMNS[-1]}, and one "
            f"{', '.join(LABEL_COLUMNS[:-1])} or {LABEL_COLUMNS[-1]}"
        )
    names = names_in(root) if root.is_dir() else [root.name]
    if any(name.lower().endswith(EXTENSIONS) for name in names):
        return (
            "images that nothing says the classes of (put them into a folder for each class, or "
            "a table labels.csv beside them, with the columns path and label)"
        )
    return "none of them"


_Sources = tuple[Source, tuple[str, Source] | None]  # for training, and held out under a name


class _Kind(NamedTuple):
    said: str
    lies_at: Callable[[Any], bool]  # of a `Place`, or a `Path` if it is not in `_REMOTE`
    sources: Callable[[Any], _Sources]
    wanted: str = ""  # what it is in a list of what may be there, if another word is better


def _has_folder(root: Place) -> bool:
    """Whether there is an image in a folder of a folder, at any depth."""
    if not root.is_dir():
        return False
    if not any(map(_has_image, _inner(root))):
        return False
    # The images of a table may lie in a folder, or in one for each split.
    classes = _inner(root / "train" if (root / "train").is_dir() else root)
    return not has_table(root) or sum(map(_has_image, classes)) > 1


def _inner(folder: Place) -> Sequence[Place]:
    if isinstance(folder, Url):
        return folder.folders()
    with os.scandir(folder) as entries:
        return [Path(e.path) for e in entries if not e.name.startswith(".") and e.is_dir()]


def _has_image(folder: Place) -> bool:
    if isinstance(folder, Url):
        files = (name for name, _ in folder.walk())
    else:
        files = (each for _, _, names in os.walk(folder, followlinks=True) for each in names)
    return any(name.lower().endswith(EXTENSIONS) for name in files)


def _folders(root: Place) -> _Sources:
    if not (root / "train").is_dir():
        return Folder(str(root)), None
    train = Folder(str(root / "train"))
    for name in HELD_OUT:
        if (root / name).is_dir():
            return train, (name, Folder(str(root / name), class_names=train.classes))
    return train, None


def _has_cifar(root: Path) -> bool:
    return any(root.glob("data_batch_*.bin")) or (root / "train.bin").is_file()


def _cifar(root: Path) -> _Sources:
    train, test = Cifar("train", str(root)), Cifar("test", str(root))
    has_test = any((root / name).is_file() for name in ("test_batch.bin", "test.bin"))
    return train, ("test", test) if has_test else None


def _has_idx(root: Path) -> bool:
    return any(FILE.fullmatch(file.name) for file in root.glob("*-ubyte*"))


def _idx(root: Path) -> _Sources:
    names = [match for file in root.glob("*-ubyte*") if (match := FILE.fullmatch(file.name))]
    has_test = any(match["split"] != "train" for match in names)
    return Idx("train", str(root)), ("test", Idx("test", str(root))) if has_test else None


def _has_arrays(root: Path) -> bool:
    return root.suffix == ".npz" or any(root.glob("*.npz"))


def _arrays(root: Path) -> _Sources:
    if root.is_file():
        return Arrays(str(root)), None
    files = sorted(root.glob("*.npz"))
    if len(files) == 1:
        return Arrays(str(files[0])), None
    for name in HELD_OUT:
        if (root / "train.npz").is_file() and (root / f"{name}.npz").is_file():
            return Arrays(str(root / "train.npz")), (name, Arrays(str(root / f"{name}.npz")))
    raise UserError(
        f"{root} must hold a single .npz file, or train.npz and one of "
        f"{', '.join(f'{name}.npz' for name in HELD_OUT)}; got "
        f"{', '.join(file.name for file in files) or 'none'}"
    )


def _has_tfds(root: Path) -> bool:
    return newest_version(root) is not None


def _tfds(root: Path) -> _Sources:
    train = TFDS(str(root))
    for name in HELD_OUT:
        if name in train.splits:
            return train, (name, TFDS(str(root), name))
    return train, None


def _has_records(root: Path) -> bool:
    return ".array_record" in root.name or (
        any(root.glob("*.array_record*")) and not _has_tfds(root)
    )


def _records(root: Path) -> _Sources:
    return Records(str(root)), None


_REMOTE = ("folder", "table", "tar")

_KINDS = {
    "folder": _Kind("class folders", _has_folder, _folders, "class folders with images"),
    "table": _Kind("a table", has_table, table_sources, "a table of paths and labels"),
    "cifar": _Kind("CIFAR's binary files", _has_cifar, _cifar),
    "idx": _Kind("IDX files", _has_idx, _idx, "MNIST's IDX files"),
    "arrays": _Kind("arrays", _has_arrays, _arrays, "an .npz file"),
    "tfds": _Kind("a TFDS data set", _has_tfds, _tfds),
    "records": _Kind("ArrayRecord shards", _has_records, _records, "*.array_record* files"),
    "tar": _Kind("tar shards", has_shards(".tar"), sources_of(Tar, ".tar"), "*.tar files"),
    "parquet": _Kind(
        "Parquet images",
        has_parquet_images,
        sources_of(Parquet, ".parquet"),
        "*.parquet files with images",
    ),
}
