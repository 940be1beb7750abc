"""The first examples of a training are the same for all processes, workers, kills and resumes."""

import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from imgclf.data import Central, Order, Synthetic, train_batches
from imgclf.preprocess import Preprocess

PROGRAM = """
import os, sys
from imgclf.data import Central, Order, Synthetic, train_batches
from imgclf.preprocess import Preprocess

examples, start, stop, workers = map(int, sys.argv[2:])
made = train_batches(
    Synthetic(examples, 4, 1, 2), Order(examples, 7), batch_size=40, start=start, stop=stop,
    geometry=Central(), preprocess=Preprocess(), seed=7, workers=workers, threads=1,
)
with made, open(sys.argv[1], "a") as file:
    for batch in made:
        print(*batch["id"], file=file, flush=True)
        print("made", flush=True)
"""


def ids(examples: int, steps: int, processes: int, workers: int) -> list[int]:
    """What all processes together are given, by one program after the other."""
    parts = []
    for process in range(processes):
        made = train_batches(
            Synthetic(examples, 4, 1, 2),
            Order(examples, 7),
            batch_size=40,
            start=0,
            stop=steps,
            geometry=Central(),
            preprocess=Preprocess(),
            seed=7,
            workers=workers,
            threads=1,
            process_index=process,
            process_count=processes,
        )
        with made:
            parts.append([batch["id"] for batch in made])
    return np.concatenate([np.concatenate(step) for step in zip(*parts, strict=True)]).tolist()


def killed_and_resumed(file: Path, examples: int, steps: int, workers: Iterable[int]) -> list[int]:
    """Each program but the last is killed in the middle; the next goes on after what it wrote."""
    *first, last = workers
    for count in first:
        done = len(_lines(file))
        command = [sys.executable, "-c", PROGRAM, str(file), str(examples), str(done), str(steps)]
        with subprocess.Popen([*command, str(count)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _ in range(steps // 5):
                assert process.stdout.readline() == b"made\n"
            process.kill()
        assert process.returncode == -signal.SIGKILL
        whole = _lines(file)
        assert done < len(whole) < steps
        file.write_text("".join(whole))
    command = [sys.executable, "-c", PROGRAM, str(file), str(examples), str(len(_lines(file)))]
    subprocess.run([*command, str(steps), str(last)], stdout=subprocess.DEVNULL, check=True)
    return [int(word) for line in _lines(file) for word in line.split()]


def _lines(file: Path) -> list[str]:
    text = file.read_text() if file.exists() else ""
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def test_400_examples_are_the_same_for_two_processes_and_for_two_workers() -> None:
    expected = Order(150, 7).ids(np.arange(400)).tolist()
    assert ids(150, 10, processes=2, workers=0) == expected
    assert ids(150, 10, processes=1, workers=2) == expected


@pytest.mark.slow  # 60 s, mostly the beginning of 42 workers
def test_5000_examples_are_the_same_for_1_2_4_processes_and_0_to_3_workers() -> None:
    expected = Order(3000, 7).ids(np.arange(5000)).tolist()
    for processes in (1, 2, 4):
        for workers in range(4):
            found = ids(3000, 125, processes, workers)
            assert found == expected, (processes, workers)


@pytest.mark.slow  # 15 s
def test_5000_examples_are_the_same_across_kills_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    expected = Order(3000, 7).ids(np.arange(5000)).tolist()
    assert killed_and_resumed(tmp_path / "ids", 3000, 125, (2, 0, 1)) == expected
