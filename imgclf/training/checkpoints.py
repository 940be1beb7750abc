"""Checkpoints: saved in the background, committed by a manifest of checksums, verified on restore.

A checkpoint is a folder named after its step. It counts only once `manifest.json` is there, which
is written last, in one piece: it has the size and SHA-256 of every other file, the metadata, and a
SHA-256 of both.
"""

import contextlib
import math
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax

from imgclf.errors import UserError
from imgclf.tasks import ModelState, Params
from imgclf.training import manifest
from imgclf.training.cluster import Alone, Cluster
from imgclf.training.state import State

T = TypeVar("T")
FORMAT = 1
"""Raised whenever a checkpoint written before could not be read any more."""
left_behind = False
"""Whether a save has failed in this program: Orbax's threads may wait for minutes at its end."""


@dataclass(frozen=True)
class Saved:
    """A committed checkpoint: its step, folder and the metadata that was saved with it."""

    step: int
    folder: Path
    metadata: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: one writer in the background, the last n and best k kept.

    `score` reads from a checkpoint's metadata what makes it the best (None: it does not compete).
    `warn` shows a line.
    Of several processes each writes its part, and the main one commits.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int = 2,
        best: int = 1,
        score: Callable[[dict[str, Any]], float | None] = lambda metadata: None,
        cluster: Cluster | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ):
        self.folder, self._keep, self._best, self._score = folder, keep, best, score
        self._cluster, self._warn = cluster or Alone(), warn
        self.mark = folder.with_name(".saved")
        """A file that is there once a checkpoint was committed, whatever becomes of that."""
        self._pending: Future[set[int]] | None = None
        self._step = 0
        self._known: set[int] = set()

    def save(self, state: State, step: int, metadata: dict[str, Any]) -> None:
        """Saves `state` in the background; waits for the last save first.

        Raises a `UserError`, in all processes, if the last save failed or nothing can be written;
        what goes wrong with this one is found by `failed`, and raised by `wait`.
        """
        self.wait()
        from orbax.checkpoint import v1 as orbax

        folder = self.folder / f"{step:08d}"
        with self._failing_together(folder):
            if self._cluster.main:
                self.sweep()  # what a save that failed was still writing when it was given up
            self._probe()
        self._step = step
        written: Any = Future()
        try:
            written = orbax.save_checkpointables_async(folder.absolute(), _parts(state))
        except Exception as error:  # told with what fails later: the others may have begun theirs
            written.set_exception(error)
        self._pending = _in_background(self._commit, written, folder, step, metadata)

    @property
    def failed(self) -> bool:
        """Whether the save under way has come to a bad end, which `wait` would raise."""
        pending = self._pending
        return pending is not None and pending.done() and pending.exception() is not None

    def wait(self) -> None:
        """Returns when the last save is committed; raises a `UserError`, in all, if it failed."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with self._failing_together(self.folder):
                for step in sorted(self._result(pending)):
                    self._warn(f"checkpoint {self.folder}/{step:08d} is gone")

    def failure(self) -> str:
        """Why the save under way failed, here or in another process; it is given up then."""
        pending = self._pending
        failed = pending is not None and pending.done() and pending.exception()
        why = next(filter(None, self._cluster.exchange(str(failed or ""))), "")
        if why:
            self._pending = None
        return why

    def close(self) -> None:
        """Returns when no save is under way any more, well or badly."""
        if self._pending is not None:
            with contextlib.suppress(Exception):
                self._result(self._pending)
        if self._cluster.main:
            with contextlib.suppress(OSError):
                self.sweep()

    def sweep(self) -> None:
        """Removes what saves that were never committed have left behind."""
        for folder in [*self.folder.glob("[0-9]*"), *self.folder.glob(".probe-*")]:
            if not (folder / "manifest.json").is_file():
                shutil.rmtree(folder, ignore_errors=True)

    def annotate(self, step: int, changes: dict[str, Any]) -> None:
        """Changes the metadata of the committed checkpoint of `step`, in one piece."""
        self.wait()
        folder = self.folder / f"{step:08d}"
        with self._failing_together(folder):
            content = manifest.read(folder)
            if content is not None and self._cluster.main:
                manifest.write(folder, content["files"], content["metadata"] | changes)

    def all(self) -> list[Saved]:
        """The committed checkpoints, oldest first; of their files only the manifest is verified."""
        read = ((folder, manifest.read(folder)) for folder in sorted(self.folder.glob("[0-9]*")))
        return [
            Saved(int(folder.name), folder, content["metadata"])
            for folder, content in read
            if content is not None and folder.name.isdigit()
        ]

    def best(self) -> Saved | None:
        """The committed checkpoint with the greatest score, the latest of equals."""
        scored = [(s, each) for each in self.all() if (s := self._score(each.metadata)) is not None]
        return max(scored, key=lambda pair: (pair[0], pair[1].step))[1] if scored else None

    def said_last(self) -> str:
        """Which checkpoint is the last good one, in words."""
        try:
            left = self.all()
        except OSError as error:
            return f"{self.folder} cannot be read ({error.strerror})"
        return f"the last good checkpoint is {left[-1].folder}" if left else "nothing is saved yet"

    def _result(self, pending: Future[set[int]]) -> set[int]:
        """What a save came to; raises why it failed, here or in another process.

        Then Orbax leaves this process's part waiting for the others for five minutes.
        """
        while not futures.wait([pending], 0.2).done:
            if why := self._cluster.told(f"save/{self._step}"):
                raise UserError(why)
        return pending.result()

    def _commit(self, written: Any, folder: Path, step: int, metadata: dict[str, Any]) -> set[int]:
        """Makes a checkpoint of what was written; the steps of those that got lost meanwhile."""
        with self._saving(folder):
            written.result()
            if not self._cluster.main:
                return set()
            found = sorted(folder.rglob("*"))
            files = [file for file in found if file.is_file()]
            listed = {
                str(f.relative_to(folder)): [f.stat().st_size, manifest.settled(f)] for f in files
            }
            for each in (*filter(Path.is_dir, found), folder, self.folder):
                manifest.sync(each)
            manifest.write(folder, listed, {"format": FORMAT, "step": step} | metadata)
            with contextlib.suppress(OSError):  # the next one will leave it
                self.mark.touch()
            if wrong := manifest.verify(folder):
                (folder / "manifest.json").unlink()
                raise OSError(f"what was written cannot be read back: {wrong}")
            gone = self._known - {each.step for each in self.all()}
            self._known = self._discard()
            return gone

    def _discard(self) -> set[int]:
        """Removes what is not to be kept; the steps of what is."""
        saved = self.all()
        scored = [each for each in saved if self._score(each.metadata) is not None]
        scored.sort(key=lambda each: (self._score(each.metadata), each.step))
        kept = {
            each.step for each in saved[-self._keep :] + scored[max(0, len(scored) - self._best) :]
        }
        for each in saved:
            if each.step not in kept:
                with contextlib.suppress(OSError):  # what is left `sweep` removes
                    (each.folder / "manifest.json").unlink()
                    shutil.rmtree(each.folder)
        return kept

    def _probe(self) -> None:
        """Raises an `OSError` if nothing can be made in the folder.

        Orbax would wait minutes for it, or make a lost folder anew.
        """
        probe = tempfile.mkdtemp(prefix=".probe-", dir=self.folder)
        with contextlib.suppress(FileNotFoundError):  # another process may have swept it
            os.rmdir(probe)

    @contextlib.contextmanager
    def _failing_together(self, folder: Path) -> Iterator[None]:
        """What fails inside, in any process, is raised in all."""
        why = ""
        try:
            yield
        except UserError as error:
            why = str(error)
        except Exception as error:
            why = self._said(folder, error)
        found = next(filter(None, self._cluster.exchange(why)), "")
        if found:
            raise UserError(found)

    @contextlib.contextmanager
    def _saving(self, folder: Path) -> Iterator[None]:
        """Turns what a save raises into one line that says what still exists, and clears up."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            why = self._said(folder, error)
            global left_behind
            left_behind = True
            self._cluster.tell(f"save/{int(folder.name)}", why)
            if self._cluster.main and int(folder.name) == self._step:
                with contextlib.suppress(OSError):
                    self.sweep()
            raise UserError(why) from error

    def _said(self, folder: Path, error: Exception) -> str:
        return f"Could not save checkpoint {folder}: {_plain(error)}; {self.said_last()}"


