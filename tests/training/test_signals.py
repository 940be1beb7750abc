"""SIGTERM, SIGINT and SIGUSR1, sent to a process that compiles, steps, evaluates or saves."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imgclf.commands import main

from .runs import PYTHONPATH, Training, events, lines, same_run, saved

RECIPE = '''
import os
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
from flax import linen as nn

from imgclf import Average, Checkpoint, Data, Log, Model, Recipe, Steps
from imgclf.augmentation import Translate
from imgclf.data import Digits, Source
from imgclf.schedules import Constant


@dataclass(frozen=True)
class Gated(Source):
    """The digits, of which one cannot be read until a byte is in the pipe `gate`."""

    digits: Digits = Digits("test")

    def __len__(self):
        return len(self.digits)

    @property
    def classes(self):
        return self.digits.classes

    def labels(self):
        return self.digits.labels()

    def ids(self):
        return self.digits.ids()

    def read(self, i):
        if i == 200 and Path("gate").is_fifo():
            print("evaluating", flush=True)
            Path("gate").open("rb").read(1)
        return self.digits.read(i)


class Deep(nn.Module):
    """Few parameters, used again and again; `table` only makes the state larger."""

    classes: int
    deep_in_training: int
    deep_in_evaluation: int
    table: int

    @nn.compact
    def __call__(self, images, train):
        x = images.reshape(len(images), -1)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (64, 64))
        for _ in range(self.deep_in_training if train else self.deep_in_evaluation):
            x = jnp.tanh(x @ kernel)
        x = x + 0 * self.param("table", nn.initializers.zeros, (self.table,)).sum()
        return nn.Dense(self.classes)(x)


def deep(num_classes, evaluation=1, table=1):
    return Deep(num_classes, int(os.environ.get("DEEP_IN_TRAINING", 1)), evaluation, table)


recipe = Recipe(
    data=Data(Digits(), {"test": Gated()}, batch_size=32),
    augment=(Translate(1),),
    model=Model(deep, dtype="float32"),
    schedule=Constant(0.02),
    average=Average(0.9),
    length=Steps(80),
    evaluate_every=Steps(40),
    checkpoint=Checkpoint(every=Steps(10)),
    log=Log(every=Steps(1)),
)
'''
ENDLESS = "4000"
"""So many layers are compiled in more than a minute, and traced in seconds."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SLOW = pytest.mark.slow


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(RECIPE)
    return tmp_path


