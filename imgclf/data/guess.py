"""From the path of somebody's data to the sources in it."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, final

from imgclf.data.arrays import Arrays
from imgclf.data.cifar import Cifar
from imgclf.data.folder import EXTENSIONS, Folder
from imgclf.data.guess_folders import (
    check_meant,
    folder_sources,
    has_classes,
    has_image,
    holds_image,
    inner,
    without_classes,
)
from imgclf.data.guess_parquet import parquet_sources
from imgclf.data.guess_tables import faults, has_table, names_in, table_sources, tables
from imgclf.data.idx import FILE, Idx
from imgclf.data.parquet import Parquet, has_parquet_images
from imgclf.data.records import Records
from imgclf.data.remote import Place, Url, at
from imgclf.data.rows import SUFFIXES
from imgclf.data.shards import has_shards, sources_of
from imgclf.data.source import Source
from imgclf.data.split_names import HELD_OUT, chosen, is_split
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
    | `train/` and `val/`, or others of `split_names`, with class folders | two `Folder`s |
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
    URL there may be class folders, a table or tars. Where nothing is recognised at `path`, the one
    folder below that is recognised is taken.
    Where nothing is held out, a fifth is, by class in proportion and chosen by `seed`.

    Args:
        path: where the data lie.
        kind: one of `imgclf.data.KINDS`, where it is known already.
        seed: chooses the examples held out, where a split must be made.

    Raises:
        UserError: nothing was recognised, or more than one thing.
    """
    root, found, shown = _recognised(path, kind)
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
        f"{shown}: {what} ({len(train.classes):,} classes, {len(train):,} images) "
        f"for training, {other} ({len(held_out):,}) for evaluation"
    )
    if found is _KINDS["folder"] and (bare := without_classes(root)):
        said += f"; {' and '.join(bare)} left alone, without class folders"
    return Guess(train, {name: held_out}, said)


def whole(path: str, kind: str = "", classes: tuple[str, ...] = ()) -> tuple[Source, str]:
    """All that lies at `path` as one source to evaluate on, and a line that says what it is.

    Where a part is held out there already, that part alone is taken. Class folders, and labels of
    tables, tars and Parquet that no list beside them says the meaning of, take their places among
    `classes`, where these are given. Raises as `guess` does.
    """
    root, found, shown = _recognised(path, kind)
    train, evaluate = found.sources(root)
    name, source = evaluate or ("all", train)
    if isinstance(source, Tar | Parquet) and source.listed:
        classes = ()
    if classes and isinstance(source, Folder | Table | Tar | Parquet):
        source = dataclasses.replace(source, class_names=classes)
    return source, f"{shown}: {_said(found, source)} ({name}, {len(source):,} images)"


def _said(found: "_Kind", source: Source) -> str:
    if not isinstance(source, Table):
        return found.said
    return f"the table {at(source.path).name}, columns {source.image!r} and {source.label!r}"


def _recognised(path: str, kind: str) -> tuple[Place, "_Kind", str]:
    """Where the data lie, what they are, and a name for the place."""
    root = at(path)
    if kind and kind not in _KINDS:
        raise unknown("kind of data", kind, _KINDS)
    known = {n: each for n, each in _KINDS.items() if not isinstance(root, Url) or n in _REMOTE}
    if kind and kind not in known:
        raise UserError(f"What lies at a URL must be of a kind {', '.join(known)}; got {kind!r}")
    _check_exists(root)
    wanted = {kind: known[kind]} if kind else known
    found, kinds = root, _kinds_at(root, wanted)
    if not kinds:
        found, kinds = _below(root, wanted, kind)
    if len(kinds) > 1:
        takes = ", ".join(f"--kind {name} for {_KINDS[name].said}" for name in kinds)
        raise UserError(f"{found} holds more than one: {', '.join(kinds)} (name the kind): {takes}")
    if not kinds:
        raise _unrecognised(root, known)
    if not kind and kinds == ["folder"]:
        check_meant(found)
    return found, _KINDS[kinds[0]], _shown(root, found)


def _shown(root: Place, found: Place) -> str:
    below = str(found.absolute()).removeprefix(str(root.absolute()))
    return f"{root.resolve().name}{below}"


