"""Which of somebody's folders are classes, and which the parts for training and evaluation."""

import os
from collections.abc import Iterable, Sequence
from itertools import islice

from imgclf.data.folder import EXTENSIONS, Folder
from imgclf.data.formats import is_hidden
from imgclf.data.guess_tables import faults, has_table, names_folders, names_in, tables
from imgclf.data.remote import Place, Url
from imgclf.data.split_names import chosen, is_split
from imgclf.errors import UserError


def has_classes(root: Place) -> bool:
    """Whether there are class folders with images, at any depth, at `root` or in its `train`."""
    if not root.is_dir():
        return False
    train, _ = _parts(root)
    folders = [each for each in inner(root) if not is_split(each.name)]
    # The images of a table may lie in a folder, or in one for each split.
    least = 1 if train and not has_table(root) else 2
    return _count(inner(train) if train else folders, least) == least


def folder_sources(root: Place) -> tuple[Folder, tuple[str, Folder] | None]:
    """What the folders at `root` are for: training, and evaluation under its name."""
    folder, held_out = _parts(root)
    if not folder:
        return Folder(str(root)), None
    train = Folder(str(folder))
    if not held_out:
        return train, None
    return train, (held_out.name.lower(), Folder(str(held_out), class_names=train.classes))


def without_classes(root: Place) -> list[str]:
    """The parts at `root` that hold images and no folders, as those of a competition do."""
    return [f"{x.name}/" for x in inner(root) if is_split(x.name) and not inner(x) and has_image(x)]


def check_meant(root: Place) -> None:
    """Raises a `UserError` if the folders at `root` may be something else than classes."""
    train, _ = _parts(root)
    classes = inner(train or root)
    names, there = {each.name for each in classes}, tables(root)
    if not train and there and not any(names_folders(file, names) for file in there):
        raise UserError(
            f"{root} holds folders of images and {faults(root)}; if the folders are the classes, "
            f"say --kind folder"
        )
    if any(map(holds_image, classes)):
        return
    several = next((each for each in classes if _count(inner(each), 2) == 2), None)
    if several:
        raise UserError(
            f"The class folders of {train or root} must hold images; "
            f"{_listed(each.name for each in classes)} hold only folders, such as "
            f"{_listed(each.name for each in inner(several))}: did you mean {several}? (--kind "
            f"folder makes a class of each, with all images below it)"
        )


def inner(folder: Place) -> Sequence[Place]:
    """The folders in a folder by name, but hidden ones."""
    if isinstance(folder, Url):
        return folder.folders()
    try:
        with os.scandir(folder) as entries:
            names = [e.name for e in entries if not is_hidden(e.name) and e.is_dir()]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def has_image(folder: Place) -> bool:
    """Whether there is an image in a folder, at any depth."""
    if isinstance(folder, Url):
        files = (name for name, _ in folder.walk())
    else:
        files = (each for _, _, names in os.walk(folder, followlinks=True) for each in names)
    return any(map(_is_image, files))


def holds_image(folder: Place) -> bool:
    """Whether there is an image in a folder itself."""
    try:
        return any(map(_is_image, names_in(folder)))
    except OSError:
        return False


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _count(folders: Iterable[Place], most: int) -> int:
    return sum(1 for _ in islice(filter(has_image, folders), most))


def _parts(root: Place) -> tuple[Place | None, Place | None]:
    """The folders for training and evaluation: a class may be called `train`, but holds none."""
    found = {each.name: each for each in inner(root) if is_split(each.name) and inner(each)}
    train, held_out = chosen(root, found)
    return found.get(train), found.get(held_out)


def _listed(names: Iterable[str]) -> str:
    shown = list(islice(names, 6))
    return ", ".join([*shown[:5], "..."] if len(shown) > 5 else shown)
