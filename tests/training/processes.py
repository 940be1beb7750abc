"""What the tests of several processes share: `imgclf train` once in each, over the loopback."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from .runs import PYTHONPATH, lines

SECONDS = 240.0
"""Nothing that is waited for takes so long, on whatever machine."""
DEAD_AFTER = 5

RECIPE = '''
from dataclasses import dataclass

import jax.numpy as jnp
from flax import linen as nn

from imgclf import Checkpoint, Data, Log, Model, Recipe, Steps
from imgclf.augmentation import Translate
from imgclf.data import Digits
from imgclf.schedules import Constant
from imgclf.tasks import Classify, Task


@dataclass(frozen=True)
class Seen(Task):
    """Classifies, and has a number in its metrics that names the batch: pixels and places."""

    inner: Classify = Classify()

    def initialise(self, network, key, batch):
        return self.inner.initialise(network, key, batch)

    def loss(self, network, params, model_state, batch, key, progress):
        loss, (model_state, metrics) = self.inner.loss(
            network, params, model_state, batch, key, progress
        )
        pixels = batch["image"].reshape(len(batch["image"]), -1).astype(jnp.uint32)
        seen_b = (pixels * jnp.arange(1, pixels.shape[1] + 1, dtype=jnp.uint32)).sum(1)
        seen = (seen_b * jnp.arange(1, len(pixels) + 1, dtype=jnp.uint32)).sum() % 2**20
        return loss, (model_state, metrics | {"seen": seen.astype(jnp.float32)})

    def predict(self, network, params, model_state, batch):
        return self.inner.predict(network, params, model_state, batch)


class Small(nn.Module):
    num_classes: int

    @nn.compact
    def __call__(self, images, train):
        x = nn.Dense(32)(images.reshape(len(images), -1))
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(self.num_classes)(nn.relu(x))


def small(num_classes):
    return Small(num_classes)


recipe = Recipe(
    data=Data(Digits(), {"test": Digits("test")}, batch_size=64, evaluate_batch_size=80),
    model=Model(small, dtype="float32"),
    task=Seen(),
    augment=(Translate(1),),
    schedule=Constant(0.001),
    length=Steps(20),
    evaluate_every=Steps(8),
    checkpoint=Checkpoint(every=Steps(5)),
    log=Log(every=Steps(1)),
)
'''


class Process:
    """One process of a cluster, whose lines are read as they come."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str]):
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._news, self._ended = threading.Condition(), 0
        assert self._process.stdout is not None and self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self._process.stdout, self.out), (self._process.stderr, self.err))
        ]
        for each in self._readers:
            each.start()

    def _read(self, file: IO[str], lines: list[str]) -> None:
        with file:
            for line in file:
                if "Gloo" not in line and "peer rank" not in line:  # said by C++, now and then
                    with self._news:
                        lines.append(line.rstrip("\n"))
                        self._news.notify_all()
        with self._news:
            self._ended += 1
            self._news.notify_all()

    def await_line(self, part: str) -> None:
        """Returns when a line with `part` has been written, or fails."""

        def found() -> bool:
            return any(part in line for line in self.out + self.err)

        with self._news:
            self._news.wait_for(lambda: found() or self._ended == 2, SECONDS)
        assert found(), (part, self.out, self.err)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def limit_files(self, size: int) -> None:
        """From now on the process cannot write a file of more bytes."""
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, -1))

    def end(self) -> int:
        """The exit status, when the process has ended and all its lines are read."""
        self._process.wait(SECONDS)
        for each in self._readers:
            each.join(SECONDS)
        return self._process.returncode

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.end()


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


def coordinators(port: int) -> list[int]:
    """The coordination services at a port, by their process numbers."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = file.read_bytes().decode(errors="replace").split("\0")
            if str(port) in words and any(word.endswith("coordinator.py") for word in words):
                found.append(int(file.parent.name))
    return found


@contextlib.contextmanager
def started(
    folder: Path,
    *words: str,
    processes: int = 2,
    devices: int = 2,
    port: int = 0,
    env: Callable[[int], Mapping[str, str]] = lambda process: {},
    own: Callable[[int], Sequence[str]] = lambda process: (),
    program: Mapping[int, str] = {},
    only: int | None = None,
    options: bool = True,
) -> Iterator[list[Process]]:
    """The command `imgclf train recipe.py WORDS`, once in each process; all are gone afterwards.

    `own` are the words of one process alone; `program` is what a process runs instead of `imgclf`,
    with the same words in `sys.argv`.
    """
    if not (folder / "recipe.py").exists():
        (folder / "recipe.py").write_text(RECIPE)
    port = port or free_port()
    found = []
    try:
        for i in range(processes) if only is None else (only,):
            what = ("-c", program[i]) if i in program else ("-m", "imgclf")
            command = [sys.executable, *what, "train", "recipe.py", *words, *own(i)]
            if options and processes > 1:
                command += ["--coordinator", f"127.0.0.1:{port}", "--processes", str(processes)]
                command += ["--process", str(i), "--dead-after", str(DEAD_AFTER)]
            more = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
            found.append(Process(command, folder, PYTHONPATH | more | env(i)))
        yield found
    finally:
        for each in found:
            each.kill()
        for number in coordinators(port):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


def finished(folder: Path, *words: str, **how: Any) -> list[Process]:
    """The processes of a run that came to its end."""
    with started(folder, *words, **how) as cluster:
        for each in cluster:
            assert each.end() == 0, (each.out, each.err)
    return cluster


def trained(run: Path) -> list[dict[str, Any]]:
    return [line for line in lines(run) if "train/loss" in line]


def close(a: Path, b: Path) -> None:
    """Both runs saw the same batches, and learned the same but for the order of additions."""
    for x, y in zip(trained(a), trained(b), strict=True):
        assert x["step"] == y["step"] and x["train/seen"] == y["train/seen"]
        assert x["train/loss"] == pytest.approx(y["train/loss"], abs=1e-3), x["step"]
    results = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert {result["metrics"]["last"]["test/total"] for result in results} == {360}
