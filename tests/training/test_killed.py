"""A run killed by SIGKILL at random moments, again and again, and one that was left in peace."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from .runs import PYTHONPATH, Training, same_run

RECIPE = """
from imgclf import Average, Checkpoint, Data, Log, Model, Recipe, Steps
from imgclf.augmentation import Mixup, Translate
from imgclf.data import Digits
from imgclf.optimizers import AdamW
from imgclf.schedules import Cosine

recipe = Recipe(
    data=Data(Digits(), {{"test": Digits("test")}}, batch_size=64, resident="{resident}"),
    augment=(Translate(1), Mixup()),
    model=Model("cnn", dtype="{dtype}", options={{"width": 4}}),
    optimizer=AdamW(),
    schedule=Cosine(peak=0.003),
    accumulate=2,
    average=Average(0.95),
    length=Steps({steps}),
    evaluate_every=Steps(23),
    checkpoint=Checkpoint(every=Steps(4)),
    log=Log(every=Steps(3)),
)
"""
SLOW = pytest.mark.slow


def start(folder: Path, run: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "imgclf", "train", "mine.py", "--run", run, *words],
        cwd=folder,
        env=os.environ | PYTHONPATH,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        pipesize=4096,  # so that it gets ahead of its reader by little
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str], lines: int, delay: float) -> bool:
    """Kills the process a while after so many lines about steps; False if it ended before."""
    assert process.stdout is not None
    while lines:
        line = process.stdout.readline()
        if not line:
            assert process.wait(60) == 0
            return False
        lines -= line.startswith("step ")
    threading.Event().wait(delay)
    process.kill()
    process.stdout.close()
    return process.wait(60) == -9


def ends_as_if_never_killed(
    folder: Path, recipe: str, kills: int, seed: int, changes: Sequence[Sequence[str]] = ((),)
) -> None:
    """Kills a run `kills` times; each restart has other words of `changes`."""
    (folder / "mine.py").write_text(recipe)
    assert start(folder, "whole").communicate(timeout=300) is not None
    rng, done, first = random.Random(seed), 0, True
    while done < kills:
        # While it starts (imports, restores, compiles), or while it steps, saves and evaluates.
        lines, delay = (0, rng.uniform(0, 4)) if rng.random() < 0.2 else (rng.randint(1, 9), 0.0)
        words = () if first else changes[done % len(changes)]
        first = False
        assert kill(start(folder, "killed", *words), lines, delay or rng.uniform(0, 0.05)), (
            f"the run was over after {done} of {kills} kills"
        )
        done += 1
    last = start(folder, "killed", *changes[-1])
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    same_run(folder / "whole", folder / "killed")


def test_six_kills_of_a_streamed_run_change_nothing_whatever_its_workers(tmp_path: Path) -> None:
    recipe = RECIPE.format(resident="no", dtype="float32", steps=150)
    workers = [["--data.workers", "1"], ["--data.threads", "1"], []]
    ends_as_if_never_killed(tmp_path, recipe, kills=6, seed=1, changes=workers)


DIES_BEFORE_A_RENAME = """
import os, signal, sys
from pathlib import Path
from imgclf.commands import main

replace = Path.replace

def dies(draft, target):
    if Path(target).name == "{name}":
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(draft, target)

Path.replace = dies
main(sys.argv[1:])
"""


@pytest.mark.parametrize("name", ["overrides.json", pytest.param("resolved.json", marks=SLOW)])
def test_a_kill_before_a_file_has_its_name_leaves_nothing_in_the_way(
    imgclf: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    (tmp_path / "mine.py").write_text(RECIPE.format(resident="yes", dtype="float32", steps=2))
    with Training(tmp_path, program=DIES_BEFORE_A_RENAME.format(name=name)) as training:
        assert training.end()[0] == -signal.SIGKILL
    run = tmp_path / "run"
    (draft,) = run.glob(f".{name}.*")
    assert draft.stat().st_size and not (run / name).exists()
    ended = imgclf("train", "mine.py", "--run", "run", "--quiet")
    assert ended.status == 0, ended.err
    assert not list(run.rglob(".*.json.*")) and (run / name).is_file()


@pytest.mark.parametrize(
    "sent",
    [signal.SIGINT, *(pytest.param(s, marks=SLOW) for s in (signal.SIGTERM, signal.SIGUSR1))],
)
def test_a_signal_to_all_processes_of_a_terminal_is_answered_by_the_main_one(
    tmp_path: Path, sent: signal.Signals
) -> None:
    (tmp_path / "mine.py").write_text(RECIPE.format(resident="no", dtype="float32", steps=5000))
    with start(tmp_path, "run", "--data.workers", "2") as process:
        assert process.stdout is not None
        lines = 0  # enough of them that both workers have begun
        while lines < 6:
            lines += process.stdout.readline().startswith("step ")
            assert process.poll() is None
        os.killpg(process.pid, sent)
        said = [line for line in process.stdout if not line.startswith(("step ", "epoch "))]
    assert process.returncode == 128 + sent
    assert len(said) == 2 and f"{sent.name}: saved step" in said[1], said


@SLOW
@pytest.mark.parametrize(
    ("dtype", "resident", "seed"), [("float32", "yes", 2), ("bfloat16", "no", 3)]
)
def test_thirty_kills_change_nothing(tmp_path: Path, dtype: str, resident: str, seed: int) -> None:
    recipe = RECIPE.format(resident=resident, dtype=dtype, steps=700)
    workers = [["--data.workers", "2"], ["--data.threads", "1"], []]
    changes = [[]] if resident == "yes" else workers
    ends_as_if_never_killed(tmp_path, recipe, kills=30, seed=seed, changes=changes)
