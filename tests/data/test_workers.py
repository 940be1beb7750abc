"""Workers that die or hang: named, begun anew where the consumer is, and never a batch twice."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imgclf.data.geometry import Central
from imgclf.data.order import Order
from imgclf.data.pipeline import Batches, train_batches
from imgclf.data.source import Source
from imgclf.data.workers import _free
from imgclf.errors import UserError
from imgclf.preprocess import PLAIN


@dataclass(frozen=True)
class Fated(Source):
    """Arrays filled with their index; reading `where` sends its worker a signal, `times` times."""

    folder: str
    sign: int = signal.SIGKILL
    times: int = 1
    n: int = 1000
    where: int = 41

    def __len__(self) -> int:
        return self.n

    @property
    def classes(self) -> tuple[str, ...]:
        return ("even", "odd")

    def labels(self) -> np.ndarray:
        return np.arange(self.n, dtype=np.int32) % 2

    def ids(self) -> list[str]:
        return [str(i) for i in range(self.n)]

    def read(self, i: int) -> np.ndarray:
        if multiprocessing.parent_process() is not None:
            bridge = sys.modules.get("jax._src.xla_bridge")
            assert bridge is None or not bridge.backends_are_initialized(), "JAX has begun"
            if i == self.where:
                self._meet_fate()
        return np.full((4, 5, 3), i % 256, np.uint8)

    def _meet_fate(self) -> None:
        for number in range(self.times):
            try:
                with (Path(self.folder) / str(number)).open("x") as file:
                    file.write(str(os.getpid()))
            except FileExistsError:
                continue
            os.kill(os.getpid(), self.sign)
            return


def batches(source: Source, **changes: Any) -> Batches:
    arguments: dict[str, Any] = {"batch_size": 4, "start": 0, "stop": 14, "threads": 1, "seed": 0}
    how: dict[str, Any] = {"geometry": Central(), "preprocess": PLAIN}
    order = Order(len(source), 0, shuffle=False)
    return train_batches(source, order, **(arguments | how | changes))


def seen(made: Batches, tokens: set[str]) -> list[int]:
    """What was in the batches; `tokens` gets the first words of the names of shared memory."""
    found: list[int] = []
    with made:
        for batch in made:
            found += batch["image"][:, 3, 4, 2].tolist()
            tokens.add(batch["image"].base.shm.name.rpartition("-")[0])
            del batch
    return found


def assert_nothing_is_left(tokens: set[str]) -> None:
    assert not multiprocessing.active_children()
    deadline = time.monotonic() + 20

    def left() -> list[Path]:
        return [file for token in tokens for file in Path("/dev/shm").glob(f"{token}*")]

    while left() and time.monotonic() < deadline:
        time.sleep(0.01)  # Grain frees shared memory in a thread of its own
    assert not left()


@pytest.mark.parametrize(
    ("sign", "patience", "said"),
    [
        (signal.SIGKILL, 60, r"was ended by SIGKILL \(too little memory\?\)"),
        (signal.SIGSTOP, 3, "gave no batch for 3 s and was killed"),
    ],
)
def test_a_worker_that_dies_or_hangs_is_named_and_no_batch_is_lost_or_doubled(
    tmp_path: Path, sign: signal.Signals, patience: float, said: str
) -> None:
    told: list[str] = []
    tokens: set[str] = set()
    made = batches(Fated(str(tmp_path), sign), workers=2, patience=patience, warn=told.append)
    assert seen(made, tokens) == list(range(56))
    pid = (tmp_path / "0").read_text()
    who = rf"Worker \d of 2 of the data pipeline \(process {pid}\)"
    assert any(re.match(f"{who} {said}; begun anew, [1-3] of 3 times", line) for line in told), told
    assert len(tokens) >= 2
    assert_nothing_is_left(tokens)


@pytest.mark.slow  # 10 s: four times workers must begin
def test_the_fourth_worker_that_dies_ends_the_run_in_a_line(tmp_path: Path) -> None:
    told: list[str] = []
    tokens: set[str] = set()
    source = Fated(str(tmp_path), times=4, where=1)
    with pytest.raises(UserError, match=r"^Worker 0 of 1 .* ended by SIGKILL .* 3 times") as error:
        seen(batches(source, workers=1, warn=told.append), tokens)
    assert "\n" not in str(error.value)
    assert [line[-12:] for line in told] == ["1 of 3 times", "2 of 3 times", "3 of 3 times"]
    assert_nothing_is_left(tokens)


def test_a_batch_of_a_worker_is_not_copied_out_of_shared_memory(tmp_path: Path) -> None:
    with batches(Fated(str(tmp_path), where=-1), workers=1, stop=2) as made:
        image = next(made)["image"]
        memory = image.base.shm
        assert type(image) is np.ndarray and not image.flags.owndata
        memory.buf[0] = 77
        assert image[0, 0, 0, 0] == 77, "the batch is a copy"
        assert memory.size >= image.nbytes
        del image, memory


HANGS = """if True:
    import sys, threading
    import numpy as np
    from imgclf.data import Central, Order, Synthetic
    from imgclf.data import pipeline, workers
    from imgclf.errors import UserError
    from imgclf.preprocess import Preprocess

    class Hanging(pipeline.Source):
        __len__ = lambda self: 100
        classes = ("a", "b")
        labels = lambda self: np.zeros(100, np.int32)
        ids = lambda self: [str(i) for i in range(100)]
        def read(self, i):
            if i == 50:
                threading.Event().wait()
            return np.zeros((2, 2, 1), np.uint8)

    def main():
        batches = pipeline.train_batches(
            Hanging(), Order(100, 0, shuffle=False), batch_size=10, start=0, stop=9,
            geometry=Central(), preprocess=Preprocess(), seed=0, threads=1, patience=1,
        )
        try:
            print(len(list(batches)))
        except UserError as error:
            print(error, flush=True)
        return 3

    from imgclf import __main__ as command
    command.main = main
    command.run()
"""


def test_a_thread_that_hangs_is_told_of_and_not_waited_for_at_the_end() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("The data pipeline gave no batch for 1 s: a thread that reads")
    assert "--data.worker_timeout" in done.stdout and done.stdout.count("\n") == 1


def test_shared_memory_of_a_worker_killed_before_it_had_a_size_is_freed() -> None:
    empty = Path("/dev/shm/imgclf-test-0")
    empty.touch()
    _free(empty.name)
    assert not empty.exists()
    _free(empty.name)
