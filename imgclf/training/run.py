"""A run folder: what a run writes, where, and how it is found again."""

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imgclf.data.remote import absolute
from imgclf.data.source import as_written
from imgclf.errors import UserError
from imgclf.recipe.description import at_default, describe, differences, may_change
from imgclf.recipe.files import LoadedRecipe, load_file
from imgclf.training.manifest import write_whole


@dataclass(frozen=True)
class Run:
    """The paths of a run folder."""

    folder: Path

    @property
    def resolved(self) -> Path:
        return self.folder / "resolved.json"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def bad_records(self) -> Path:
        return self.folder / "bad_records.jsonl"

    @property
    def result(self) -> Path:
        return self.folder / "result.json"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


def new_folder(name: str) -> Path:
    """Makes `runs/NAME-YYYYMMDD-HHMMSS`, with a number behind where that is taken."""
    stem = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    number, folder = 1, stem
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
            folder = stem.with_name(f"{stem.name}-{number}")
        except OSError as error:
            raise UserError(f"Cannot make the run folder {folder}: {error.strerror}") from error


@contextlib.contextmanager
def sole_trainer(folder: Path) -> Iterator[None]:
    """While entered, no other process trains in `folder`; a `UserError` if one does already."""
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"Another process is training in the run folder {folder}") from None
        yield


@contextlib.contextmanager
def opened_to_train(folder: Path, loaded: LoadedRecipe) -> Iterator[list[str]]:
    """Makes the run folder for `loaded`, or finds it again; lines that say what has changed.

    While entered, no other process trains in it. Raises a `UserError` if one does already, or if
    the folder holds something else, or a recipe that differs in a field which may not change.
    """
    run = Run(folder)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --run takes a folder")
    begun = run.resolved.is_file() or not folder.is_dir()
    if not begun and any(not re.fullmatch(_FIRST, file.name) for file in folder.iterdir()):
        raise UserError(f"The folder {folder} is not empty and holds no run; give another --run")
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(sole_trainer(folder))
            said = _compare(run, loaded)
            run.checkpoints.mkdir(exist_ok=True)
            for draft in (*folder.glob(".*.json.*"), *folder.glob("recipe/**/.*.draft")):
                draft.unlink()
            changed_files = _keep_recipe(folder / "recipe", loaded)
        except OSError as error:
            raise UserError(
                f"Cannot write into the run folder {folder}: {error.strerror}"
            ) from error
        check_writable(run)
        yield said + [
            f"{name} is another one than when the run was begun" for name in changed_files
        ]


def _compare(run: Run, loaded: LoadedRecipe) -> list[str]:
    """Lines that say which fields have changed; a `UserError` if one of them may not."""
    said, value = [], describe(loaded.recipe)
    if run.resolved.is_file():
        before = json.loads(run.resolved.read_text())["recipe"]
        changed = differences(before, value, at_default(loaded.recipe))
        fixed = {name: pair for name, pair in changed.items() if not may_change(name)}
        if fixed and any(run.checkpoints.glob("*/manifest.json")):
            listed = "; ".join(f"{k} is {a!r} there, {b!r} here" for k, (a, b) in fixed.items())
            raise UserError(f"The run {run.folder} holds another recipe: {listed}")
        said = [f"{name} was {a}, is now {b}" for name, (a, b) in changed.items()]
    return said


def check_writable(run: Run) -> None:
    """Raises a `UserError` if nothing can be written into the run's folder."""
    if not os.access(run.folder, os.W_OK):
        raise UserError(f"Cannot write into the run folder {run.folder}: it is read-only")


_FIRST = r"recipe|checkpoints|overrides[.]json|log(-\d+)?[.]txt|[.]lock|[.].*[.]json[.].*"
"""What is there already when a run is killed before it has written `resolved.json`."""


def open_to_read(
    folder: str | os.PathLike[str], *, sources: bool = True
) -> tuple[Run, LoadedRecipe]:
    """The run in `folder` and its recipe, whose file is run. Raises a `UserError` if it is none.

    Without `sources`, data that were named on the command line are not looked for.
    """
    run = Run(Path(folder).expanduser())
    kept = run.folder / "recipe"
    if not run.folder.is_dir():
        raise UserError(f"There is no run folder {folder}")
    if not run.resolved.is_file() or not kept.is_dir():
        raise UserError(f"{folder} is not the folder of a run: it has no resolved.json and recipe/")
    if (kept / "recipe.pkl").is_file():
        import cloudpickle

        try:
            return run, cloudpickle.loads((kept / "recipe.pkl").read_bytes())
        except Exception as error:
            raise UserError(
                f"The recipe of {folder} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
    from imgclf.recipe.overrides import override

    record = json.loads((run.folder / "overrides.json").read_text())
    loaded = load_file(kept / f"{record['recipe']}.py")
    return run, override(loaded, record["overrides"], sources=sources)


def _keep_recipe(folder: Path, loaded: LoadedRecipe) -> list[str]:
    """Keeps the recipe's file, the modules beside it and the overrides; a script's as a pickle.

    Returns the names of files that were there with other content.
    """
    folder.mkdir(exist_ok=True)
    changed: list[str] = []
    if loaded.file is None:
        import cloudpickle

        with as_written():
            (folder / "recipe.pkl").write_bytes(cloudpickle.dumps(loaded))
    else:
        (folder / "recipe.pkl").unlink(missing_ok=True)
        for file in (loaded.file, *loaded.beside):
            copy = folder / file.relative_to(loaded.file.parent)
            copy.parent.mkdir(parents=True, exist_ok=True)
            content = file.read_bytes()
            before = copy.read_bytes() if copy.is_file() else None
            if before is not None and before != content:
                changed.append(copy.name)
            if before != content:
                draft = copy.with_name(f".{copy.name}.draft")
                draft.write_bytes(content)
                draft.replace(copy)
    words = _absolute(loaded.overrides)
    write_whole(folder.parent / "overrides.json", {"recipe": loaded.name, "overrides": words})
    return changed


def _absolute(words: tuple[str, ...]) -> list[str]:
    """Overrides whose paths hold from any folder: those of sources and the data root."""
    kept: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        last = kept[-1] if kept else ""
        if re.fullmatch(_PATHS, name) and equals:
            word = f"{name}={_from_anywhere(value)}"
        elif re.fullmatch(_PATHS, last):
            word = _from_anywhere(word)
        kept.append(word)
    return kept


def _from_anywhere(path: str) -> str:
    return path if path.startswith("hf-hub:") else absolute(path)


_PATHS = r"--data[.](train|unlabelled|evaluate[.][^.]+|root)|--model[.]weights"