def restore(saved: Saved, like: State) -> State:
    """The state of a verified checkpoint, placed as the leaves of `like` (shapes with shardings).

    Raises a `UserError` that names the first leaf whose path, shape or dtype is another one.
    """
    parts = _load(saved, _parts(like))
    average = parts.get("average")
    return State(
        step=parts["training"]["step"],
        params=parts["weights"]["params"],
        model_state=parts["weights"]["model_state"],
        optimizer_state=parts["training"]["optimizer_state"],
        average=(average["params"], average["model_state"]) if average else None,
    )


def restore_evaluated(saved: Saved, like: tuple[Params, ModelState]) -> tuple[Params, ModelState]:
    """Only what is evaluated: the average of a verified checkpoint where it has one."""
    name = "average" if (saved.folder / "average").is_dir() else "weights"
    part = _load(saved, {name: {"params": like[0], "model_state": like[1]}})[name]
    return part["params"], part["model_state"]


def _parts(state: State) -> dict[str, Any]:
    """A state as it lies in a checkpoint: each part can be read by itself."""
    parts = {
        "weights": {"params": state.params, "model_state": state.model_state},
        "training": {"step": state.step, "optimizer_state": state.optimizer_state},
    }
    if state.average is not None:
        parts["average"] = {"params": state.average[0], "model_state": state.average[1]}
    return parts


