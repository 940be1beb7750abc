"""From the path of somebody's data to the sources in it."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, final

from imgclf.data.arrays import Arrays
from imgclf.data.cifar import Cifar
from imgclf.data.folder import EXTENSIONS, SPLITS, Folder
from imgclf.data.records import Records
from imgclf.data.source import Source
from imgclf.data.splits import Split
from imgclf.data.tfds import TFDS, newest_version
from imgclf.errors import UserError, unknown

_HELD_OUT = SPLITS[1:]  # what the part for evaluation may be called; the first found is taken


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
    """The sources that lie at `path`: a folder or a file.

    | there is | it is taken as |
    |---|---|
    | `train/` and `val/`, `valid/`, `validation/` or `test/`, with class folders | two `Folder`s |
    | class folders | a `Folder`, split |
    | `data_batch_*.bin` or `train.bin` | `Cifar` |
    | `*.npz`: `train.npz` and one of the names above, or a single file | `Arrays` |
    | `dataset_info.json`, here or in a version's folder | `TFDS` |
    | `*.array_record*` files | `Records`, split |

    Where nothing is held out, a fifth is, by class in proportion and chosen by `seed`.

    Args:
        path: where the data lie.
        kind: one of "folder", "cifar", "arrays", "tfds" and "records", where it is known already.
        seed: chooses the examples held out, where a split must be made.

    Raises:
        UserError: nothing was recognised, or more than one thing.
    """
    root, found = _recognised(path, kind)
    train, evaluate = found.sources(root)
    what = found.said
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

    Where a part is held out there already, that part alone is taken. Class folders take their
    places among `classes`, where these are given. Raises as `guess` does.
    """
    root, found = _recognised(path, kind)
    train, evaluate = found.sources(root)
    name, source = evaluate or ("all", train)
    if classes and isinstance(source, Folder):
        source = dataclasses.replace(source, class_names=classes)
    return source, f"{root.resolve().name}: {found.said} ({name}, {len(source):,} images)"


def _recognised(path: str, kind: str) -> tuple[Path, "_Kind"]:
    root = Path(path).expanduser()
    if kind and kind not in _KINDS:
        raise unknown("kind of data", kind, _KINDS)
    if not root.exists():
        raise UserError(f"The path of the data must exist; there is nothing at {root}")
    kinds = [kind] if kind else [name for name, each in _KINDS.items() if each.lies_at(root)]
    if len(kinds) != 1:
        found = f"more than one: {', '.join(kinds)} (name the kind)" if kinds else "none of them"
        raise UserError(
            f"{root} must hold class folders with images, CIFAR's binary files, an .npz file, a "
            f"TFDS data set or *.array_record* files; it holds {found}"
        )
    return root, _KINDS[kinds[0]]


_Sources = tuple[Source, tuple[str, Source] | None]


class _Kind(NamedTuple):
    said: str
    lies_at: Callable[[Path], bool]
    sources: Callable[[Path], _Sources]


def _has_folder(root: Path) -> bool:
    """Whether there is an image in a folder of a folder, at any depth."""
    if not root.is_dir():
        return False
    below = (top for top in root.iterdir() if top.is_dir() and not top.name.startswith("."))
    return any(
        name.lower().endswith(EXTENSIONS)
        for top in below
        for _, _, names in os.walk(top, followlinks=True)
        for name in names
    )


def _folders(root: Path) -> _Sources:
    if not (root / "train").is_dir():
        return Folder(str(root)), None
    train = Folder(str(root / "train"))
    for name in _HELD_OUT:
        if (root / name).is_dir():
            return train, (name, Folder(str(root / name), class_names=train.classes))
    return train, None


def _has_cifar(root: Path) -> bool:
    return any(root.glob("data_batch_*.bin")) or (root / "train.bin").is_file()


def _cifar(root: Path) -> _Sources:
    train, test = Cifar("train", str(root)), Cifar("test", str(root))
    has_test = any((root / name).is_file() for name in ("test_batch.bin", "test.bin"))
    return train, ("test", test) if has_test else None


def _has_arrays(root: Path) -> bool:
    return root.suffix == ".npz" or any(root.glob("*.npz"))


def _arrays(root: Path) -> _Sources:
    if root.is_file():
        return Arrays(str(root)), None
    files = sorted(root.glob("*.npz"))
    if len(files) == 1:
        return Arrays(str(files[0])), None
    for name in _HELD_OUT:
        if (root / "train.npz").is_file() and (root / f"{name}.npz").is_file():
            return Arrays(str(root / "train.npz")), (name, Arrays(str(root / f"{name}.npz")))
    raise UserError(
        f"{root} must hold a single .npz file, or train.npz and one of "
        f"{', '.join(f'{name}.npz' for name in _HELD_OUT)}; got "
        f"{', '.join(file.name for file in files) or 'none'}"
    )


def _has_tfds(root: Path) -> bool:
    return newest_version(root) is not None


def _tfds(root: Path) -> _Sources:
    train = TFDS(str(root))
    for name in _HELD_OUT:
        if name in train.splits:
            return train, (name, TFDS(str(root), name))
    return train, None


def _has_records(root: Path) -> bool:
    return ".array_record" in root.name or (
        any(root.glob("*.array_record*")) and not _has_tfds(root)
    )


def _records(root: Path) -> _Sources:
    return Records(str(root)), None


_KINDS = {
    "folder": _Kind("class folders", _has_folder, _folders),
    "cifar": _Kind("CIFAR's binary files", _has_cifar, _cifar),
    "arrays": _Kind("arrays", _has_arrays, _arrays),
    "tfds": _Kind("a TFDS data set", _has_tfds, _tfds),
    "records": _Kind("ArrayRecord shards", _has_records, _records),
}
