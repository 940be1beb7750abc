"""The loop: from a recipe to a trained, evaluated classifier in a run folder."""

import contextlib
import errno
import json
import os
import re
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from imgclf import __version__
from imgclf.errors import UserError
from imgclf.recipe.description import describe, differences
from imgclf.recipe.files import LoadedRecipe, from_script
from imgclf.recipe.files import folder as shipped
from imgclf.recipe.resolution import Resolved, resolve
from imgclf.recipe.value import Recipe
from imgclf.training.backend import library_logs, use_compilation_cache
from imgclf.training.checkpoints import Checkpoints
from imgclf.training.cluster import DEAD_AFTER, Cluster, place, together
from imgclf.training.display import Display
from imgclf.training.manifest import write_whole
from imgclf.training.program import Step
from imgclf.training.run import Run, new_folder, opened_to_train
from imgclf.training.session import Session
from imgclf.training.signals import Signals, Stopped
from imgclf.training.step import train_step

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


@dataclass(frozen=True)
class Options:
    """How a run is looked at and looked after; nothing here changes what is learned."""

    debug_nans: bool = False
    """Stop at the first operation that makes a NaN (slow: nothing is donated)."""
    profile: tuple[int, int] | None = None
    """Steps, the first and the one after the last, that are traced into `profile/`."""
    quiet: bool = False
    """Show nothing but warnings."""
    dead_after: float = DEAD_AFTER
    """Seconds without a sign of life after which another process of the run counts as dead."""


def train(
    recipe: Recipe | LoadedRecipe,
    run: str | Path | None = None,
    *,
    step: Step = train_step,
    options: Options = Options(),
) -> dict[str, Any]:
    """Trains `recipe` in the folder `run`, going on where it was left; returns its result.

    The result is what `result.json` holds: `accuracy`, `steps`, `metrics`, `seconds` and `run`.
    Without `run` a new folder below `runs/` is made. Processes that have joined
    (`imgclf.training.join.join`) all call this alike, and share the folder. Raises a `UserError`
    for mistakes, and `Stopped` after a signal, when the state has been saved.
    """
    loaded = recipe if isinstance(recipe, LoadedRecipe) else from_script(recipe)
    before = time.perf_counter()
    use_compilation_cache()
    with Signals() as signals:
        display = Display(options.quiet, main=place()[0] == 0)
        with together(options.dead_after, display.alarm) as cluster, _explained(display):
            resolved = resolve(loaded.recipe)
            folder = Path(cluster.by_main(lambda: str(run or new_folder(loaded.name)))).expanduser()
            with (
                _opened(folder, loaded, resolved, display, cluster) as opened,
                jax.debug_nans(options.debug_nans),
            ):
                session = Session(resolved, opened, display, signals, cluster, options.profile)
                try:
                    return session.run(step, before, donate=not options.debug_nans)
                finally:
                    session.close()


@contextlib.contextmanager
def _opened(
    folder: Path, loaded: LoadedRecipe, resolved: Resolved, display: Display, cluster: Cluster
) -> Iterator[Run]:
    """The run folder, made or found again, in which no other program trains meanwhile."""
    run = Run(folder)
    cluster.last_good = Checkpoints(run.checkpoints).said_last
    with contextlib.ExitStack() as stack:

        def begin() -> None:
            changed = stack.enter_context(opened_to_train(folder, loaded))
            display.log_to(run.log)
            display.say(f"run {folder}; if stopped, go on with: {again(loaded, folder)}")
            for line in (*loaded.said, *changed):
                display.say(line)
            write_whole(run.resolved, resolved.as_json())

        _check_alike(resolved, cluster)
        cluster.by_main(begin)
        log = run.log if cluster.main else run.folder / f"log-{cluster.index}.txt"
        if not cluster.main:
            display.log_to(log)
        stack.enter_context(library_logs(log))
        yield run


def _check_alike(resolved: Resolved, cluster: Cluster) -> None:
    """Raises a `UserError`, in all processes, unless they have the same version and recipe.

    Where the data lie and how they are read may differ from host to host.
    """
    mine = {"version": __version__, "recipe": describe(resolved.recipe)}
    first, *others = map(json.loads, cluster.exchange(json.dumps(mine)))
    for index, other in enumerate(others, 1):
        found = differences(first["recipe"], other["recipe"], {})
        if first["version"] != other["version"]:
            found = {"imgclf": (first["version"], other["version"])}
        for name, (a, b) in found.items():
            if not re.search(_MAY_DIFFER, name):
                raise UserError(
                    f"All processes need the same recipe: {name} is {a!r} in process 0, {b!r} in "
                    f"process {index}"
                )


_MAY_DIFFER = r"(^|[.])(path|root|workers|threads|worker_timeout|weights)$"


@contextlib.contextmanager
def _explained(display: Display) -> Iterator[None]:
    try:
        yield
    except FloatingPointError as error:
        display.log_error()
        why = str(error).splitlines()[0]
        raise UserError(f"A NaN was made: {why}; the place is in log.txt of the run") from error
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        display.log_error()
        raise UserError(
            f"Cannot write {error.filename or 'into the run folder'}: {error.strerror}; what was "
            "saved is whole, and the same command goes on from there"
        ) from error
    except Stopped as stopped:
        if not stopped.agreed:
            display.warn(f"{stopped}: stopped before a step was made; nothing was lost")
        raise


def again(loaded: LoadedRecipe, folder: Path) -> str:
    """The command, or the call, with which a run goes on."""
    if loaded.file is None:
        return f"imgclf.train(recipe, run={str(folder)!r})"
    recipe = loaded.name if loaded.file.parent == shipped() else os.path.relpath(loaded.file)
    return shlex.join(["imgclf", "train", recipe, "--run", str(folder), *loaded.overrides])