def _check_exists(root: Place) -> None:
    if root.exists():
        return
    if isinstance(root, Url) and root.is_other_file():
        raise UserError(
            f"What lies at a URL must be class folders, a table ({', '.join(SUFFIXES)}) or *.tar "
            f"files; got {root}, which must be copied to a disk to be read"
        )
    raise UserError(f"The path of the data must exist; there is nothing at {root}")


def _kinds_at(root: Place, known: dict[str, "_Kind"]) -> list[str]:
    return [name for name, each in known.items() if each.lies_at(root)]


def _below(root: Place, known: dict[str, "_Kind"], kind: str) -> tuple[Place, list[str]]:
    """The one folder below that holds something known, and what; else `root`, and what was asked.

    A folder of class folders must be the only folder there, or have a usual name: it may be a
    class. Raises a `UserError` where it is not clear which is meant.
    """
    found = list(_known_below(root, known))
    if len(found) == 1 and _is_sure(root, *found[0], kind):
        return found[0]
    if kind:
        return root, [kind]
    if found and not tables(root):
        places = " or ".join(str(folder) for folder, _ in found[:4])
        raise UserError(f"{root} must hold one data set; did you mean {places}?")
    lone = [folder for folder in inner(root) if not is_split(folder.name) and has_image(folder)]
    return root, ["folder"] if lone and not tables(root) else []


def _known_below(
    root: Place, known: dict[str, "_Kind"], depth: int = 2
) -> Iterator[tuple[Place, list[str]]]:
    folders = inner(root)
    for folder in folders if depth and len(folders) <= _MOST_FOLDERS else ():
        kinds = _kinds_at(folder, known)
        if kinds:
            yield folder, kinds
        else:
            yield from _known_below(folder, known, depth - 1)


def _is_sure(root: Place, folder: Place, kinds: list[str], kind: str) -> bool:
    if kinds != ["folder"]:
        return True
    if not kind and (tables(root) or holds_image(root)):
        return False
    return folder.name.lower() in _USUAL_FOLDERS or len(inner(folder.parent)) == 1


def _unrecognised(root: Place, known: dict[str, "_Kind"]) -> UserError:
    if tables(root):
        has_folders = root.is_dir() and any(map(has_classes, inner(root)))
        hint = "; if the folders below are the classes, say --kind folder" if has_folders else ""
        return UserError(f"{root} holds {faults(root)}{hint}")
    words = [each.wanted or each.said for each in known.values()]
    return UserError(
        f"{root} must hold {', '.join(words[:-1])} or {words[-1]}; it holds {_nothing_known(root)}"
    )


def _nothing_known(root: Place) -> str:
    names = names_in(root) if root.is_dir() else [root.name]
    if any(name.lower().endswith(EXTENSIONS) for name in names) or any(map(has_image, inner(root))):
        return _NO_CLASSES
    local = next((name for name in sorted(names) if name.lower().endswith(_LOCAL)), "")
    if isinstance(root, Url) and local:
        return f"{local}, which is of a kind that must be copied to a disk to be read"
    return "none of them"


_MOST_FOLDERS = 20  # in a folder in which what is known is looked for
_USUAL_FOLDERS = ("data", "raw", "dataset")  # that hold a data set, and are no class
_LOCAL = (".npz", ".bin", "-ubyte", "-ubyte.gz", ".parquet", "dataset_info.json")
_NO_CLASSES = (
    "images that nothing says the classes of (put them into a folder for each class, or a table "
    "labels.csv beside them, with the columns path and label)"
)

_Sources = tuple[Source, tuple[str, Source] | None]  # for training, and held out under a name


class _Kind(NamedTuple):
    said: str
    lies_at: Callable[[Any], bool]  # of a `Place`, or a `Path` if it is not in `_REMOTE`
    sources: Callable[[Any], _Sources]
    wanted: str = ""  # what it is in a list of what may be there, if another word is better


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
    learned, other = chosen(root, [file.stem for file in files])
    if learned and other:
        train = Arrays(str(root / f"{learned}.npz"))
        held_out = Arrays(str(root / f"{other}.npz"), class_names=train.classes)
        return train, (other.lower(), held_out)
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
    "folder": _Kind("class folders", has_classes, folder_sources, "class folders with images"),
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
        parquet_sources,
        "*.parquet files with images",
    ),
}