def _whole(folder: Path, *words: str) -> Path:
    (folder / "mine.py").write_text(RECIPE)
    command = ["train", str(folder / "mine.py"), "--run", str(folder / "run"), "--quiet", *words]
    assert main(command) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that no signal comes to."""
    return _whole(tmp_path_factory.mktemp("whole"))


def answered(sent: signal.Signals, doing: str) -> str:
    again = ", again to leave at once" if sent is signal.SIGINT else ""
    return f"{sent.name}: {doing}{again}"


def left_at_once(said: list[str], sent: signal.Signals) -> None:
    """Another thread may have answered, too, before or after, if the process was still there."""
    line = f"warning: {sent.name}: stopped before a step was made; nothing was lost"
    text = "\n".join(said)
    assert text.count(line) == 1
    assert set(text.replace(line, "").split("\n")) <= {"", answered(sent, "leaving")}


def stop_in_the_steps(folder: Path, sent: signal.Signals) -> None:
    with Training(folder) as training:
        training.reach("step ")
        assert training.send(sent) == answered(sent, "saving and leaving")
        status, said, _ = training.end()
    step = int(saved(folder / "run")[-1])
    assert status == 128 + sent and 1 <= step < 80
    assert said == [f"warning: {sent.name}: saved step {step} of 80 and stopped"]


def stop_in_compilation(folder: Path, sent: signal.Signals) -> None:
    before = saved(folder / "run")
    with Training(folder, env={"DEEP_IN_TRAINING": ENDLESS}) as training:
        training.reach("compiling the step ...")
        training.process.send_signal(sent)
        status, said, out = training.end()
    assert status == 128 + sent and "compiled in" not in out
    left_at_once(said, sent)
    assert saved(folder / "run") == before


@contextlib.contextmanager
def gate(folder: Path) -> Iterator[Callable[[], int]]:
    """A closed gate before the evaluation, and what opens it."""
    os.mkfifo(folder / "gate")
    pipe = os.open(folder / "gate", os.O_RDWR)
    try:
        yield lambda: os.write(pipe, b"x")
    finally:
        (folder / "gate").unlink()
        os.close(pipe)


def stop_in_evaluation(folder: Path, sent: signal.Signals) -> None:
    with gate(folder) as open_gate, Training(folder) as training:
        training.reach("evaluating")
        assert training.send(sent) == answered(sent, "saving and leaving")
        open_gate()
        status, said, out = training.end()
    assert status == 128 + sent and "test " not in out
    assert said == [f"warning: {sent.name}: saved step 40 of 80 and stopped"]
    assert saved(folder / "run")[-1] == "00000040"


def stop_at_once_in_evaluation(folder: Path) -> None:
    with gate(folder), Training(folder) as training:
        training.reach("evaluating")
        first = training.send(signal.SIGINT)
        assert first == "SIGINT: saving and leaving, again to leave at once"
        assert training.send(signal.SIGINT) == "stopped at once: nothing more was saved"
        status, said, _ = training.end()
    assert status == 130 and not said
    assert saved(folder / "run")[-1] in ("00000020", "00000030")


def test_a_run_stopped_again_and_again_ends_as_one_that_was_left_in_peace(
    mine: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_the_steps(mine, signal.SIGUSR1)
    stop_in_compilation(mine, signal.SIGTERM)
    stop_at_once_in_evaluation(mine)
    stop_in_evaluation(mine, signal.SIGINT)
    monkeypatch.chdir(mine)
    assert main(["train", "mine.py", "--run", "run", "--quiet"]) == 0
    same_run(mine / "run", whole)


@pytest.mark.parametrize(
    "sent", [signal.SIGTERM, *(pytest.param(sent, marks=SLOW) for sent in SIGNALS[1:])]
)
def test_a_long_compilation_is_left_at_once(mine: Path, sent: signal.Signals) -> None:
    stop_in_compilation(mine, sent)


SWALLOWED = """
import os, signal, threading, time, weakref
from imgclf.training.signals import Signals, interruptible

class Thing:
    pass

write = os.write
os.write = lambda *line: time.sleep(0.3) or write(*line)  # the signal's line comes late
with Signals() as signals:
    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    print("swallowed", flush=True)
    {then}
"""


@pytest.mark.parametrize("then", ["interruptible(threading.Event().wait)", "signals.learns()"])
def test_a_signal_that_a_callback_swallows_is_obeyed_and_said_all_the_same(then: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED.format(then=then)],
        env=os.environ | PYTHONPATH,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (143, "swallowed\n")
    assert done.stderr == "SIGTERM: leaving\n"


@SLOW
@pytest.mark.parametrize("sent", SIGNALS)
def test_each_signal_at_each_stage_changes_nothing(
    mine: Path, whole: Path, sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_the_steps(mine, sent)
    stop_in_compilation(mine, sent)
    stop_in_evaluation(mine, sent)
    stop_in_compilation(mine, sent)
    monkeypatch.chdir(mine)
    assert main(["train", "mine.py", "--run", "run", "--quiet"]) == 0
    same_run(mine / "run", whole)


@SLOW
@pytest.mark.parametrize("sent", SIGNALS)
def test_an_evaluation_that_was_put_off_can_be_interrupted_again(
    mine: Path, whole: Path, sent: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in_evaluation(mine, sent)
    with gate(mine) as open_gate, Training(mine) as training:
        training.reach("evaluating")
        training.process.send_signal(sent)
        open_gate()
        status, said, _ = training.end()
    assert status == 128 + sent
    left_at_once(said, sent)
    monkeypatch.chdir(mine)
    assert main(["train", "mine.py", "--run", "run", "--quiet"]) == 0
    same_run(mine / "run", whole)


@SLOW
def test_a_second_interrupt_leaves_at_once_while_the_prediction_compiles(mine: Path) -> None:
    with Training(mine, "--model.options.evaluation", ENDLESS) as training:
        training.reach("step 40/")
        first = training.send(signal.SIGINT)
        assert first == "SIGINT: saving and leaving, again to leave at once"
        assert training.send(signal.SIGINT) == "stopped at once: nothing more was saved"
        assert training.end()[0] == 130


DIES_AT_THE_ANNOTATION = """
import os, signal, sys
from imgclf.commands import main
from imgclf.training.checkpoints import Checkpoints