def _load(saved: Saved, like: dict[str, Any]) -> dict[str, Any]:
    from orbax.checkpoint import v1 as orbax

    if saved.metadata["format"] != FORMAT:
        raise UserError(
            f"The checkpoint {saved.folder} has format {saved.metadata['format']}; this version "
            f"reads format {FORMAT}"
        )
    found = orbax.checkpointables_metadata(saved.folder.absolute()).metadata
    _check_tree(_leaves({name: found.get(name) for name in like}), _leaves(like), saved.folder)
    return orbax.load_checkpointables(saved.folder.absolute(), like)


def newest(
    checkpoints: Checkpoints, warn: Callable[[str], None], *, move: bool = True
) -> Saved | None:
    """The newest checkpoint whose files are whole; damaged ones are named and moved aside."""
    for folder in sorted(checkpoints.folder.glob("[0-9]*"), reverse=True):
        if not (folder.name.isdigit() and (folder / "manifest.json").exists()):
            continue
        wrong, content = manifest.verify(folder), manifest.read(folder)
        if not wrong and content is not None:
            return Saved(int(folder.name), folder, content["metadata"])
        warn(f"checkpoint {folder} is not used: {wrong}")
        if move:
            set_aside(folder)
    return None


def score(metadata: dict[str, Any], best: str) -> float | None:
    """What makes a checkpoint the best: greater is better, None where it was not evaluated."""
    value = metadata["evaluation"].get(best)
    if value is None or not math.isfinite(value):
        return None
    return -value if best.endswith("/loss") else value


def set_aside(folder: Path) -> None:
    """Renames a folder to `bad-...`, so that its step can be saved again."""
    for number in range(10_000):
        other = folder.with_name(f"bad-{folder.name}" + (f"-{number}" if number else ""))
        if not other.exists():
            folder.rename(other)
            return


def _in_background(function: Callable[..., T], *words: Any) -> Future[T]:
    """Calls a function in a thread that nobody waits for when the program ends."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function(*words))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="checkpoint", daemon=True).start()
    return future


def _plain(error: Exception) -> str:
    """What went wrong, without what libraries put around it."""
    line = str(error).split("\n")[0] or type(error).__name__
    if found := re.search(r"([^:]+) \[os_error_code=", line):  # TensorStore's
        return found[1].strip()
    return re.sub(r"^\[Errno \d+\] ", "", line)[:200]


def _leaves(tree: Any) -> dict[str, Any]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def _check_tree(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    for name in [*wanted, *found]:
        have, want = found.get(name), wanted.get(name)
        if have is None or want is None:
            where = "is not in the checkpoint" if have is None else "is not in this run's state"
            raise UserError(f"Checkpoint {folder} does not fit: {name} {where}")
        if tuple(have.shape) != tuple(want.shape) or have.dtype != want.dtype:
            raise UserError(
                f"Checkpoint {folder} does not fit: {name} is {have.dtype}{list(have.shape)} "
                f"there, {want.dtype}{list(want.shape)} in this run"
            )
