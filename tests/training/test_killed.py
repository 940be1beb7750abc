"""A run killed by SIGKILL at random moments, again and again, and one that was left in peace."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import imgclf
from imgclf.training.saved import load_classifier
from imgclf.training.writers import _records

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
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(imgclf.__file__).parent.parent)}


def start(folder: Path, run: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "imgclf", "train", "mine.py", "--run", run, *words],
        cwd=folder,
        env=ENVIRONMENT | {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
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


def written(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def events(run: Path) -> Counter[tuple[int, str]]:
    """How often the event files have each step and name."""
    from tensorboardX.proto.event_pb2 import Event

    found: Counter[tuple[int, str]] = Counter()
    for file in run.glob("events.out.tfevents.*"):
        for _, content in _records(file.read_bytes()):
            event = Event.FromString(content)
            found.update((event.step, value.tag) for value in event.summary.value)
    return found


def saved(run: Path) -> Any:
    _, _, classifier = load_classifier(run)
    return classifier.params, classifier.model_state


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
    whole, killed = folder / "whole", folder / "killed"
    assert written(killed) == written(whole)
    assert events(killed) == events(whole) and set(events(killed).values()) == {1}
    jax.tree.map(np.testing.assert_array_equal, saved(killed), saved(whole))
    results = [json.loads((run / "result.json").read_text()) for run in (whole, killed)]
    for name in ("accuracy", "steps", "metrics"):
        assert results[0][name] == results[1][name]


def test_six_kills_of_a_streamed_run_change_nothing_whatever_its_workers(tmp_path: Path) -> None:
    recipe = RECIPE.format(resident="no", dtype="float32", steps=110)
    workers = [["--data.workers", "1"], ["--data.threads", "1"], []]
    ends_as_if_never_killed(tmp_path, recipe, kills=6, seed=1, changes=workers)


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