annotate = Checkpoints.annotate

def dies(*words):
    if {after}:
        annotate(*words)
    os.kill(os.getpid(), signal.SIGKILL)

Checkpoints.annotate = dies
main(sys.argv[1:])
"""


@SLOW
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_around_the_note_of_an_evaluation_that_was_put_off_leaves_it_there_once(
    mine: Path, whole: Path, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = mine / "run"
    with gate(mine) as open_gate, Training(mine) as training:
        training.reach("evaluating")
        training.process.send_signal(signal.SIGTERM)
        open_gate()
        assert training.end()[0] == 143
    assert saved(run)[-1] == "00000040" and not evaluations(run)
    with Training(mine, program=DIES_AT_THE_ANNOTATION.format(after=after)) as training:
        assert training.end()[0] == -signal.SIGKILL
    assert evaluations(run) == [40]
    noted = json.loads((run / "checkpoints" / "00000040" / "manifest.json").read_text())["metadata"]
    assert bool(noted["evaluation"]) == bool(noted["history"]) == after
    monkeypatch.chdir(mine)
    assert main(["train", "mine.py", "--run", "run", "--quiet"]) == 0
    assert evaluations(run) == [40, 80]
    same_run(run, whole)


def evaluations(run: Path) -> list[int]:
    """The steps of the evaluations that are written down, of which the event files have as many."""
    found = [line["step"] for line in lines(run) if "test/accuracy" in line]
    assert found == [step for step, name in events(run) if name == "test/accuracy"]
    return found


LARGE = ("--model.options.table", "6000000", "--length", "60steps")


@SLOW
def test_a_signal_in_a_running_save_lets_it_end_and_saves_again(
    tmp_path_factory: pytest.TempPathFactory, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _whole(tmp_path_factory.mktemp("whole"), *LARGE)
    checkpoints = mine / "run" / "checkpoints"
    monkeypatch.chdir(mine)
    for sent in SIGNALS:
        before = set(saved(mine / "run"))
        with Training(mine, *LARGE) as training:
            training.reach("step ")
            while not any(checkpoints.glob("*.orbax-checkpoint-tmp")):
                assert training.process.poll() is None
                threading.Event().wait(0.002)
            under_way = next(checkpoints.glob("*.orbax-checkpoint-tmp"), None)
            assert training.send(sent) == answered(sent, "saving and leaving")
            status, said, _ = training.end()
        after = saved(mine / "run")
        assert status == 128 + sent
        assert said == [f"warning: {sent.name}: saved step {int(after[-1])} of 60 and stopped"]
        assert len(set(after) - before) == 2, "the save that was under way, and the last"
        assert under_way is not None and under_way.name.split(".")[0] in after
    assert main(["train", "mine.py", "--run", "run", "--quiet", *LARGE]) == 0
    same_run(mine / "run", whole)


STOPS_BESIDE_A_THREAD = """
import signal, threading
import imgclf.__main__ as program
from imgclf.training import checkpoints
from imgclf.training.signals import Stopped

def main():
    checkpoints.left_behind = True  # a save has failed, and its thread waits
    threading.Thread(target=threading.Event().wait).start()
    raise Stopped(signal.SIGTERM, agreed=True)

program.main = main
program.run()
"""


def test_a_stopped_run_does_not_wait_for_what_a_failed_save_has_left_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPS_BESIDE_A_THREAD], env=os.environ | PYTHONPATH, timeout=60
    )
    assert done.returncode == 143
