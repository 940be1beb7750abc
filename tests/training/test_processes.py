"""Several real processes that train one network: `imgclf train` once in each, over the loopback."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
import pytest
from PIL import Image

import imgclf
from imgclf.training.cluster import GONE
from imgclf.training.saved import load_classifier

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
    wrapper: Callable[[int], Sequence[str]] = lambda process: (),
    options: bool = True,
) -> Iterator[list[Process]]:
    """The command `imgclf train recipe.py WORDS`, once in each process; all are gone afterwards."""
    if not (folder / "recipe.py").exists():
        (folder / "recipe.py").write_text(RECIPE)
    port = port or free_port()
    found = []
    try:
        for i in range(processes):
            joining = ("--coordinator", f"127.0.0.1:{port}", "--processes", str(processes))
            joining += ("--process", str(i), "--dead-after", str(DEAD_AFTER))
            command = [*wrapper(i), sys.executable, "-m", "imgclf", "train", "recipe.py", *words]
            more = {
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                "PYTHONPATH": str(Path(imgclf.__file__).parent.parent),
            }
            joined = joining if options and processes > 1 else ()
            found.append(Process([*command, *joined], folder, more | env(i)))
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


def lines(run: Path) -> list[dict[str, Any]]:
    read = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in read]


def trained(run: Path) -> list[dict[str, Any]]:
    return [line for line in lines(run) if "train/loss" in line]


def same_run(a: Path, b: Path) -> None:
    """Both runs have the same metrics, weights and results, to the bit."""
    assert lines(a) == lines(b)
    for x, y in zip(*(weights(run) for run in (a, b)), strict=True):
        np.testing.assert_array_equal(x, y)
    results = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    for name in ("accuracy", "steps", "metrics"):
        assert results[0][name] == results[1][name]


def weights(run: Path) -> list[np.ndarray]:
    _, _, classifier = load_classifier(run)
    return jax.tree.leaves((classifier.params, classifier.model_state))


def close(a: Path, b: Path) -> None:
    """Both runs saw the same batches, and learned the same but for the order of additions."""
    for x, y in zip(trained(a), trained(b), strict=True):
        assert x["step"] == y["step"] and x["train/seen"] == y["train/seen"]
        assert x["train/loss"] == pytest.approx(y["train/loss"], abs=1e-3), x["step"]
    results = [json.loads((run / "result.json").read_text()) for run in (a, b)]
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert {result["metrics"]["last"]["test/total"] for result in results} == {360}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run of two processes that nothing disturbed, LENGTH steps long."""
    folder = tmp_path_factory.mktemp("whole")
    finished(folder, "--run", "run", *LONG)
    return folder


LONG = ("--length", "120steps", "--evaluate-every", "50steps")
"""Long enough to be stopped on the way."""


def test_two_processes_see_the_batches_and_learn_the_losses_of_one(tmp_path: Path) -> None:
    two = finished(tmp_path, "--run", "two")
    (one,) = finished(tmp_path, "--run", "one", processes=1, devices=4)
    close(tmp_path / "two", tmp_path / "one")
    assert [line["step"] for line in trained(tmp_path / "two")] == list(range(1, 21))
    shown = [[line for line in each.out if line.startswith("step ")] for each in (two[0], one)]
    assert len(shown[0]) == len(shown[1]) == 20
    assert two[0].err == two[1].err == [] and not set(two[0].out) & set(two[1].out) - {""}
    files = [sorted(file.name for file in (tmp_path / run).iterdir()) for run in ("one", "two")]
    for names in files:
        assert sum(name.startswith("events") for name in names) == 1
    assert [name for name in files[0] if "events" not in name] == [
        name for name in files[1] if "events" not in name
    ]
    assert (tmp_path / "two" / "log.txt").read_text().count("compiling the step ...") == 1


@pytest.mark.parametrize(
    ("sent", "process"),
    [
        (signal.SIGTERM, 1),
        pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, 1, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGUSR1, 1, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_process_makes_all_save_the_same_step_and_leave(
    tmp_path: Path, whole: Path, sent: signal.Signals, process: int
) -> None:
    with started(tmp_path, "--run", "run", *LONG) as cluster:
        cluster[0].await_line("step 7/120")
        cluster[process].send(sent)
        assert [each.end() for each in cluster] == [128 + sent] * 2
    again = ", again to leave at once" if sent is signal.SIGINT else ""
    noted = f"{sent.name}: saving and leaving{again}"
    newest = sorted((tmp_path / "run" / "checkpoints").glob("*/manifest.json"))[-1].parent
    saved = f"warning: {sent.name}: saved step {int(newest.name)} of 120 and stopped"
    assert cluster[0].err == [noted, saved] if process == 0 else [saved]
    assert cluster[1].err == [noted] if process == 1 else []
    finished(tmp_path, "--run", "run", *LONG)
    same_run(whole / "run", tmp_path / "run")


@pytest.mark.slow
def test_when_a_process_is_killed_the_others_name_it_and_leave_and_the_run_goes_on(
    tmp_path: Path, whole: Path
) -> None:
    port = free_port()
    for process, line in ((1, "step 13/120"), (0, "step 63/120")):
        with started(tmp_path, "--run", "run", *LONG, port=port) as cluster:
            cluster[0].await_line(line)
            cluster[process].send(signal.SIGKILL)
            assert cluster[1 - process].end() == GONE
            (said,) = cluster[1 - process].err
            await_no_coordinator(port)
        assert said.startswith(
            f"imgclf: process {process} of 2 has died (no sign of life for {DEAD_AFTER} s); the "
            "last good checkpoint is run/checkpoints/000000"
        )
    finished(tmp_path, "--run", "run", *LONG, port=port)
    same_run(whole / "run", tmp_path / "run")


def await_no_coordinator(port: int) -> None:
    last = threading.Event()
    for _ in range(100):
        if not coordinators(port):
            return
        last.wait(0.2)  # it is no child of ours, and nothing tells of its end
    raise AssertionError(f"the coordinator at {port} did not end")


PHOTOGRAPHS = """
import os

from imgclf import Checkpoint, Data, Epochs, Log, Model, Preprocess, Recipe
from imgclf.data import Folder
from imgclf.schedules import Constant

recipe = Recipe(
    data=Data(
        Folder("train"), {"val": Folder("val")}, batch_size=4, root=os.environ["PHOTOGRAPHS"]
    ),
    model=Model("cnn", dtype="float32", preprocess=Preprocess(size=16), options={"width": 4}),
    schedule=Constant(0.01),
    length=Epochs(2),
    checkpoint=Checkpoint(every=Epochs(1)),
    log=Log(tensorboard=False),
)
"""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Sixteen and eight photographs, of which the last in either part cannot be read."""
    (tmp_path / "recipe.py").write_text(PHOTOGRAPHS)
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("val", 4)):
        for name in ("ant", "bee"):
            folder = tmp_path / "photographs" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
        broken = folder / f"{count - 1}.jpg"
        broken.write_bytes(broken.read_bytes()[:200])
    return tmp_path / "photographs"


def test_a_mistake_of_one_process_is_told_by_the_others(tmp_path: Path, photographs: Path) -> None:
    roots = (str(photographs), "nowhere")
    with started(tmp_path, "--run", "run", env=lambda i: {"PHOTOGRAPHS": roots[i]}) as cluster:
        assert [each.end() for each in cluster] == [GONE, 2]
    (said,), (mistake,) = (each.err for each in cluster)
    assert "nowhere/train does not exist" in mistake
    why = mistake.removeprefix("imgclf: ")
    assert said.startswith(f"imgclf: process 1 of 2 has left: {why}; nothing is saved yet")
