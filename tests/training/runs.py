"""What the tests of whole runs share: runs in processes of their own, and what is left of them."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

import imgclf
from imgclf.training.checkpoints import Checkpoints
from imgclf.training.manifest import verify
from imgclf.training.saved import load_classifier
from imgclf.training.writers import _records

LIMIT = 120
"""Seconds after which a process that hangs is killed."""
PYTHONPATH = {"PYTHONPATH": str(Path(imgclf.__file__).parent.parent)}
"""The environment in which another process finds the same `imgclf`."""


class Training:
    """`imgclf train mine.py` in a process of its own, which gets ahead of its reader by little.

    Its lines are read one by one, from a pipe that holds 4096 bytes: then it waits. `program` is
    what it runs instead of `imgclf`, with the same words in `sys.argv`.
    """

    def __init__(
        self,
        folder: Path,
        *words: str,
        run: str = "run",
        env: Mapping[str, str] = {},
        program: str = "",
    ):
        what = ("-c", program) if program else ("-m", "imgclf")
        self.process = subprocess.Popen(
            [sys.executable, *what, "train", "mine.py", "--run", run, *words],
            cwd=folder,
            env=os.environ | PYTHONPATH | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            pipesize=4096,
        )
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._timer = threading.Timer(LIMIT, self.process.kill)
        self._timer.start()

    def __enter__(self) -> "Training":
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as errors:
            while line := errors.readline().decode():
                self._said.put(line.rstrip("\n"))
        self._said.put(None)

    def reach(self, start: str) -> None:
        """Returns when a line with this start has been written."""
        assert self.process.stdout is not None
        while line := self.process.stdout.readline().decode():
            if line.startswith(start):
                return
        pytest.fail(f"no line {start!r}; {self.end()[1]}")

    def send(self, sent: signal.Signals) -> str:
        """Sends a signal; the line on standard error with which it is answered at once."""
        self.process.send_signal(sent)
        return self._said.get() or ""

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> tuple[int, list[str], str]:
        """The exit status, the lines left on standard error, and what is left of the output."""
        assert self.process.stdout is not None
        out = self.process.stdout.read().decode()
        return self.process.wait(), [line for line in iter(self._said.get, None) if line], out


def lines(run: Path) -> list[dict[str, Any]]:
    """What `metrics.jsonl` has, but for the speed."""
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read]


def events(run: Path) -> list[tuple[int, str]]:
    """The (step, name) of every number in the event files, sorted."""
    found = []
    for file in run.glob("events.out.tfevents.*"):
        for _, content in _records(file.read_bytes()):
            event = Event.FromString(content)
            found += [(event.step, value.tag) for value in event.summary.value]
    return sorted(found)


def weights(run: Path) -> list[np.ndarray]:
    _, _, classifier = load_classifier(run)
    return jax.tree.leaves((classifier.params, classifier.model_state))


def history(run: Path) -> list[dict[str, Any]]:
    """The evaluations that `curves.png` shows, as the last checkpoint has them."""
    return Checkpoints(run / "checkpoints").all()[-1].metadata["history"]


def saved(run: Path) -> list[str]:
    """The names of the committed checkpoints, of which every file is what it was."""
    folders = sorted(file.parent for file in (run / "checkpoints").glob("[0-9]*/manifest.json"))
    assert [verify(folder) for folder in folders] == [""] * len(folders)
    return [folder.name for folder in folders]


def same_run(a: Path, b: Path) -> None:
    """Both runs have the same metrics, weights and results, to the bit, and nothing twice."""
    assert lines(a) == lines(b)
    assert history(a) == history(b)
    assert events(a) == events(b) and len(set(events(a))) == len(events(a))
    for x, y in zip(weights(a), weights(b), strict=True):
        np.testing.assert_array_equal(x, y)
    results = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    for name in ("accuracy", "steps", "metrics"):
        assert results[0][name] == results[1][name]
